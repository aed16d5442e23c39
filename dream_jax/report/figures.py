"""The figures of a report. Each function takes arrays, writes a PNG and returns its path.

Images are floats in [0, 1], (n, height, width, channels) with 1 or 3 channels. Colours come from
the palettes of Okabe and Ito and of Paul Tol, which stay apart for colour-blind readers.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from dream_jax.evaluation.metrics import fraction_kept, ood_metrics, threshold_at_tpr
from dream_jax.report.layouts import readable

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#007A58", "#A8578B"
INK, GREY = "#222222", "#8a8a8a"
CLASS_COLOURS = (
    "#332288", "#CC6677", "#117733", "#DDAA33", "#88CCEE",
    "#882255", "#44AA99", "#999933", "#AA4499", "#777777",
)  # fmt: skip
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
DPI = 150
TILE, GAP = 96, 6  # pixels: an image in a sheet, and the space between two

MAX_ROWS = 20  # classes shown by image_grid_by_class
MAX_LABELS = 30  # more class names than this would cover a t-SNE map
MAX_POINTS = 1500
MAX_OUTLIERS = 600


def image_grid_by_class(
    id_images, id_labels, outlier_images, outlier_labels, class_names, path, per_class=8
) -> Path:
    """Real ID images beside imagined outliers, a row per class.

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
    originals, labels, round_trips, sampled, sampled_labels, class_names, path, columns=12
) -> Path:
    """What the decoder makes of ID images: test images, their round trips, images by name.

    Args:
        originals, round_trips: (n, ...) images, the same ones in the same order.
        labels: (n,) class indices of `originals`.
        sampled: (m, ...) images generated from the plain class name.
        sampled_labels: (m,) class indices that were asked for.
        columns: at most so many, each the first images of a class.
    """
    rows = ("real test image", "autoencoder round trip", "sampled by name")
    classes = _evenly(len(class_names), min(columns, len(class_names)))
    sheet = Sheet(rows=rows, columns=len(classes))
    for column, label in enumerate(classes):
        sheet.caption(column, class_names[label])
        for i in np.flatnonzero(np.asarray(labels) == label)[:1]:
            sheet.put(0, column, originals[i])
            sheet.put(1, column, round_trips[i])
        for i in np.flatnonzero(np.asarray(sampled_labels) == label)[:1]:
            sheet.put(2, column, sampled[i])
    return sheet.save(path)


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
    shown = _subset(len(features), MAX_POINTS, seed)
    labels = labels[shown]
    points, stars = _tsne([features[shown], anchors], seed)
    colours = _class_colours(len(anchors))

    with matplotlib.rc_context(STYLE):
        figure = _figure(5.9, 5.2)
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
                    name, centre, (0, 13), textcoords="offset points", ha="center", zorder=4,
                    fontsize=10, fontweight="bold", path_effects=halo,
                )  # fmt: skip
        axes.set_title(f"t-SNE: {len(points):,} ID features, {len(anchors)} text anchors (stars)")
        return _save(figure, path)


