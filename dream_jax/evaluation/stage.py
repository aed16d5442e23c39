"""⑤ Measures every row of the results on the same images, and gathers `metrics.json`.

Every file of `evaluation/evaluators/` is an evaluation. It defines

- `stages(settings, rows)`: the stages that it needs;
- `results(run, seed)`: what they left for one seed, {row: {measure: ...}}, of the rows that it
  measured; measures of all evaluations are merged.
"""

import importlib
import pkgutil
from types import ModuleType

from dream_jax.data.groups import GROUPS, groups_of
from dream_jax.evaluation import evaluators
from dream_jax.evaluation.bootstrap import paired_bootstrap
from dream_jax.evaluation.evaluators import embeddings
from dream_jax.files import read_json, write_json
from dream_jax.results import Row, seeds_of
from dream_jax.run import Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts


def all_evaluators() -> list[ModuleType]:
    """Returns the evaluations, one module each, in the order of their names."""
    names = sorted(module.name for module in pkgutil.iter_modules(evaluators.__path__))
    return [importlib.import_module(f"{evaluators.__name__}.{name}") for name in names]


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns the stages of all evaluations, and "metrics"."""
    found = [stage for one in all_evaluators() for stage in one.stages(settings, rows)]
    metrics = Stage(
        "metrics",
        "evaluate",
        "evaluation/metrics",
        ("name", "tuning.record", *(f"data.{group}" for group in GROUPS)),
        make,
        tuple(stage.name for stage in found),
        {"rows": [row.key for row in rows], "seeds": list(seeds_of(settings))},
        derived=True,
        products=("metrics.json",),
    )
    return [*found, metrics]


def make(work: Work) -> None:
    """Writes metrics.json."""
    if hosts.is_main():
        write_json(work.run.workdir / "metrics.json", _metrics(work))


def _metrics(work: Work) -> dict:
    from dream_jax.candidates import record_file, tuning_note
    from dream_jax.evaluation.seeds import summarise

    run, settings = work.run, work.settings
    metrics = summarise({seed: _results(run, seed) for seed in run.seeds})
    metrics |= {"seed": run.seeds[0], "seeds": list(run.seeds), "config": settings.name}
    metrics["embeddings"] = run.results(embeddings.NAME)
    names = [name for name in next(iter(metrics["methods"].values()))["ood"] if name != "mean"]
    groups = groups_of(settings.data, names)
    if groups:
        metrics["groups"] = groups
    if len(run.rows) > 1:
        scores = {seed: run.scores(seed) for seed in run.seeds}
        metrics["bootstrap"] = paired_bootstrap(scores, names, groups)
    record = record_file(settings.tuning.record)
    if record is not None:
        used = {row.key: {**row.training_options, **row.options} for row in run.rows}
        metrics["tuning"] = tuning_note(read_json(record), used)
    return metrics


def _results(run: Run, seed: int) -> dict[str, dict]:
    """Returns the measures of every row, of one seed."""
    found: dict[str, dict] = {row.key: {} for row in run.rows}
    for evaluator in all_evaluators():
        for key, measures in evaluator.results(run, seed).items():
            found[key] |= measures
    return found
