"""Choosing the settings of trainings and detectors: a few candidates for each row, tried alike.

Candidates are trained with a seed of their own and measured on OOD sets that no table reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dream_jax import pipeline
from dream_jax.candidates import choose, read_record
from dream_jax.checks import check
from dream_jax.data.groups import on_tuning_sets
from dream_jax.errors import UserError
from dream_jax.evaluation.report.tables import list_table
from dream_jax.files import write_json
from dream_jax.results import Row, stage_of
from dream_jax.rows import candidates, make_rows, with_options
from dream_jax.run import Cache, Run
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts
from dream_jax.workers import worker
from dream_jax.workers.parts import check_workers
from dream_jax.workers.pool import make_tasks
from dream_jax.workers.tasks import Task

# What all candidates share with the run; the rest of the steps each does for itself.
SHARED = ("learn", "sample", "decode")


def run(config: ConfigDict, workdir: Path, workers: int = 1) -> dict[str, Any]:
    """Tries all candidates of `config.methods`, prints them, and writes `tuning.json`.

    Args:
      config: `tuning` and `data.tuning` say what is tried and on which sets it is measured.
      workdir: of the run, whose latent space, embeddings and images all candidates use; they are
        made if they are not there. What is tried lies in its folder `tuning`.
      workers: processes that share the stages, see `pipeline.run`.

    Returns:
      The content of `tuning.json`: for each row all candidates with their measures, and the chosen
      one, which has the least mean FPR95 over the sets, then the largest mean AUROC. Rows that
      `config.methods` leaves out stay as they were tuned before, see `tuned_before`.

    Raises:
      UserError: bad input, in one line; candidates that are done are not tried again.
    """
    check_workers(workers)
    settings = check(config)
    rows = [row for row in make_rows(settings) if row.key in settings.tuning.candidates]
    if not settings.data.tuning or not rows:
        raise UserError(
            f"config.data.tuning is {settings.data.tuning} and config.tuning.candidates is of "
            f"{', '.join(settings.tuning.candidates) or 'nothing'}; there must be sets to measure "
            f"on, and candidates for some of config.methods = {settings.methods}"
        )
    before = tuned_before(settings, workdir)
    runs = candidate_runs(settings, workdir)
    for _, _, candidate in runs:  # all are checked before any of them works
        pipeline.begin(candidate, pipeline.BEFORE_REPORT, overwrite=False)
    if workers > 1:
        share([candidate for _, _, candidate in runs], workers)
    tried: dict[str, list] = {row.key: [] for row in rows}
    for key, options, candidate in runs:
        for name in pipeline.chosen_stages(candidate, pipeline.BEFORE_REPORT):
            pipeline.make(candidate, name)
        tried[key].append({"options": options, **_measures(candidate, key)})
    made = {key: {"candidates": own, "chosen": choose(own)} for key, own in tried.items()}
    every = before | made
    rows_in_order = {key: every[key] for key in settings.tuning.candidates if key in every}
    record = _of(settings) | {"rows": rows_in_order}
    if hosts.is_main():
        write_json(workdir / "tuning.json", record)
        print(f"\ntuned on {', '.join(record['sets'])}, seed {record['seed']}, in %")
        print(f"{candidate_table(made)}written: {workdir / 'tuning.json'}")
        if kept := [key for key in rows_in_order if key not in made]:
            print(f"with rows as they were tuned before: {', '.join(kept)}")
    return record


def candidate_runs(settings: Settings, workdir: Path) -> list[tuple[str, Mapping[str, Any], Run]]:
    """Returns the row, the options and the run of every candidate of `config.methods`."""
    cache = Cache()
    return [
        (row.key, options, candidate_run(settings, workdir, row, options, cache))
        for row in make_rows(settings)
        if row.key in settings.tuning.candidates
        for options in candidates(settings, row.key)
    ]


def serve(config: ConfigDict, workdir: Path) -> None:
    """Makes stages as a worker of `run`, until there are no more."""

    def runs(_: None) -> dict[Path, Run]:
        return {own.workdir: own for _, _, own in candidate_runs(check(config), workdir)}

    worker.serve(runs, pipeline.make)


def share(runs: Sequence[Run], workers: int) -> None:
    """Makes what is missing by several workers, each stage that candidates share once.

    Raises:
      UserError: a stage could not be made; the others are.
    """
    tasks: dict[Path, Task] = {}
    for own in runs:
        for name in pipeline.chosen_stages(own, pipeline.BEFORE_REPORT):
            if not own.done(name):
                task = Task(own, name, "/".join(own.workdir.parts[-2:]))
                tasks.setdefault(task.folder, task)
    for line in make_tasks(list(tasks.values()), workers).values():
        raise UserError(line)


def tuned_before(settings: Settings, workdir: Path) -> dict[str, Any]:
    """Returns the rows of `workdir/tuning.json` and of `config.tuning.record`; the first go first.

    Left out are rows that were tuned on other sets, with another seed or configuration, and those
    whose candidates are others today.

    Raises:
      UserError: one of the files is damaged.
    """
    found: dict[str, Any] = {}
    file = workdir / "tuning.json"
    earlier = str(file) if file.is_file() else ""
    for record in (
        read_record(settings.tuning.record),
        read_record(earlier, "the record of earlier tuning", "deleted"),
    ):
        rows = record.pop("rows", {})
        for key, own in rows.items() if record == _of(settings) else ():
            tried = [candidate["options"] for candidate in own["candidates"]]
            asked = key in settings.tuning.candidates and candidates(settings, key)
            found |= {key: own} if tried == asked else {}
    return found


def _of(settings: Settings) -> dict[str, Any]:
    """Returns what a record says of all its rows."""
    sets = list(settings.data.tuning)
    return {"config": settings.name, "sets": sets, "seed": settings.tuning.seed}


def candidate_run(
    settings: Settings, workdir: Path, row: Row, options: Mapping[str, Any], cache: Cache
) -> Run:
    """Returns the run of one candidate, in a folder of its own.

    The plain classifier, which all candidates with its seed share, lies in `workdir/tuning`.
    """
    seed = settings.tuning.seed
    changed = replace(
        settings,
        methods=(row.key,),
        seeds=(seed,),
        data=on_tuning_sets(settings.data),
        method_options=with_options(settings.method_options, row.key, options),
    )
    name = ",".join(f"{setting}={value}" for setting, value in options.items())
    own = workdir / "tuning" / row.key.replace("/", "-") / name
    plain = stage_of("train", "cross_entropy", seed, settings.seed)

    def root_of(stage: Stage) -> Path:
        if stage.step in SHARED:
            return workdir
        return workdir / "tuning" if stage.name == plain else own

    return pipeline.make_run(changed, own, cache=cache, root_of=root_of)


def _measures(run: Run, key: str) -> dict[str, float]:
    entry = run.metrics["methods"][key]
    mean = entry["ood"]["mean"]
    return {"fpr95": mean["fpr95"], "auroc": mean["auroc"], "id_accuracy": entry["id_accuracy"]}


def candidate_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A line per candidate; those that were chosen are marked.

    Args:
      rows: those of tuning.json.
    """
    measures = {"FPR95": "fpr95", "AUROC": "auroc", "ID acc.": "id_accuracy"}
    lines = [
        (
            "*" if candidate["options"] == own["chosen"] else "",
            row,
            ", ".join(f"{name}={value}" for name, value in candidate["options"].items()),
            *(f"{100 * candidate[name]:.1f}" for name in measures.values()),
        )
        for row, own in rows.items()
        for candidate in own["candidates"]
    ]
    return list_table(("", "row", "candidate", *measures), lines)
