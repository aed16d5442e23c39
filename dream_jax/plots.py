"""Pictures of a run for notebooks: each function returns a `Picture`, which shows itself there."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from jaxtyping import Float
from PIL import Image

from dream_jax.data.groups import ood_names
from dream_jax.data.registry import set_title
from dream_jax.errors import UserError
from dream_jax.evaluation.metrics import threshold_at_tpr
from dream_jax.evaluation.report import embeddings, image_sheets
from dream_jax.evaluation.report.maps import check_map
from dream_jax.evaluation.report.scores import score_histograms
from dream_jax.evaluation.report.style import (
    BLUE,
    GREY,
    INK,
    STYLE,
    VERMILLION,
    figure_of,
    save,
    shortened,
)
from dream_jax.exploring import label_of
from dream_jax.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from dream_jax.exploring import Scales, Walk
    from dream_jax.loaded_run import LoadedRun


@dataclass(frozen=True)
class Picture:
    """A PNG, which a notebook shows.

    Attributes:
      png: the content of the file.
    """

    png: bytes = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png

    def save(self, path: str | Path) -> None:
        """Writes the file."""
        write_whole(Path(path), lambda partial: partial.write_bytes(self.png))


def images(
    pictures: Float[np.ndarray, "n H W C"],
    captions: Sequence[str] | None = None,
    columns: int = 8,
) -> Picture:
    """Shows images in rows, each with its caption below.

    Raises:
      UserError: there is no image, or there are fewer captions than images.
    """
    if not len(pictures) or (captions is not None and len(captions) < len(pictures)):
        raise UserError(f"images got {len(pictures)} images and {captions!r} as their captions")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    with matplotlib.rc_context(STYLE):
        figure = figure_of(0.95 * columns, (0.95 + 0.22 * (captions is not None)) * rows)
        grid = figure.subplots(rows, columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            axes.set_axis_off()
            if place < len(pictures):
                _show(axes, pictures[place])
                if captions is not None:
                    axes.text(0.5, -0.05, captions[place], transform=axes.transAxes,
                              ha="center", va="top", fontsize=7)  # fmt: skip
        return _drawn(lambda path: save(figure, path))


def classes(run: LoadedRun, per_class: int = 6) -> Picture:
    """Shows training images of each class next to the outliers imagined at its edge."""
    real, outliers = run.images("train"), run.images("outliers")
    return _drawn(
        lambda path: image_sheets.image_grid_by_class(
            *real, *outliers, run.class_names, path, per_class
        )
    )


def decoded_id(run: LoadedRun) -> Picture:
    """Shows test images, the same after the autoencoder and back, and images by class name."""
    (test, labels), (trips, _) = run.images("test"), run.images("round_trips_test")
    sampled = run.images("by_name_test")
    return _drawn(
        lambda path: image_sheets.decoded_id_sheet(
            test, labels, trips, *sampled, run.class_names, path
        )
    )


def latent_space(run: LoadedRun, seed: int = 0, method: str = "tsne") -> Picture:
    """Maps the ID features and the text anchors, as figure 3 of the paper.

    Args:
      seed: of the map.
      method: "tsne", or "umap" where umap-learn is installed.
    """
    check_map(method, "method")
    own = run.features
    given = own.features, own.labels, own.anchors, run.class_names
    return _drawn(lambda path: embeddings.map_anchors(*given, path, seed, method))


def outlier_embeddings(run: LoadedRun, name: str, seed: int = 0, method: str = "tsne") -> Picture:
    """Maps a class's features and its outlier embeddings, as figure 4 of the paper.

    Args:
      name: of the class.
      seed: of the map.
      method: "tsne", or "umap" where umap-learn is installed.

    Raises:
      UserError: the run has no such class, or umap-learn is not installed.
    """
    check_map(method, "method")
    label, own = label_of(run, name), run.features
    given = own.features[own.labels == label], run.embeddings[label], name
    return _drawn(lambda path: embeddings.map_outliers(*given, path, seed, method))


def curves(run: LoadedRun, metrics: Sequence[str] = ("loss", "test_accuracy")) -> Picture:
    """Draws metrics of every training of a run, a row of panels for each training.

    Raises:
      UserError: the run has no curves.
    """
    found = run.curves
    if not found:
        raise UserError(f"{run.folder}: the run has no curves")
    with matplotlib.rc_context(STYLE):
        figure = figure_of(3.6 * len(metrics), 1.9 * len(found))
        grid = figure.subplots(len(found), len(metrics), squeeze=False)
        for row, (title, own) in zip(grid, found.items(), strict=True):
            for axes, metric in zip(row, metrics, strict=True):
                if metric not in own:
                    axes.set_axis_off()
                    continue
                axes.plot(*own[metric], color=BLUE, linewidth=1.4)
                axes.set_title(f"{shortened(title, 24)}: {metric.replace('_', ' ')}", fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        return _drawn(lambda path: save(figure, path))


def scores(run: LoadedRun, row: str = "dream_ood") -> Picture:
    """Draws the densities of a row's scores on the ID test images and on each OOD set."""
    found = run.scores(row)
    ood = {name: found[name] for name in _ood(run, found)}
    kept = {name: own for name, own in found.items() if name not in ("id", *ood)}
    title = run.rows[row]
    return _drawn(lambda path: score_histograms(found["id"], ood, kept, title, path))


