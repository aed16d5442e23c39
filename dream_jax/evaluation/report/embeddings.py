"""Maps of features, anchors and outlier embeddings: figures 3 and 4 of the paper."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from dream_jax.evaluation.report.fonts import choose_fonts
from dream_jax.evaluation.report.maps import flat_map
from dream_jax.evaluation.report.style import (
    CLASS_COLOURS,
    INK,
    ORANGE,
    STYLE,
    VIOLET,
    figure_of,
    save,
    shortened,
    subset,
    wrapped,
)

MAP = 4.2, 4.4  # inches: what a phone shows without making the text small
STAR = 13  # pixels from the middle of a star to its tips
MAX_LABELS = 30  # more class names than this would cover a map
MAX_POINTS = 1500
MAX_OUTLIERS = 600


def map_anchors(features, labels, anchors, class_names, path, seed=0, method="tsne") -> Path:
    """Maps ID features, coloured by class, with the text anchors as stars (figure 3).

    Args:
        features: (n, d), of any norm; a random 1,500 of them are shown.
        labels: (n,) class indices.
        anchors: (classes, d), of any norm.
        class_names: written at each class's centre, unless there are more than 30.
        seed: of the subset and of the map.
        method: "tsne" or "umap".
    """
    features, labels, anchors = np.asarray(features), np.asarray(labels), np.asarray(anchors)
    shown = subset(len(features), MAX_POINTS, seed)
    labels = labels[shown]
    points, stars = flat_map([features[shown], anchors], seed, method)
    colours = _class_colours(len(anchors))

    with matplotlib.rc_context(STYLE):
        figure = figure_of(*MAP)
        axes = figure.add_subplot()
        _map_axes(axes)
        axes.scatter(*points.T, s=9, c=colours[labels], alpha=0.55, linewidths=0)
        few = len(anchors) <= MAX_LABELS
        # A white rim inside a dark one: a star stands out from the points of its own colour.
        rim = [patheffects.withStroke(linewidth=3.2, foreground=INK), patheffects.Normal()]
        axes.scatter(
            *stars.T, s=130 if few else 30, c=colours, marker="*", zorder=3,
            edgecolors="white", linewidths=1.4 if few else 0.4, path_effects=rim if few else None,
        )  # fmt: skip
        axes.set_title(f"{len(points):,} ID features, {len(anchors)} text anchors (stars)")
        if few:
            centres = [
                np.median(points[labels == y], axis=0) if np.any(labels == y) else stars[y]
                for y in range(len(anchors))
            ]
            write_names(figure, axes, class_names, np.asarray(centres), stars)
        return save(figure, path)


def write_names(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    centres: Float[np.ndarray, "n 2"],
    stars: Float[np.ndarray, "n 2"],
) -> list[Text]:
    """Writes names near points of a map so that none covers another, or a star.

    Each takes the place nearest to its point that is free; a line leads to one that is far away.
    """
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    style: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "fontsize": 8.5,
        "fontweight": "bold",
        "zorder": 5,
    }
    texts = [
        axes.text(
            centre[0], centre[1], wrapped(name, 18, 3), path_effects=halo, linespacing=1.0, **style
        )
        for name, centre in zip(names, centres, strict=True)
    ]
    choose_fonts(texts)
    figure.draw_without_rendering()  # lays the axes out
    figure.set_layout_engine("none")
    frame = axes.get_window_extent()
    taken = [
        Bbox.from_extents(*(at - STAR), *(at + STAR)) for at in axes.transData.transform(stars)
    ]
    to_data = axes.transData.inverted()
    for text, centre in zip(texts, centres, strict=True):
        box, anchor = text.get_window_extent(), axes.transData.transform(centre)
        place = _free_place(box, frame, taken)
        taken.append(place)
        middle = np.asarray([place.x0 + place.x1, place.y0 + place.y1]) / 2
        text.set_position(to_data.transform(middle))
        nearest = np.clip(anchor, (place.x0, place.y0), (place.x1, place.y1))
        if np.linalg.norm(nearest - anchor) > 6:
            ends = to_data.transform([anchor, nearest])
            axes.plot(*ends.T, color=INK, linewidth=0.7, zorder=4)
    return texts


def _free_place(box: Bbox, frame: Bbox, taken: Sequence[Bbox]) -> Bbox:
    """Returns a box moved to the nearest place within a frame that meets none of the others."""
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for radius in range(0, int(max(frame.width, frame.height)), 8):
        for turn in turns if radius else turns[:1]:
            moved = box.translated(radius * np.sin(turn), radius * np.cos(turn))
            dx = max(0, frame.x0 - moved.x0) - max(0, moved.x1 - frame.x1)
            dy = max(0, frame.y0 - moved.y0) - max(0, moved.y1 - frame.y1)
            moved = moved.translated(dx, dy)
            if not any(moved.overlaps(other) for other in taken):
                return moved
    return box  # there is no room


def map_outliers(features, outliers, class_name, path, seed=0, method="tsne") -> Path:
    """Maps one class's features and the outlier embeddings sampled near it (figure 4).

    In the paper's colours: ID features purple, outlier embeddings orange.

    Args:
        features: (n, d) of one class, of any norm; a random 1,500 of them are shown.
        outliers: (m, d), of any norm; a random 600 of them are shown.
        seed: of the subsets and of the map.
        method: "tsne" or "umap".
    """
    features, outliers = np.asarray(features), np.asarray(outliers)
    features = features[subset(len(features), MAX_POINTS, seed)]
    outliers = outliers[subset(len(outliers), MAX_OUTLIERS, seed)]
    inside, outside = flat_map([features, outliers], seed, method)
    with matplotlib.rc_context(STYLE):
        figure = figure_of(*MAP)
        axes = figure.add_subplot()
        _map_axes(axes)
        axes.scatter(
            *outside.T, s=14, c=ORANGE, marker="^", alpha=0.75, linewidths=0,
            label=f"outlier embeddings ({len(outside):,})",
        )  # fmt: skip
        axes.scatter(
            *inside.T, s=12, c=VIOLET, alpha=0.75, linewidths=0,
            label=f"ID features ({len(inside):,})",
        )  # fmt: skip
        axes.set_title(f"ID features and outlier embeddings of “{shortened(class_name, 24)}”")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, markerscale=1.6,
                    fontsize=8, columnspacing=1, handletextpad=0.2)  # fmt: skip
        return save(figure, path)


def _class_colours(classes: int) -> np.ndarray:
    if classes <= len(CLASS_COLOURS):
        return np.asarray(CLASS_COLOURS[:classes])
    hues = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, classes))
    return np.asarray([matplotlib.colors.to_hex(hue) for hue in hues])


def _map_axes(axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.margins(0.04)
