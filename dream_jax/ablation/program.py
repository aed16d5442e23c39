"""Makes and measures the variants of a recipe, each in a folder of its own, and compares them."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dream_jax import pipeline
from dream_jax.ablation.measures import compare, gather, measure
from dream_jax.ablation.sharing import Finished, identity
from dream_jax.ablation.variants import Variant, asked_for, of_variant, read_variants
from dream_jax.disk import check_free, needed
from dream_jax.errors import UserError
from dream_jax.files import write_json
from dream_jax.record import Record
from dream_jax.run import Cache, Run
from dream_jax.settings import as_dict
from dream_jax.training import hosts
from dream_jax.workers import worker
from dream_jax.workers.parts import check_workers
from dream_jax.workers.pool import make_tasks
from dream_jax.workers.tasks import Task

FOLDER = "ablation"  # in the run's
STEPS = pipeline.BEFORE_REPORT


class Trial(NamedTuple):
    """A variant, and its run: a whole one, which everything that reads runs can read."""

    variant: Variant
    run: Run

    @property
    def stages(self) -> list[str]:
        """The names of the stages that are made."""
        return pipeline.chosen_stages(self.run, STEPS)

    @property
    def done(self) -> bool:
        """Whether all of them are."""
        return all(map(self.run.done, self.stages))


def run(config: ConfigDict, workdir: Path, workers: int = 1) -> dict[str, Any]:
    """Makes all variants of `config.ablation`, prints their table and writes the page.

    What variants have in common is made once. What is done, here or in the run of `workdir` itself,
    is not made again.

    Args:
      config: `ablation` and `data.tuning` say what is tried, and on which sets it is measured.
      workdir: of the run; the variants lie in its folder `ablation`, with the tables and the page.
      workers: processes that share the stages, see `pipeline.run`.

    Returns:
      The content of `ablation.json`: `variants`, with their changes and folders, and `methods`,
      `std`, `by_seed` and `bootstrap` as in metrics.json, by the names of the variants.

    Raises:
      UserError: bad input, in one line, before any work; or a variant failed, as by a collapse of
        its training, when all others are made.
    """
    check_workers(workers)
    variants = read_variants(config)
    asked = asked_for(variants, variants[0].settings.ablation.only)
    hosts.check_same([as_dict(variant.settings) for variant in variants], "settings")
    folder = workdir / FOLDER
    trials = make_trials(variants, folder)
    _refuse_equal(trials)
    listed = {trial.run.workdir for trial in trials}
    trials = [trial for trial in trials if trial.variant.name in asked or trial.done]
    finished = begin(trials, workdir, listed)
    measured: dict[str, dict[int, dict[str, Any]]] = {}
    ended = share(trials, finished, workers) if workers > 1 else {}
    failed: dict[str, str] = {}
    for number, trial in enumerate(trials, start=1):
        name = trial.variant.name
        title = f"variant {number} of {len(trials)}, {name}"
        try:
            if trial.run.workdir in ended:
                print(title, flush=True)
                raise UserError(ended[trial.run.workdir])
            make(trial, finished, title)
            measured[name] = measure(trial.run)
        except UserError as error:
            if hosts.count() > 1:  # where the other processes may be waiting for this one
                raise of_variant(name, error) from error
            failed[name] = str(error)
            print(f"   failed: {error}", flush=True)
    record = _record(trials, measured, failed)
    if measured and hosts.is_main():
        from dream_jax.ablation.report import table, write_page  # matplotlib: slow to import

        write_json(folder / "ablation.json", record)
        page = write_page(record, [t for t in trials if t.variant.name in measured], folder)
        print(f"\n{table(record)}\nreport: {page}")
    for name, reason in failed.items():
        more = f"; {len(failed)} of {len(trials)} variants failed" if len(failed) > 1 else ""
        raise of_variant(name, UserError(f"{reason}{more}"))
    return record


def make_trials(variants: Sequence[Variant], folder: Path) -> list[Trial]:
    """Returns the variants with their runs, which lie in `folder`."""
    cache = Cache()
    return [
        Trial(own, pipeline.make_run(own.settings, folder / own.folder, cache=cache))
        for own in variants
    ]


def serve(config: ConfigDict, workdir: Path) -> None:
    """Makes stages as a worker of `run`, until there are no more."""

    def runs(_: None) -> dict[Path, Run]:
        trials = make_trials(read_variants(config), workdir / FOLDER)
        return {trial.run.workdir: trial.run for trial in trials}

    worker.serve(runs, pipeline.make)


def share(trials: Sequence[Trial], finished: Finished, workers: int) -> dict[Path, str]:
    """Makes what is missing by several workers; see `make_tasks`."""
    tasks = [
        Task(trial.run, name, f"variant {trial.variant.name}")
        for trial in trials
        for name in trial.stages
        if not trial.run.done(name)
    ]

    def record(task: Task) -> Record:
        return task.run.record(task.stage)

    return make_tasks(
        tasks,
        workers,
        same=lambda task: identity(record(task)),
        take=lambda task: finished.give(record(task)),
        made=lambda task: finished.add(record(task)),
    )


def begin(trials: Sequence[Trial], workdir: Path, listed: Collection[Path]) -> Finished:
    """Checks all variants before any of them works; returns the stages that are done anywhere.

    Args:
      listed: the folders of these variants, and of those that are not made now.

    Raises:
      UserError: in one line that names the variant.
    """
    for variant, run in trials:
        try:
            pipeline.begin(run, STEPS, overwrite=False)
        except UserError as error:
            raise of_variant(variant.name, error) from error
    folder = workdir / FOLDER
    own = {trial.run.workdir for trial in trials}
    rest = sorted(path for path in folder.iterdir() if path.is_dir() and path not in own)
    others = [path for path in rest if path not in listed]
    finished = Finished([*(trial.run.workdir for trial in trials), workdir, *rest])
    fresh = missing(trials, finished)
    print(shares(trials, sum(map(len, fresh))), flush=True)
    if others:
        print(f"{len(others)} folders in {folder} are of variants that are not listed any more")
    hosts.from_main(lambda: check_free(workdir, _bytes(trials, fresh)))
    return finished


def _bytes(trials: Sequence[Trial], fresh: Sequence[Sequence[str]]) -> dict[str, int]:
    """Returns the bytes that the stages of all variants will take, by the names of the stages.

    Args:
      fresh: for each variant the stages that it makes; what it takes over needs no room.
    """
    found: dict[str, int] = {}
    for trial, names in zip(trials, fresh, strict=True):
        if names:
            left = needed(trial.run, [n for n in trial.stages if not trial.run.record(n).done])
            for name in names:
                found[name] = found.get(name, 0) + left[name]
    return found


def _refuse_equal(trials: Sequence[Trial]) -> None:
    """Raises UserError if two variants have the same results."""
    known: dict[frozenset[str], str] = {}
    for trial in trials:
        recipe = frozenset(identity(trial.run.record(name)) for name in trial.stages)
        if recipe in known:
            raise of_variant(
                trial.variant.name,
                UserError(
                    f"{', '.join(trial.variant.changes)} changes nothing that results depend on: "
                    f"they would be those of {known[recipe]!r}; leave one of the two out"
                ),
            )
        known[recipe] = trial.variant.name


def missing(trials: Sequence[Trial], finished: Finished) -> list[list[str]]:
    """Returns for each variant the stages that it makes, for itself and for those after it."""
    seen: set[str] = set()
    found = []
    for trial in trials:
        stages = {name: identity(trial.run.record(name)) for name in trial.stages}
        found.append(
            [
                name
                for name, stage in stages.items()
                if stage not in seen and stage not in finished and not trial.run.record(name).done
            ]
        )
        seen |= set(stages.values())
    return found


def shares(trials: Sequence[Trial], to_make: int) -> str:
    """Returns a line that says how many stages are shared.

    Args:
      to_make: how many stages are done nowhere.
    """
    total = sum(len(trial.stages) for trial in trials)
    distinct = {identity(trial.run.record(name)) for trial in trials for name in trial.stages}
    seeds = len(trials[0].run.seeds)
    return (
        f"{len(trials)} variants x {seeds} seed{'s' * (seeds > 1)}: {total - len(distinct)} of "
        f"{total} stages are shared; of the other {len(distinct)}, {len(distinct) - to_make} are "
        f"done and {to_make} remain"
    )


def make(trial: Trial, finished: Finished, title: str) -> None:
    """Makes the stages of a variant that are not done, or takes them over from another run.

    Args:
      title: of the variant, which is printed with what remains to be made.
    """
    run = trial.run
    names = [name for name in trial.stages if not run.done(name)]
    to_make = [name for name in names if identity(run.record(name)) not in finished]
    print(f"{title}: {_remains(len(names), to_make)}", flush=True)
    for name in names:
        if not hosts.from_main(partial(finished.give, run.record(name))):
            pipeline.make(run, name)
            finished.add(run.record(name))


def _remains(count: int, to_make: Sequence[str]) -> str:
    counts = {"takes over": count - len(to_make), "makes": len(to_make)}
    parts = [f"{verb} {n} stage{'s' * (n > 1)}" for verb, n in counts.items() if n]
    return ", ".join(parts) or "done"


def _record(
    trials: Sequence[Trial], measured: dict[str, dict[int, dict]], failed: dict[str, str]
) -> dict[str, Any]:
    """Returns the content of ablation.json."""
    recipe = trials[0].run
    variants = {
        variant.name: {"changes": list(variant.changes), "folder": run.workdir.name}
        | ({"failed": failed[variant.name]} if variant.name in failed else {})
        for variant, run in trials
    }
    sets = list(recipe.settings.data.tuning)
    own = {"config": recipe.settings.name, "sets": sets, "seeds": list(recipe.seeds)}
    found = own | {"variants": variants}
    if measured:
        runs = {trial.variant.name: trial.run for trial in trials}
        found |= gather(measured) | {"bootstrap": compare({name: runs[name] for name in measured})}
    return found
