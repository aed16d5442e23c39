"""Histograms of the scores of ID and OOD images."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.patches import Patch

from dream_jax.evaluation.metrics import fraction_kept, ood_metrics, threshold_at_tpr
from dream_jax.evaluation.report.layouts import readable
from dream_jax.evaluation.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    PURPLE,
    STYLE,
    VERMILLION,
    figure_of,
    save,
    shortened,
)


def score_histograms(
    id_scores,
    ood_scores: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
    method_name: str,
    path,
) -> Path:
    """Densities of the scores of ID test images against each OOD set and decoded ID images.

    Args:
        id_scores: (n,), higher is more ID.
        ood_scores: {set name: (m,) scores}, a panel each.
        kept: {kind of decoded ID image: scores}, together in the last panel; may be empty.
        method_name: readable, for the heading.

    The dashed line is the threshold that keeps 95 % of `id_scores`.

    Raises:
        UserError: scores are empty or not finite.
    """
    panels = [
        (shortened(readable(name), 40), [(f"FPR95 {_percent(fpr)}", VERMILLION, scores)])
        for name, scores in ood_scores.items()
        for fpr in [ood_metrics(id_scores, scores)["fpr95"]]
    ]
    if kept:
        shares = [
            (f"{name.replace('_', ' ')}: {_percent(fraction_kept(id_scores, scores))} kept", scores)
            for name, scores in kept.items()
        ]
        colours = itertools.cycle((GREEN, PURPLE, INK))
        curves = [(text, next(colours), scores) for text, scores in shares]
        panels.append(("decoded ID images", curves))

    everything = np.concatenate([id_scores, *ood_scores.values(), *kept.values()])
    low, high = np.percentile(everything, [0.5, 99.5])  # a lone extreme would squeeze the rest
    bins = np.linspace(low, high if high > low else low + 1, 45)
    threshold = threshold_at_tpr(id_scores)

    with matplotlib.rc_context(STYLE):
        # One below the other, as wide as a phone.
        figure = figure_of(4.2, 1.75 * len(panels) + 0.7)
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)
        for axes, (title, curves) in zip(grid.flat, panels, strict=True):
            blue = _density(axes, id_scores, bins, BLUE, filled=True)
            for line, (text, colour, scores) in enumerate(curves):
                other = _density(axes, scores, bins, colour, filled=len(curves) == 1)
                place = {"transform": axes.transAxes, "va": "top"}
                axes.text(0, 0.99 - 0.13 * line, text, color=colour, fontweight="bold", **place)
                if axes is grid.flat[0]:
                    vermillion = other
            axes.set_title(title)
            top = axes.get_ylim()[1]
            axes.set_ylim(0, top * (1.14 + 0.2 * len(curves)))  # room for the text
            dashes = axes.vlines(threshold, 0, top, color=INK, linestyle=(0, (4, 3)), linewidth=1)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_xlim(bins[0], bins[-1])
            axes.tick_params(labelbottom=True)
        heading = f"{shortened(method_name, 34)}: scores, higher is more ID"
        figure.suptitle(heading, fontweight="bold", fontsize=9)
        figure.legend(
            [blue, vermillion, dashes], ["ID test images", "OOD set", "keeps 95 % of ID"],
            loc="outside lower center", ncols=3, fontsize=8, handlelength=1.4, columnspacing=1.2,
        )  # fmt: skip
        return save(figure, path)


def score_grid(
    scores: Mapping[str, Mapping[str, np.ndarray]],
    ood: Sequence[str],
    path,
    names: Mapping[str, str] | None = None,
) -> Path:
    """Densities of the scores of many rows: a line per row, a column per OOD set.

    Args:
        scores: {row: {set: (n,) scores}}, among the sets "id" and all of `ood`.
        ood: names of the OOD sets.
        names: readable names of rows and sets.

    A row has its own scale, from the 0.1th to the 99.9th percentile of all its scores.

    Raises:
        UserError: scores are empty or not finite.
    """
    bins = np.linspace(0, 1, 41)
    middles = (bins[:-1] + bins[1:]) / 2
    with matplotlib.rc_context(STYLE):
        figure = figure_of(max(4.6, 1.5 + 1.55 * len(ood)), 0.9 + 0.42 * len(scores))
        panels = figure.subplots(1, len(ood), squeeze=False, sharey=True)[0]
        for line, of in enumerate(scores.values()):
            fpr95 = {name: ood_metrics(of["id"], of[name])["fpr95"] for name in ood}
            low, high = np.percentile(np.concatenate([of[s] for s in ("id", *ood)]), [0.1, 99.9])
            scaled = {s: (of[s] - low) / (high - low if high > low else 1) for s in ("id", *ood)}
            density = {
                s: np.histogram(values, bins, density=True)[0] for s, values in scaled.items()
            }
            for axes, name in zip(panels, ood, strict=True):
                top = max(density["id"].max(), density[name].max(), 1e-9)
                for part, colour in (("id", BLUE), (name, VERMILLION)):
                    height = line - 0.8 * density[part] / top  # the axis points down
                    axes.fill_between(
                        middles, line, height, step="mid", color=colour, alpha=0.5, linewidth=0
                    )
                axes.axhline(line, color=GREY, linewidth=0.5)
                number = f"{100 * fpr95[name]:.1f}"
                axes.text(1.03, line, number, fontsize=7, ha="left", va="bottom", color=INK)
        for axes, name in zip(panels, ood, strict=True):
            axes.set_title(shortened(readable(name, names), 24))
            axes.set_xlim(0, 1.2)
            axes.set_ylim(len(scores) - 0.7, -1)
            axes.set_xticks([])
            axes.spines[:].set_visible(False)
            axes.tick_params(left=False)
        panels[0].set_yticks(
            np.arange(len(scores)) - 0.25, [shortened(readable(row, names), 24) for row in scores]
        )
        figure.suptitle("Scores, higher (right) is more ID; FPR95 in %", fontweight="bold")
        patches = [Patch(color=colour, alpha=0.5) for colour in (BLUE, VERMILLION)]
        figure.legend(
            patches, ["ID test images", "OOD set"], loc="outside lower center", ncols=2, fontsize=8
        )
        return save(figure, path)


def _density(axes, scores, bins, colour, filled):
    style = {"histtype": "stepfilled", "alpha": 0.5} if filled else {"histtype": "step"}
    # Scores beyond the bins still count: each curve is a share of all its images.
    weights = np.full(len(scores), 1 / (len(scores) * (bins[1] - bins[0])))
    _, _, (patch,) = axes.hist(scores, bins, weights=weights, color=colour, linewidth=1.5, **style)
    return patch


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
