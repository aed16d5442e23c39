"""The stages in their order; each is refused, skipped or made.

Of several processes (see training/hosts.py) all go through the stages together; process 0 decides
what is done, and writes the files of which a run has one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

import dream_jax.decoding.stage
import dream_jax.detector.stage
import dream_jax.evaluation.report.stage
import dream_jax.evaluation.stage
import dream_jax.latent_space.stage
import dream_jax.sampling.stage
from dream_jax.checks import check
from dream_jax.disk import check_space
from dream_jax.errors import UserError
from dream_jax.programs import drop_programs
from dream_jax.repair import find_damage, repair
from dream_jax.results import Row
from dream_jax.rows import SELECTIONS, check_row, impossible, lacking, make_rows, said
from dream_jax.run import Cache, Run
from dream_jax.run_config import FILE, read_config, write_config
from dream_jax.settings import Settings, as_dict
from dream_jax.stage import Stage
from dream_jax.training import hosts
from dream_jax.workers import worker
from dream_jax.workers.parts import check_workers
from dream_jax.workers.pool import make_tasks
from dream_jax.workers.tasks import Task
from dream_jax.zero_shot.rows import without_weights

# The steps of the method, in order: each lists its stages for some settings and rows.
STEPS: dict[str, Callable[[Settings, tuple[Row, ...]], list[Stage]]] = {
    "learn": dream_jax.latent_space.stage.stages,
    "sample": dream_jax.sampling.stage.stages,
    "decode": dream_jax.decoding.stage.stages,
    "train": dream_jax.detector.stage.stages,
    "evaluate": dream_jax.evaluation.stage.stages,
    "report": dream_jax.evaluation.report.stage.stages,
}

BEFORE_REPORT = tuple(step for step in STEPS if step != "report")


def make_run(
    settings: Settings,
    workdir: Path,
    rows: tuple[Row, ...] | None = None,
    cache: Cache | None = None,
    root_of: Callable[[Stage], Path] | None = None,
) -> Run:
    """Returns the run of some settings; its rows are those of `config.methods` if not given."""
    rows = make_rows(settings) if rows is None else rows
    stages: list[Stage] = []
    for list_stages in STEPS.values():
        stages += list_stages(settings, rows)
    return Run(settings, workdir, rows, stages, cache, root_of)


def run(
    config: ConfigDict,
    workdir: Path,
    steps: Sequence[str] = tuple(STEPS),
    overwrite: bool = False,
    workers: int = 1,
) -> Run:
    """Makes the stages that are not done, and prints the table.

    Args:
      config: checked as a whole before any work.
      workdir: holds all results; a run that was interrupted there continues.
      steps: some of `STEPS`.
      overwrite: whether to make the stages of the chosen steps again, also those that were made
        with other settings.
      workers: processes that share the stages before the report. Each is this program started
        again with the same flags, so only a program of `launch` that serves them may ask for more
        than one.

    Returns:
      The run, for reading its results.

    Raises:
      UserError: bad input, in one line; what was done stays.
    """
    unknown = [step for step in steps if step not in STEPS]
    if unknown or not steps:
        raise UserError(f"--stages names {unknown or 'nothing'}; allowed: {', '.join(STEPS)}")
    check_workers(workers)
    settings = check(config)
    hosts.check_same([as_dict(settings), list(steps), overwrite], "settings")
    check_folder(settings, workdir)
    made = possible_run(settings, workdir, steps, overwrite)
    begin(made, steps, overwrite)
    names = chosen_stages(made, steps)
    if workers > 1:
        own = [
            name
            for name in names
            if made.stages[name].step in BEFORE_REPORT and not made.done(name)
        ]
        tasks, rows = [Task(made, name) for name in own], [row.key for row in made.rows]
        for line in make_tasks(tasks, workers, rows).values():
            raise UserError(line)
    for name in names:
        make(made, name)
    dream_jax.evaluation.report.stage.show(made)
    return made


def serve(config: ConfigDict, workdir: Path) -> None:
    """Makes stages as a worker of `run`, until there are no more."""

    def runs(keys: Sequence[str]) -> dict[Path, Run]:
        settings = check(config)
        rows = tuple(row for row in make_rows(settings) if row.key in keys)
        return {workdir: make_run(settings, workdir, rows)}

    worker.serve(runs, make)


def check_folder(settings: Settings, workdir: Path) -> None:
    """Refuses a folder that holds a run of another configuration, or of another version."""
    if not (workdir / FILE).exists():
        return
    name = read_config(workdir)["name"]
    if name != settings.name:
        raise UserError(
            f"--workdir {workdir} holds a run of configuration {name!r}, not {settings.name!r}; "
            f"give another --workdir"
        )


def possible_run(settings: Settings, workdir: Path, steps: Sequence[str], overwrite: bool) -> Run:
    """Returns the run with the rows that are possible.

    Rows by CLIP need its weights. `methods = "all"` and "every" leave out what the data do not
    allow. One line says which rows are left out and why. While all stages are done, no data are
    loaded.

    Raises:
      UserError: no row remains.
    """
    run = make_run(settings, workdir)
    selected = settings.methods in SELECTIONS
    reasons = lacking(settings) if selected else {}
    if overwrite or not all(run.done(name) for name in chosen_stages(run, steps)):
        reasons |= without_weights(settings, run.rows)
        reasons |= impossible(settings, run.rows, run.work("learn").train) if selected else {}
    rows = tuple(row for row in run.rows if row.key not in reasons)
    if not rows:
        raise UserError(f"config.methods is {settings.methods!r}; no row remains; {said(reasons)}")
    if reasons:
        print(said(reasons), flush=True)
    return run if rows == run.rows else make_run(settings, workdir, rows, run.cache)


def chosen_stages(run: Run, steps: Sequence[str]) -> list[str]:
    """Returns the names of the stages of some steps, in order."""
    return [name for name, stage in run.stages.items() if stage.step in steps]


def begin(run: Run, steps: Sequence[str], overwrite: bool) -> None:
    """Refuses what cannot work, before any work; then clears the stages that will be made again.

    Raises:
      UserError: in one line.
    """
    chosen = chosen_stages(run, steps)
    for name in run.stages:
        if not (overwrite and name in chosen):
            run.record(name).refuse_changes()
    first = min(tuple(STEPS).index(step) for step in steps)
    for name, stage in run.stages.items():
        if tuple(STEPS).index(stage.step) < first and not run.record(name).done:
            raise UserError(
                f"--stages starts at {tuple(STEPS)[first]}, which needs stage {name!r}; it is not "
                f"done in {run.workdir}"
            )
    missing = {name for name in chosen if overwrite or not run.done(name)}
    damage = find_damage(run, chosen, missing)
    to_make = [name for name in chosen if name in missing or name in damage]
    for name in sorted(to_make, key=lambda name: run.stages[name].step == "decode"):
        run.stages[name].check(run.work(name))  # of decoding last, which takes longest
    config = run.workdir / FILE
    if not to_make and hosts.from_main(config.exists):
        return
    for row in run.rows if to_make else ():
        check_row(run.settings, row, run.work("learn").train)
    if to_make:
        hosts.from_main(lambda: check_space(run, to_make))
    hosts.barrier("settings checked")
    run.look_again()
    if hosts.is_main():
        for name in chosen if overwrite else ():
            run.record(name).clear()
        for name in to_make:
            run.record(name).reopen()
        for name, files in damage.items():
            repair(run.record(name), files)
        write_config(run.workdir, run.settings)
    hosts.barrier("begun")
    if not config.exists():
        raise UserError(
            f"--workdir {run.workdir}: process {hosts.index()} does not see what process 0 wrote "
            f"there; it must be a folder that all processes share"
        )


def make(run: Run, name: str) -> None:
    """Makes a stage that is not done; a derived one from nothing."""
    record = run.record(name)
    record.refuse_changes()  # of what was made again upstream, with another result
    if run.done(name):
        return
    if hosts.is_main() and record.stage.derived:
        record.clear()
    with record.running():
        record.stage.make(run.work(name))
    drop_programs()
