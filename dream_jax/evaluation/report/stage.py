"""The report of a run: figures, tables and the page that holds them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dream_jax.ending import program
from dream_jax.errors import UserError
from dream_jax.evaluation.report.maps import check_map
from dream_jax.files import read_json, read_npz
from dream_jax.repair import damaged_files
from dream_jax.results import OUTLIERS as OUTLIER_KINDS
from dream_jax.results import Row, decode_stage, stage_of
from dream_jax.run import Run, Work
from dream_jax.settings import Settings, as_dict, field_types
from dream_jax.stage import Stage
from dream_jax.training import hosts

if TYPE_CHECKING:
    from dream_jax.evaluation.report.page import RunResults

OUTLIERS = "evaluate outliers"  # the stage with what is known about each outlier
# Of a stage's record; those of earlier versions lack the last.
MEASURED = ("seconds", "peak_memory_mb", "start_memory_mb")
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "diffusers", "scikit-learn")


def titles(rows: tuple[Row, ...]) -> dict[str, str]:
    """Returns what tables call the rows."""
    return {row.key: row.title for row in rows}


def sections(rows: tuple[Row, ...]) -> dict[str, str] | None:
    """Returns the titles of the groups of rows; None where rows are too few for groups."""
    return {row.key: row.section for row in rows} if len(rows) > 4 else None


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns the one stage "report", which shows the configuration and so reads all of it."""
    inputs = ("sample", "round trips test", OUTLIERS, "metrics")
    reads = tuple(field_types())
    return [Stage("report", "report", "report", reads, make, inputs, check=check, derived=True)]


def check(work: Work) -> None:
    """Checks that the figure's class is one of the run's, and its map one that can be drawn."""
    check_map(work.settings.report.map, "config.report.map")
    chosen, names = work.settings.report.figure_class, work.train.class_names
    if chosen and chosen not in names:
        raise UserError(
            f"config.report.figure_class is {chosen!r}; allowed: {', '.join(names)}, or empty"
        )


def make(work: Work) -> None:
    """Draws the report; process 0 alone, so nothing here may wait for the others."""
    from dream_jax.evaluation.report.page import (
        make_page,  # matplotlib and scikit-learn: slow to import
    )

    if hosts.is_main():
        make_page(results(work), work.folder)


def results(work: Work) -> RunResults:
    """Returns what the page shows."""
    from dream_jax.evaluation.report.page import RunResults

    run, settings = work.run, work.settings
    metrics, known = run.metrics, run.features
    seed = metrics["seed"]
    judgements = {}
    for row in run.rows:
        if row.extra in OUTLIER_KINDS and row.main:
            trained = run.folder(stage_of("train", row.training, seed, settings.seed))
            judgements[row.title] = read_json(trained / "outliers.json")
    legible = run.results("evaluate legible") if "evaluate legible" in run.stages else {}
    return RunResults(
        name=settings.name,
        config_json=json.dumps(as_dict(settings), indent=2),
        metrics=metrics,
        class_names=work.train.class_names,
        features=known.features,
        feature_labels=known.labels,
        anchors=known.anchors,
        embeddings=run.embeddings("outliers"),
        train=(work.train.images, work.train.labels),
        test=(work.test.images, work.test.labels),
        outliers=run.decoded("outliers"),
        round_trips=run.round_trips("test"),
        by_name=run.decoded("by_name_test"),
        scores=run.scores(seed),
        titles=titles(run.rows),
        sections=sections(run.rows),
        judgements=judgements,
        legible=legible.get("legible"),
        stages=[
            {"stage": name, **{key: record.get(key) for key in MEASURED}}
            for name in run.stages
            if run.record(name).exists and (record := run.record(name).read())["done"]
        ],
        seed=settings.seed,
        readings=read_npz(run.folder(OUTLIERS) / "outliers.npz"),
        curves=curves(run),
        command=program.command,
        versions=versions(),
        figure_class=settings.report.figure_class,
        map=settings.report.map,
        bood=run.decoded("bood") if decode_stage("bood") in run.stages else None,
        method=settings.sampling.method,
    )


def curves(run: Run) -> dict[str, Mapping]:
    """Returns the curves of every training that left some, by its title.

    Raises:
      UserError: they are damaged, and no stage that is chosen makes them again.
    """
    from dream_jax.training.curves import METRICS, read_curves

    found: dict[str, Mapping] = {}
    for name, stage in run.stages.items():
        if stage.step not in ("learn", "train") or not run.record(name).done:
            continue
        if METRICS in damaged_files(run.record(name), thorough=False):
            raise UserError(
                f"{run.folder(name) / METRICS}: is missing or damaged; add {stage.step} to --stages"
            )
        title = name.replace("train ", "classifier ").replace("_", " ")
        if own := read_curves(run.folder(name)):
            found["latent space" if name == "learn" else title] = own
    return found


def versions() -> dict[str, str]:
    """Returns the versions of this program and of what it computes with, and the device."""
    import jax

    from dream_jax import __version__

    found = {"dream_jax": __version__, "Python": platform.python_version()}
    found |= {name: version(name) for name in PACKAGES}
    return found | {"device": jax.devices()[0].device_kind}


def show(run: Run) -> Path:
    """Prints the table and where the report is; returns the page."""
    from dream_jax.evaluation.report.tables import text_table

    page = run.folder("report") / "index.html"
    if (run.workdir / "metrics.json").exists():
        table = text_table(run.metrics, titles(run.rows), sections=sections(run.rows))
        print(f"\n{table}\n")
    if page.exists():
        print(f"report: {page}")
    return page
