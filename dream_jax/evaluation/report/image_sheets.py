"""Sheets of images: outliers next to ID images, and decoded images of the classes."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dream_jax.evaluation.report.style import DPI, GREY, STYLE, columns, save, wrapped

TILE, GAP = 96, 6  # pixels: an image in a sheet, and the space between two
NAME = 18  # columns of a class name's line
MAX_ROWS = 20  # classes shown by image_grid_by_class


def image_grid_by_class(
    id_images, id_labels, outlier_images, outlier_labels, class_names, path, per_class=8
) -> Path:
    """Draws real ID images next to imagined outliers, a row per class.

    Args:
        id_images, outlier_images: images; their sizes may differ.
        id_labels, outlier_labels: (n,) class indices; an outlier's is the class it was drawn near.
        class_names: names by index; the first 20 are shown.
        per_class: images of each kind per row at most; a class that has fewer leaves blanks.
    """
    names = list(class_names)[:MAX_ROWS]
    blocks = [
        [_first(images, labels, y, per_class) for y in range(len(names))]
        for images, labels in ((id_images, id_labels), (outlier_images, outlier_labels))
    ]
    # Three tiles at least, the width of a heading.
    wide = [max(3, *map(len, block)) for block in blocks]
    sheet = Sheet(rows=names, columns=sum(wide), split=wide[0])
    for start, block in zip((0, wide[0]), blocks, strict=True):
        for row, images in enumerate(block):
            for column, image in enumerate(images):
                sheet.put(row, start + column, image)
    sheet.head(0, "Real ID images")
    sheet.head(wide[0], "Imagined outliers")
    if len(class_names) > MAX_ROWS:
        sheet.corner(f"first {MAX_ROWS} of {len(class_names)}")
    return sheet.save(path)


def decoded_id_sheet(
    originals, labels, round_trips, sampled, sampled_labels, class_names, path, rows=12
) -> Path:
    """What the decoder makes of ID images: test images, their round trips, images by name.

    A row per class, so that long names have room and the sheet is as narrow as a phone.

    Args:
        originals, round_trips: (n, ...) images, the same ones in the same order.
        labels: (n,) class indices of `originals`.
        sampled: (m, ...) images generated from the plain class name.
        sampled_labels: (m,) class indices that were asked for.
        rows: how many at most, each the first images of a class.
    """
    classes = _evenly(len(class_names), min(rows, len(class_names)))
    sheet = Sheet(rows=[class_names[label] for label in classes], columns=3)
    for column, text in enumerate(("real", "round trip", "by name")):
        sheet.head(column, text, wrap=True)
    for row, label in enumerate(classes):
        for i in np.flatnonzero(np.asarray(labels) == label)[:1]:
            sheet.put(row, 0, originals[i])
            sheet.put(row, 1, round_trips[i])
        for i in np.flatnonzero(np.asarray(sampled_labels) == label)[:1]:
            sheet.put(row, 2, sampled[i])
    return sheet.save(path)


class Sheet:
    """A grid of image tiles with row names, drawn as one array: an axes per image is slow."""

    def __init__(self, rows: Sequence[str], columns: int, split: int | None = None):
        """`split`: the column before which a wider gap parts two halves."""
        self.rows = rows
        self.split = columns if split is None else split
        self.step = TILE + GAP
        height = len(rows) * self.step - GAP
        width = self._left(columns - 1) + TILE
        self.canvas = np.full((height, width, 3), 255, np.uint8)
        self.texts: list[tuple[float, float, str, dict]] = []
        self.top = self.bottom = 8  # margins in pixels; headings widen the upper one

    def _left(self, column: int) -> int:
        return column * self.step + (TILE // 2 if column >= self.split else 0)

    def put(self, row: int, column: int, image) -> None:
        top, left = row * self.step, self._left(column)
        self.canvas[top : top + TILE, left : left + TILE] = _tile(image)

    def head(self, column: int, text: str, wrap: bool = False) -> None:
        """Writes a heading above a column; it may be as wide as three, unless it is wrapped."""
        style = {"va": "bottom", "ha": "left", "fontweight": "bold", "fontsize": 10}
        if wrap:
            text, style = wrapped(text, 8, 2), style | {"fontsize": 9}
        self.texts.append((self._left(column), -8, text, style))
        self.top = 60 if wrap else 40

    def corner(self, text: str) -> None:
        self.texts.append((-14, -8, text, {"va": "bottom", "ha": "right", "color": GREY}))

    def save(self, path: Path) -> Path:
        height, width, _ = self.canvas.shape
        names = [wrapped(name, NAME, 4) for name in self.rows]
        left = 28 + 11 * max(columns(line) for name in names for line in name.split("\n"))
        total_w, total_h = left + width + 8, self.top + height + self.bottom
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(total_w / DPI, total_h / DPI), dpi=DPI, facecolor="white")
            FigureCanvasAgg(figure)
            # A canvas pixel is a pixel of the file, so that small images stay crisp.
            box = (left / total_w, self.bottom / total_h, width / total_w, height / total_h)
            axes = figure.add_axes(box)
            axes.imshow(self.canvas, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            for row, name in enumerate(names):
                axes.text(-14, row * self.step + TILE / 2, name, ha="right", va="center")
            for x, y, text, style in self.texts:
                axes.text(x, y, text, **style)
            return save(figure, path)


def _tile(image) -> np.ndarray:
    """An image as (TILE, TILE, 3) bytes; enlarged without smoothing, so that pixels are seen."""
    image = np.asarray(image, np.float32)
    image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    how = Image.Resampling.NEAREST if max(image.shape[:2]) <= TILE else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((TILE, TILE), how))


def _first(images, labels, y: int, count: int) -> list:
    return [images[i] for i in np.flatnonzero(np.asarray(labels) == y)[:count]]


def _evenly(n: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(int))
