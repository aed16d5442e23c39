"""The figures of an ablation: the variants' measures, and what they imagine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from dream_jax.ablation.measures import less_recipe
from dream_jax.ablation.variants import RECIPE
from dream_jax.evaluation.report.image_sheets import Sheet
from dream_jax.evaluation.report.style import (
    BLUE,
    GREY,
    STYLE,
    VERMILLION,
    figure_of,
    save,
    shortened,
)

NAME = 42  # characters of a variant's name
IMAGES = 10  # of a variant


def compare_variants(metrics: Mapping, path: Path) -> Path:
    """Draws mean FPR95 and AUROC of each variant: dots for seeds, their mean, its deviation.

    A dashed line goes through the recipe. The interval of a variant's difference from it is drawn
    from there: where it holds 0, it crosses the line.

    Args:
      metrics: of all variants, see `measures.gather`, with the `bootstrap` of `measures.compare`.
    """
    names = list(metrics["methods"])
    with matplotlib.rc_context(STYLE):
        figure = figure_of(7.8, 1.5 + 0.25 * len(names))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (metric, title) in zip(
            panels,
            (("fpr95", "FPR95 in %, lower is better"), ("auroc", "AUROC in %, higher is better")),
            strict=True,
        ):
            legend = _draw(axes, metrics, metric)
            axes.set_title(title, fontweight="bold")
        panels[0].set_yticks(range(len(names)), [shortened(name, NAME) for name in names])
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        figure.legend(
            *zip(*legend, strict=True), loc="outside lower center", ncols=3, fontsize=8,
            handlelength=1.4, columnspacing=1.2,
        )  # fmt: skip
        return save(figure, path)


def _draw(axes: Any, metrics: Mapping, metric: str) -> list[tuple[Any, str]]:
    """Draws one measure of all variants; returns the parts of the legend."""
    get = lambda entry: 100 * entry["ood"]["mean"][metric]  # noqa: E731
    legend: dict[str, Any] = {}
    for at, (name, entry) in enumerate(metrics["methods"].items()):
        mean, colour = get(entry), VERMILLION if name == RECIPE else BLUE
        if "std" in metrics:
            std = get(metrics["std"][name])
            spread = axes.barh(
                at, 2 * std, 0.56, mean - std, color=colour, alpha=0.25, linewidth=0, zorder=1
            )
            values = [get(run[name]) for run in metrics["by_seed"].values()]
            seeds = axes.scatter(
                values, [at] * len(values), s=9, color=GREY, linewidths=0, zorder=3
            )
            legend |= {"± standard deviation": spread, "a seed": seeds}
        if (less := less_recipe(metrics, name, metric)) is not None:
            ends = [mean + 100 * (end - less[0]) for end in less[1:]]
            level = f"{100 * metrics['bootstrap']['level']:g} %"
            legend[f"{level} interval of the difference from the recipe"] = axes.plot(
                ends, [at, at], color=BLUE, linewidth=1.2, zorder=2
            )[0]
        dot = axes.scatter(mean, at, s=26, color=colour, linewidths=0, zorder=4)
        legend["mean over seeds" if "std" in metrics else "measured"] = dot
        axes.annotate(
            f"{mean:.1f}", (1, at), (6, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
        if name == RECIPE:
            line = axes.axvline(mean, color=VERMILLION, linestyle="--", linewidth=0.9, zorder=0)
            legend[RECIPE] = line
    axes.use_sticky_edges = False  # a bar's end would be that of the axis
    axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)
    return [(drawn, text) for text, drawn in legend.items()]


def along_settings(metrics: Mapping, groups: Mapping[str, Mapping[str, float]], path: Path) -> Path:
    """Draws mean FPR95 over the values of a setting, a panel for each, with its deviation.

    The values stand in equal steps, as most are chosen so that their ratios are alike.

    Args:
      metrics: as for `compare_variants`.
      groups: setting → variant → its value.
    """
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    with matplotlib.rc_context(STYLE):
        figure = figure_of(0.6 + 2.4 * columns, 0.5 + 1.9 * rows)
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, (field, values) in zip(panels.flat, groups.items(), strict=False):
            _draw_along(axes, metrics, values)
            axes.set_xlabel(field, fontsize=8)
        for axes in panels.flat[len(groups) :]:
            axes.set_visible(False)
        for axes in panels[:, 0]:
            axes.set_ylabel("FPR95 in %")
        return save(figure, path)


def _draw_along(axes: Any, metrics: Mapping, values: Mapping[str, float]) -> None:
    """Draws the variants of one setting, in the order of its values."""
    names = sorted(values, key=lambda name: values[name])
    at = np.arange(len(names))

    def get(part: Mapping) -> np.ndarray:
        return np.array([100 * part[name]["ood"]["mean"]["fpr95"] for name in names])

    mean = get(metrics["methods"])
    if "std" in metrics:
        std = get(metrics["std"])
        axes.fill_between(at, mean - std, mean + std, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(at, mean, color=BLUE, marker="o", markersize=4, linewidth=1.3)
    if RECIPE in names:
        own = names.index(RECIPE)
        axes.plot(at[own], mean[own], "o", color=VERMILLION, markersize=6, zorder=3)
    axes.set_xticks(at, [f"{values[name]:g}" for name in names], fontsize=8)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)


def sheet_of_outliers(pictures: Mapping[str, Sequence[np.ndarray]], path: Path) -> Path:
    """Draws imagined outliers, a row for each variant.

    Args:
      pictures: variant → (H, W, C) images in [0, 1].
    """
    columns = max(3, *map(len, pictures.values()))
    sheet = Sheet(rows=list(pictures), columns=columns)
    for row, images in enumerate(pictures.values()):
        for column, image in enumerate(images):
            sheet.put(row, column, image)
    sheet.head(0, "Imagined outliers")
    return sheet.save(path)