def tsne_outliers(features, outliers, class_name, path, seed=0) -> Path:
    """t-SNE of one class's features and of the outlier embeddings sampled near it (figure 4).

    Args:
        features: (n, d) of one class, of any norm; a random 1,500 of them are shown.
        outliers: (m, d), of any norm; a random 600 of them are shown.
        seed: of the subsets and of t-SNE.
    """
    features, outliers = np.asarray(features), np.asarray(outliers)
    features = features[_subset(len(features), MAX_POINTS, seed)]
    outliers = outliers[_subset(len(outliers), MAX_OUTLIERS, seed)]
    inside, outside = _tsne([features, outliers], seed)
    with matplotlib.rc_context(STYLE):
        figure = _figure(5.9, 5.2)
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
        axes.set_title(f"t-SNE: features of “{class_name}” and outliers sampled near it")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, markerscale=1.6)
        return _save(figure, path)


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
        (name.replace("_", " "), [(f"FPR95 {_percent(fpr)}", VERMILLION, scores)])
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

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = _figure(3.4 * columns + 0.3, 2.2 * rows + 0.7)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes, (title, curves) in itertools.zip_longest(grid.flat, panels, fillvalue=("", ())):
            if not curves:
                axes.set_axis_off()
                continue
            blue = _density(axes, id_scores, bins, BLUE, filled=True)
            for line, (text, colour, scores) in enumerate(curves):
                other = _density(axes, scores, bins, colour, filled=len(curves) == 1)
                place = {"transform": axes.transAxes, "va": "top"}
                axes.text(0, 0.99 - 0.09 * line, text, color=colour, fontweight="bold", **place)
                if axes is grid.flat[0]:
                    vermillion = other
            axes.set_title(title)
            top = axes.get_ylim()[1]
            axes.set_ylim(0, top * (1.14 + 0.14 * len(curves)))  # room for the text
            dashes = axes.vlines(threshold, 0, top, color=INK, linestyle=(0, (4, 3)), linewidth=1)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_xlim(bins[0], bins[-1])
            axes.tick_params(labelbottom=True)
        heading = f"{method_name}: densities of scores, higher is more ID"
        figure.suptitle(heading, fontweight="bold", fontsize=9 if columns == 1 else 11)
        figure.legend(
            [blue, vermillion, dashes], ["ID test images", "OOD set", "keeps 95 % of ID"],
            loc="outside lower center", ncols=3, fontsize=8, handlelength=1.4, columnspacing=1.2,
        )  # fmt: skip
        return _save(figure, path)


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
        figure = _figure(max(4.6, 1.5 + 1.55 * len(ood)), 0.9 + 0.42 * len(scores))
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
            axes.set_title(readable(name, names))
            axes.set_xlim(0, 1.2)
            axes.set_ylim(len(scores) - 0.7, -1)
            axes.set_xticks([])
            axes.spines[:].set_visible(False)
            axes.tick_params(left=False)
        panels[0].set_yticks(
            np.arange(len(scores)) - 0.25, [_shortened(readable(row, names), 24) for row in scores]
        )
        figure.suptitle("Scores, higher (right) is more ID; FPR95 in %", fontweight="bold")
        patches = [Patch(color=colour, alpha=0.5) for colour in (BLUE, VERMILLION)]
        figure.legend(
            patches, ["ID test images", "OOD set"], loc="outside lower center", ncols=2, fontsize=8
        )
        return _save(figure, path)


