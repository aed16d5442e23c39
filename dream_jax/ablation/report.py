"""The table of an ablation, for the terminal and as files, and its page with figures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_jax.ablation.figures import IMAGES, along_settings, compare_variants, sheet_of_outliers
from dream_jax.ablation.measures import layout_of, less_recipe
from dream_jax.ablation.sharing import identity
from dream_jax.ablation.variants import RECIPE
from dream_jax.ending import program
from dream_jax.evaluation.report.layouts import Layout
from dream_jax.evaluation.report.page import Shown
from dream_jax.evaluation.report.stage import versions
from dream_jax.evaluation.report.tables import text_table
from dream_jax.evaluation.report.write import Page, write_report
from dream_jax.results import OUTLIERS, decode_stage, kind_shown
from dream_jax.run import Run
from dream_jax.settings import as_dict, flatten

if TYPE_CHECKING:
    from dream_jax.ablation.program import Trial

HEADINGS = ("Variant", "Mean FPR95 less the recipe's", "What it changes", "Folder")


def table(record: Mapping[str, Any]) -> str:
    """Returns the table for the terminal.

    Args:
      record: the content of ablation.json.
    """
    return text_table(record, _names(record), layout=_layout(record))


def write_page(record: Mapping[str, Any], trials: "Sequence[Trial]", folder: Path) -> Path:
    """Writes the tables, the figures and the page of an ablation; returns the page's path.

    Args:
      record: the content of ablation.json.
      trials: the variants that were measured.
    """
    runs = {trial.variant.name: trial.run for trial in trials}
    page = Page(
        title=f"Ablation: {record['config']}",
        metrics=record,
        config_json=json.dumps(as_dict(trials[0].run.settings), indent=2),
        stages=_times(trials),
        figures=[shown._asdict() for shown in _figures(record, runs, folder)],
        facts=[],
        names=_names(record),
        command=program.command,
        versions=versions(),
        layout=_layout(record),
        label="tab:ablation",
        lists=[("Variants", HEADINGS, _listed(record))],
    )
    return write_report(folder, page)


def _names(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: name for name in record["variants"]}  # as they are, with their underscores


def _layout(record: Mapping[str, Any]) -> Layout:
    first = next(iter(record["methods"].values()))
    return layout_of(record, [name for name in first["ood"] if name != "mean"])


def _listed(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns each variant's name, its difference to the recipe, its changes, and its folder.

    In place of the folder stands why it has no results.
    """
    return [
        (
            name,
            _less_recipe(record, name),
            ", ".join(own["changes"]) or "nothing",
            f"failed: {own['failed']}" if "failed" in own else own["folder"],
        )
        for name, own in record["variants"].items()
    ]


def _less_recipe(record: Mapping[str, Any], variant: str) -> str:
    less = less_recipe(record, variant, "fpr95") if variant in record["methods"] else None
    if less is None:
        return "–"
    value, low, high = (f"{100 * number:+.1f}".replace("-", "−") for number in less)
    return f"{value} ({low} to {high})"


def _figures(record: Mapping[str, Any], runs: Mapping[str, Run], folder: Path) -> Iterable[Shown]:
    caption = (
        "Mean over the tuning sets. The deviation is that over trainings with other seeds. The "
        "dashed line goes through the recipe; the interval of a difference from it is by a paired "
        "bootstrap over test images, with the trained networks held fixed."
    )
    yield Shown(
        compare_variants(record, folder / "variants.png"), "How the variants compare", caption
    )
    if groups := ordered(runs, record["variants"]):
        caption = (
            "Mean FPR95 over the tuning sets, by the value of the one setting that variants "
            "change, in equal steps. The band is the deviation, the red dot the recipe."
        )
        path = along_settings(record, groups, folder / "settings.png")
        yield Shown(path, "Settings that have an order", caption)
    pictures = _pictures(runs)
    if pictures:
        caption = (
            f"An outlier of each of up to {IMAGES} classes. Variants that train on the same images "
            f"share a row."
        )
        path = sheet_of_outliers(pictures, folder / "outliers.png")
        yield Shown(path, "What the variants imagine", caption)


def ordered(
    runs: Mapping[str, Run], variants: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Returns setting → variant → its value, of numbers that two variants or more change alone.

    The recipe is among the variants of each.
    """
    flat = {name: flatten(as_dict(run.settings)) for name, run in runs.items()}
    found: dict[str, dict[str, float]] = {}
    for name, own in flat.items():
        fields = [change.partition("=")[0] for change in variants[name]["changes"]]
        if len(fields) == 1 and _is_number(own.get(fields[0])):
            found.setdefault(fields[0], {})[name] = own[fields[0]]
    groups = {field: values for field, values in found.items() if len(values) > 1}
    for field, values in groups.items():
        if RECIPE in flat and _is_number(flat[RECIPE].get(field)):
            values[RECIPE] = flat[RECIPE][field]
    return groups


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pictures(runs: Mapping[str, Run]) -> dict[str, list[np.ndarray]]:
    """Returns an outlier of each of the first classes; of variants that share them, once.

    Of the second class the second one, and so on, as prompts take turns within a class.
    """
    sharing: dict[tuple[str, str], list[str]] = {}
    for name, run in runs.items():
        kind = kind_shown(run.settings, run.rows[0].extra)
        if kind in OUTLIERS:
            key = kind, run.record(decode_stage(kind)).digest
            sharing.setdefault(key, []).append(name)
    found = {}
    for (kind, _), (first, *others) in sharing.items():
        images, labels = runs[first].decoded(kind)
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels)[:IMAGES]]
        chosen = [places[turn % len(places)] for turn, places in enumerate(classes)]
        more = f" and {len(others)} other{'s' * (len(others) > 1)}" if others else ""
        found[first + more] = [images[int(place)] for place in chosen]
    return found


def _times(trials: "Sequence[Trial]") -> list[dict[str, Any]]:
    """Returns the time and memory of each step, of which shared stages count once."""
    stages = {
        identity(trial.run.record(name)): (trial.run.stages[name].step, trial.run.record(name))
        for trial in trials
        for name in trial.stages
    }
    found: dict[str, list[Mapping[str, Any]]] = {}
    for step, record in stages.values():
        found.setdefault(step, []).append(record.read())
    return [
        {
            "stage": f"{step}, {len(own)} stage{'s' * (len(own) > 1)}",
            "seconds": sum(made["seconds"] for made in own),
            "peak_memory_mb": max(made["peak_memory_mb"] for made in own),
        }
        for step, own in found.items()
    ]