def against_known(run: LoadedRun, row: str, own: Float[np.ndarray, " n"]) -> Picture:
    """Draws the scores of images by a row over those of the run's ID and OOD test images.

    Args:
      row: key of the row.
      own: scores of the images.
    """
    found = run.scores(row)
    ood = np.concatenate([found[name] for name in _ood(run, found)])
    low, high = np.percentile(np.concatenate([found["id"], ood, own]), [0.5, 99.5])
    bins = np.linspace(low, high if high > low else low + 1, 45).tolist()
    drawn = (("ID test images", found["id"], BLUE), ("OOD sets", ood, VERMILLION))
    with matplotlib.rc_context(STYLE):
        figure = figure_of(5.6, 3.0)
        axes = figure.subplots()
        for title, values, colour in drawn:
            clipped = np.clip(values, low, high)
            axes.hist(clipped, bins, density=True, color=colour, alpha=0.35, label=title)
        clipped = np.clip(own, low, high)
        style: Any = {"histtype": "step", "color": INK, "linewidth": 1.6}
        axes.hist(clipped, bins, density=True, label="your images", **style)
        axes.axvline(threshold_at_tpr(found["id"]), color=GREY, linestyle="--", linewidth=1)
        axes.set(xlabel="score, higher is more ID", yticks=[])
        figure.legend(loc="outside upper left", ncols=3)
        return _drawn(lambda path: save(figure, path))


def roc(run: LoadedRun, name: str, rows: Sequence[str] | None = None) -> Picture:
    """Draws the ROC curves of rows on one OOD set, ID being the positive class.

    Args:
      name: of the OOD set.
      rows: their keys; all, if not given.
    """
    from sklearn.metrics import roc_curve

    with matplotlib.rc_context(STYLE):
        figure = figure_of(5.4, 4.4)
        axes = figure.subplots()
        for key in run.rows if rows is None else rows:
            found = run.scores(key)
            if name not in _ood(run, found):
                known = ", ".join(_ood(run, found))
                raise UserError(f"the run has no OOD set {name!r}; it has {known}")
            both = np.concatenate([found["id"], found[name]])
            false, true, _ = roc_curve(np.arange(len(both)) < len(found["id"]), both)
            axes.plot(100 * false, 100 * true, label=shortened(run.rows[key], 24), linewidth=1.4)
        axes.axhline(95, color=GREY, linewidth=0.8, linestyle="--")
        axes.set(xlabel="OOD images taken for ID, in %", ylabel="ID images kept, in %")
        axes.set_title(f"ID test images against {name}")
        figure.legend(loc="outside right upper", fontsize=8)
        return _drawn(lambda path: save(figure, path))


