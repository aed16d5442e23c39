"""The charts of the page: the curves of trainings, and the ROC curves of rows."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from dream_jax.evaluation.report.layouts import GROUP_TITLES
from dream_jax.evaluation.report.panels import Axis, Line, chart, swatch

# Metric → (steps, values), as `curves.read_curves` gives them.
Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]
SHARES = ("accuracy", "test_accuracy")
NOT_SHOWN = ("step", "epoch", "learning_rate", *SHARES)
LABELS = {"accuracy": "on batches in training", "test_accuracy": "on ID test images"}
GRID = np.linspace(0, 1, 81)


class Panel(NamedTuple):
    """A chart with its title and what its lines are: (swatch, label) each."""

    title: str
    svg: Markup
    legend: Sequence[tuple[Markup, str]] = ()


def training_panels(curves: Curves) -> list[Panel]:
    """Returns a panel for the loss, each of its terms, the accuracies and the learning rate."""
    if "epoch" in curves:
        steps, epochs = curves["epoch"]
        at = dict(zip(steps, epochs, strict=True))
        x_of, x = (lambda own: [at[step] for step in own]), Axis("epoch", 0)
    else:
        x_of, x = (lambda own: list(own)), Axis("step", 0)
    terms = [name for name in curves if name not in NOT_SHOWN]
    if len(terms) == 2 and curves[terms[0]][1] == curves[terms[1]][1]:
        terms = terms[:1]  # the loss has one term, which is the loss
    panels = []
    for name in terms:
        steps, values = curves[name]
        panels.append(
            Panel(_readable(name), chart([Line(name, x_of(steps), values)], x, Axis(name)))
        )
    lines = [
        Line(LABELS[name], x_of(curves[name][0]), [100 * v for v in curves[name][1]], style)
        for style, name in enumerate(SHARES)
        if name in curves
    ]
    if lines:
        legend = [(swatch(line.style), line.label) for line in lines]
        drawn = chart(lines, x, Axis("accuracy in %", None, 100))
        panels.append(Panel("accuracy in %", drawn, legend))
    if "learning_rate" in curves:
        steps, values = curves["learning_rate"]
        line = Line("learning rate", x_of(steps), values)
        panels.append(Panel("learning rate", chart([line], x, Axis("learning rate", 0))))
    return panels


def _readable(name: str) -> str:
    return {"ce": "cross-entropy"}.get(name, name.replace("_", " "))


def roc_curve(
    id_scores: Float[np.ndarray, " n"], ood_scores: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " grid"]:
    """Returns the share of ID images that are kept at each false-positive rate of `GRID`.

    Equal scores are kept or refused together, which makes a straight line between two points.
    """
    scores = np.concatenate([id_scores, ood_scores])
    order = np.argsort(-scores, kind="stable")
    is_id = np.arange(len(scores))[order] < len(id_scores)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    kept = np.append(0, np.cumsum(is_id)[last]) / len(id_scores)
    taken = np.append(0, np.cumsum(~is_id)[last]) / len(ood_scores)
    return np.interp(GRID, taken, kept)


def roc_panels(
    scores: Mapping[str, Mapping[str, np.ndarray]],
    ood: Sequence[str],
    titles: Mapping[str, str],
    groups: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Panel]:
    """Returns the ROC curves of all rows: their means over OOD sets, then those of each set.

    Args:
      scores: row → set → scores, higher is more ID; the sets are "id" and all of `ood`.
      ood: names of the OOD sets.
      titles: readable names of the sets.
      groups: of OOD sets, {name: some of `ood`}, whose means are shown too.
    """
    of_sets = {
        name: {row: roc_curve(of["id"], of[name]) for row, of in scores.items()} for name in ood
    }
    drawn = {titles.get(name, name.replace("_", " ")): curves for name, curves in of_sets.items()}
    means = {"mean over OOD sets": ood} if len(ood) > 1 else {}
    means |= {f"mean over {GROUP_TITLES[group]}": own for group, own in groups.items()}
    drawn = {
        title: {row: np.mean([of_sets[name][row] for name in own], axis=0) for row in scores}
        for title, own in means.items()
    } | drawn
    x, y = Axis("OOD images taken for ID, in %", 0, 100), Axis("ID images kept, in %", 0, 100)
    panels = []
    for title, curves in drawn.items():
        lines = [
            Line(row, 100 * GRID, 100 * curve, style)
            for style, (row, curve) in enumerate(curves.items())
        ]
        panels.append(Panel(title, chart(lines, x, y, height=250, guide=95)))
    return panels
