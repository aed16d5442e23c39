"""Choosing the settings of methods and detectors: a few candidates for each, tried alike.

Candidates are trained with a seed of their own and measured on OOD sets that no table reports.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dream_jax import config as configuration
from dream_jax.candidates import choose, text_table
from dream_jax.errors import UserError
from dream_jax.files import write_json
from dream_jax.pipeline import STAGES, Pipeline
from dream_jax.training import hosts


def run(config: ConfigDict, workdir: Path) -> dict:
    """Tries all candidates of `config.methods`, prints them, and writes `tuning.json`.

    Args:
      config: `tuning` and `data.tuning` say what is tried and by which sets it is measured.
      workdir: of the run, whose latent space, embeddings and images are made if they are not there
        and used by all candidates; what is tried lies in its folder `tuning`.

    Returns:
      The content of `tuning.json`; for each row all candidates with their measures, and the chosen:
      that of the least mean FPR95 over the sets, then of the largest mean AUROC.

    Raises:
      UserError: bad input, in one line; candidates that are done are not tried again.
    """
    config = configuration.spelt_out(config)
    configuration.check_config(config)
    rows = [row for row in config.methods if row in config.tuning.candidates]
    if not config.data.tuning or not rows:
        raise UserError(
            f"config.data.tuning is {tuple(config.data.tuning)} and config.tuning.candidates is of "
            f"{', '.join(config.tuning.candidates) or 'nothing'}; there must be sets to measure "
            f"by, and candidates for some of config.methods = {tuple(config.methods)}"
        )
    tried: dict[str, list] = {}
    pipeline = None
    for row in rows:
        tried[row] = []
        for options in configuration.candidates(config, row):
            pipeline = _pipeline(config, workdir, row, options, like=pipeline)
            pipeline.begin(STAGES[:-1], overwrite=False)
            for stage in (pipeline.learn, pipeline.sample, pipeline.decode, pipeline.train):
                stage()
            pipeline.score()
            tried[row].append(_measures(pipeline, row, options))
    record = {
        "config": config.name,
        "sets": pipeline.ood_names,
        "seed": config.tuning.seed,
        "rows": {row: {"candidates": own, "chosen": choose(own)} for row, own in tried.items()},
    }
    if hosts.is_main():
        write_json(workdir / "tuning.json", record)
        print(f"\n{text_table(record)}\nwritten: {workdir / 'tuning.json'}")
    return record


def _pipeline(config: ConfigDict, workdir: Path, row: str, options: dict, like: Pipeline | None):
    """The run of one candidate, beside the others in `workdir/tuning`."""
    config = config.copy_and_resolve_references()
    config.methods, config.seeds = (row,), (config.tuning.seed,)
    config.data.ood, config.data.tuning, config.data.shifted = config.data.tuning, (), ()
    own = config.method_options.get(row, ConfigDict()).to_dict() | options
    with config.unlocked():
        config.method_options[row] = ConfigDict(own)
    name = ",".join(f"{setting}={value}" for setting, value in options.items())
    return Pipeline(config, workdir / "tuning", shared=workdir, variant=(row, name), like=like)


def _measures(pipeline: Pipeline, row: str, options: dict) -> dict[str, Any]:
    entry = pipeline.results(pipeline.plan.seeds[0])[row]
    mean = entry["ood"]["mean"]
    measures = {"fpr95": mean["fpr95"], "auroc": mean["auroc"]}
    return {"options": options, **measures, "id_accuracy": entry["id_accuracy"]}
