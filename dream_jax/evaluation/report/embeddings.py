"""Maps of features, anchors and outlier embeddings by t-SNE."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import patheffects

from dream_jax.evaluation.report.style import (
    BLUE,
    CLASS_COLOURS,
    INK,
    STYLE,
    VERMILLION,
    figure_of,
    save,
    shortened,
    subset,
)

MAX_LABELS = 30  # more class names than this would cover a map
MAX_POINTS = 1500
MAX_OUTLIERS = 600


def tsne_anchors(features, labels, anchors, class_names, path, seed=0) -> Path:
    """t-SNE of ID features, coloured by class, with the text anchors as stars (figure 3).

    Args:
        features: (n, d), of any norm; a random 1,500 of them are shown.
        labels: (n,) class indices.
        anchors: (classes, d), of any norm.
        class_names: written at each class's centre, unless there are more than 30.
        seed: of the subset and of t-SNE.
    """
    features, labels, anchors = np.asarray(features), np.asarray(labels), np.asarray(anchors)
    shown = subset(len(features), MAX_POINTS, seed)
    labels = labels[shown]
    points, stars = _tsne([features[shown], anchors], seed)
    colours = _class_colours(len(anchors))

    with matplotlib.rc_context(STYLE):
        figure = figure_of(5.9, 5.2)
        axes = figure.add_subplot()
        _map_axes(axes)
        axes.scatter(*points.T, s=9, c=colours[labels], alpha=0.55, linewidths=0)
        few = len(anchors) <= MAX_LABELS
        # A white rim inside a dark one: a star stands out from the points of its own colour.
        rim = [patheffects.withStroke(linewidth=3.2, foreground=INK), patheffects.Normal()]
        axes.scatter(
            *stars.T, s=190 if few else 30, c=colours, marker="*", zorder=3,
            edgecolors="white", linewidths=1.4 if few else 0.4, path_effects=rim if few else None,
        )  # fmt: skip
        if few:
            halo = [patheffects.withStroke(linewidth=3, foreground="white")]
            for y, name in enumerate(class_names):
                of_class = points[labels == y]
                centre = np.median(of_class, axis=0) if len(of_class) else stars[y]
                axes.annotate(
                    shortened(name, 24), centre, (0, 13), textcoords="offset points",
                    ha="center", zorder=4, fontsize=10, fontweight="bold", path_effects=halo,
                )  # fmt: skip
        axes.set_title(f"t-SNE: {len(points):,} ID features, {len(anchors)} text anchors (stars)")
        return save(figure, path)


def tsne_outliers(features, outliers, class_name, path, seed=0) -> Path:
    """t-SNE of one class's features and of the outlier embeddings sampled near it (figure 4).

    Args:
        features: (n, d) of one class, of any norm; a random 1,500 of them are shown.
        outliers: (m, d), of any norm; a random 600 of them are shown.
        seed: of the subsets and of t-SNE.
    """
    features, outliers = np.asarray(features), np.asarray(outliers)
    features = features[subset(len(features), MAX_POINTS, seed)]
    outliers = outliers[subset(len(outliers), MAX_OUTLIERS, seed)]
    inside, outside = _tsne([features, outliers], seed)
    with matplotlib.rc_context(STYLE):
        figure = figure_of(5.9, 5.2)
        axes = figure.add_subplot()
        _map_axes(axes)
        axes.scatter(
            *outside.T, s=14, c=VERMILLION, marker="^", alpha=0.75, linewidths=0,
            label=f"outlier embeddings ({len(outside):,})",
        )  # fmt: skip
        axes.scatter(
            *inside.T, s=12, c=BLUE, alpha=0.75, linewidths=0,
            label=f"ID features ({len(inside):,})",
        )  # fmt: skip
        axes.set_title(
            f"t-SNE: features of “{shortened(class_name, 24)}” and outliers sampled near it"
        )
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, markerscale=1.6)
        return save(figure, path)


def _tsne(parts: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """One map of all `parts` on the unit sphere, where the method measures its distances."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    joint = np.concatenate(parts).astype(np.float64)
    joint /= np.maximum(np.linalg.norm(joint, axis=1, keepdims=True), 1e-12)
    perplexity = min(30, (len(joint) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    # t-SNE's threads wait for each other at every one of 1,000 iterations: where other work has
    # the cores, two of them took 14 s for 160 points that one maps in 0.5 s.
    with threadpool_limits(1):
        flat = tsne.fit_transform(joint)
    return np.split(flat, np.cumsum([len(part) for part in parts])[:-1])


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