def walk(way: Walk) -> Picture:
    """Shows the pictures of a walk, and how d_k and the plain classifier's confidence change."""
    count = len(way.share)
    with matplotlib.rc_context(STYLE):
        figure = figure_of(max(4.5, 0.9 * count), 3.6)
        grid = figure.add_gridspec(2, count, height_ratios=(1, 2.2))
        for place in range(count):
            axes = figure.add_subplot(grid[0, place])
            axes.set_axis_off()
            _show(axes, way.images[place])
            axes.set_title(_place(way.share[place]), fontsize=8, loc="center")
        axes = figure.add_subplot(grid[1, :])
        axes.plot(way.share, way.distance, color=VERMILLION, marker="o", markersize=3)
        axes.set_xlabel("share of the angle from the anchor to the outlier")
        axes.set_ylabel("d_k to the class", color=VERMILLION)
        other = axes.twinx()
        other.plot(way.share, 100 * way.confidence, color=BLUE, marker="s", markersize=3)
        other.set_ylim(-3, 103)
        other.set_ylabel("confidence in the class, %", color=BLUE)
        axes.axvline(1, color=GREY, linewidth=0.8, linestyle="--")
        return _drawn(lambda path: save(figure, path))


def by_scale(found: Scales) -> Picture:
    """Shows a row of images for each scale of the noise, with its line of the table."""
    count = len(next(iter(found.images.values())))
    with matplotlib.rc_context(STYLE):
        figure = figure_of(3.1 + 0.75 * count, 0.8 * len(found.images))
        grid = figure.subplots(len(found.images), count + 1, squeeze=False,
                               width_ratios=[3.6, *[1] * count])  # fmt: skip
        for axes in grid.flat:
            axes.set_axis_off()
        for row, (scale, pictures) in zip(grid, found.images.items(), strict=True):
            line = found.table.loc[scale]
            text = (
                f"scale {scale:g}: d_k {line.distance:.2f}\n{line.still_in_class:.0%} in the class"
            )
            row[0].text(0, 0.5, text, va="center", transform=row[0].transAxes, fontsize=9)
            for axes, picture in zip(row[1:], pictures, strict=True):
                _show(axes, picture)
        return _drawn(lambda path: save(figure, path))


def comparison(frame: pd.DataFrame, title: str = "FPR95, %") -> Picture:
    """Draws a bar for each line of a frame of `compare`, by its mean over the OOD sets."""
    with matplotlib.rc_context(STYLE):
        figure = figure_of(5.6, 0.6 + 0.3 * len(frame))
        axes = figure.subplots()
        names = [shortened(f"{run}: {row}", 40) for run, row in frame.index]
        values = 100 * frame["mean"].to_numpy()
        axes.barh(range(len(frame)), values, color=BLUE)
        axes.set_yticks(range(len(frame)), names)
        axes.invert_yaxis()
        for place, value in enumerate(values):
            axes.text(value, place, f" {value:.1f}", va="center", fontsize=8)
        axes.set_title(f"{title}, mean over the OOD sets")
        return _drawn(lambda path: save(figure, path))


def _ood(run: LoadedRun, found: Mapping[str, Any]) -> list[str]:
    return [title for title in map(set_title, ood_names(run.settings.data)) if title in found]


def _show(axes: Any, picture: Float[np.ndarray, "H W C"]) -> None:
    axes.imshow(np.clip(picture, 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)


def _place(share: float) -> str:
    names = {0.0: "anchor", 1.0: "outlier"}
    return names.get(round(float(share), 6), f"{share:.2f}")


def _drawn(draw: Callable[[Path], Any]) -> Picture:
    """Returns a drawn figure, in 256 colours, so that a notebook stays small."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        draw(path)
        with Image.open(path) as drawn:
            shown = drawn.convert("RGB")
    small = io.BytesIO()
    shown.quantize(256).save(small, "png", optimize=True)
    return Picture(small.getvalue())