def row_comparison(
    metrics: Mapping,
    path,
    names: Mapping[str, str] | None = None,
    sections: Mapping[str, str] | None = None,
) -> Path:
    """Mean FPR95 of each row: dots for seeds, their mean, its deviation and bootstrap interval.

    Args:
        metrics: the content of metrics.json.
        names: readable names of rows.
        sections: {row: title of the group of rows it belongs to}.
    """
    get = lambda entry: 100 * entry["ood"]["mean"]["fpr95"]  # noqa: E731
    methods, stds = metrics["methods"], metrics.get("std")
    found = metrics.get("bootstrap")
    runs = metrics.get("by_seed", {})
    places, headings, y, last = {}, [], 0.0, ""
    for row in methods:
        section = (sections or {}).get(row, "")
        if section and section != last:
            headings.append((y + 0.1, section))
            y += 1
        places[row], last = y, section
        y += 1
    with matplotlib.rc_context(STYLE):
        figure = _figure(6.6, 1.1 + 0.23 * y)
        axes = figure.add_subplot()
        for row, entry in methods.items():
            at, mean = places[row], get(entry)
            if found:
                _, low, high = found["rows"]["fpr95"]["mean"][row]
                interval = axes.plot(
                    [100 * low, 100 * high], [at, at], color=BLUE, linewidth=1.2, zorder=2
                )[0]
            if stds:
                std = get(stds[row])
                spread = axes.barh(
                    at, 2 * std, 0.56, mean - std, color=BLUE, alpha=0.25, linewidth=0, zorder=1
                )
                seeds = axes.scatter(
                    [get(run[row]) for run in runs.values()], [at] * len(runs),
                    s=9, color=GREY, linewidths=0, zorder=3,
                )  # fmt: skip
            dot = axes.scatter(mean, at, s=26, color=BLUE, linewidths=0, zorder=4)
            axes.annotate(
                f"{mean:.1f}", (1, at), (6, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
        for at, title in headings:
            axes.text(0, at, title, color=GREY, va="center", fontsize=8, fontweight="bold",
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set_yticks(list(places.values()), [_shortened(readable(r, names), 24) for r in places])
        axes.set_ylim(y - 0.4, -0.6)
        axes.set_xlim(0, None)
        axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("FPR95 in %, mean over OOD sets; lower is better")
        axes.set_title("How the rows compare", fontweight="bold", fontsize=11)
        key = [(dot, "mean over seeds" if stds else "measured")]
        if stds:
            key += [(seeds, "a seed"), (spread, "± standard deviation")]
        if found:
            level = f"{100 * found['level']:g} %"
            key.append((interval, f"{level} interval over test images"))
        figure.legend(
            *zip(*key, strict=True), loc="outside lower center", ncols=len(key), fontsize=8,
            handlelength=1.4, columnspacing=1.2,
        )  # fmt: skip
        return _save(figure, path)


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
        self.top = self.bottom = 8  # margins in pixels; headings and captions widen them

    def _left(self, column: int) -> int:
        return column * self.step + (TILE // 2 if column >= self.split else 0)

    def put(self, row: int, column: int, image) -> None:
        top, left = row * self.step, self._left(column)
        self.canvas[top : top + TILE, left : left + TILE] = _tile(image)

    def head(self, column: int, text: str) -> None:
        style = {"va": "bottom", "ha": "left", "fontweight": "bold", "fontsize": 10}
        self.texts.append((self._left(column), -8, text, style))
        self.top = 40

    def corner(self, text: str) -> None:
        self.texts.append((-14, -8, text, {"va": "bottom", "ha": "right", "color": GREY}))

    def caption(self, column: int, text: str) -> None:
        x, y = self._left(column) + TILE / 2, len(self.canvas) + 6
        self.texts.append((x, y, _shortened(text, 11), {"va": "top", "ha": "center"}))
        self.bottom = 36

    def save(self, path) -> Path:
        height, width, _ = self.canvas.shape
        names = [_shortened(name, 24) for name in self.rows]
        left = 28 + 11 * max(map(len, names))
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
            return _save(figure, path)


def _tile(image) -> np.ndarray:
    """An image as (TILE, TILE, 3) bytes; enlarged without smoothing, so that pixels are seen."""
    image = np.asarray(image, np.float32)
    image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    how = Image.Resampling.NEAREST if max(image.shape[:2]) <= TILE else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((TILE, TILE), how))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _first(images, labels, y: int, count: int) -> list:
    return [images[i] for i in np.flatnonzero(np.asarray(labels) == y)[:count]]


def _evenly(n: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(int))


def _subset(n: int, most: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(n)[:most]


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


def _density(axes, scores, bins, colour, filled):
    style = {"histtype": "stepfilled", "alpha": 0.5} if filled else {"histtype": "step"}
    # Scores beyond the bins still count: each curve is a share of all its images.
    weights = np.full(len(scores), 1 / (len(scores) * (bins[1] - bins[0])))
    _, _, (patch,) = axes.hist(scores, bins, weights=weights, color=colour, linewidth=1.5, **style)
    return patch


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _figure(width: float, height: float) -> Figure:
    """A figure in inches that pyplot does not keep, so that long runs do not collect them."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _map_axes(axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.margins(0.04)


def _save(figure: Figure, path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path
