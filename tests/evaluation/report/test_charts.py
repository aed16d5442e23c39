"""Curves and ROC curves as SVG, the gallery's pictures, and names that fit their places."""

import io
import re
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_curve

from dream_jax.data.images import Images
from dream_jax.evaluation.report import charts, embeddings, gallery, panels
from dream_jax.evaluation.report.panels import Axis, Line, chart
from dream_jax.evaluation.report.style import STYLE, columns, figure_of, wrapped

RNG = np.random.default_rng(0)
SPRINGER = "English springer, English springer spaniel"


def lines_of(svg) -> list[list[tuple[float, float]]]:
    """The points of every line of a chart, in CSS pixels."""
    paths = re.findall(r'<path class="line[^"]*" d="([^"]*)"', svg)
    points = (re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path) for path in paths)
    return [[(float(x), float(y)) for x, y in found] for found in points]


def test_a_chart_places_points_by_their_values():
    svg = chart([Line("a", [0, 5, 10], [1.0, 3.0, 2.0])], Axis("epoch", 0), Axis("loss"))
    left, right = panels.LEFT, panels.WIDTH - panels.RIGHT
    top, bottom = panels.TOP, panels.HEIGHT - panels.BOTTOM
    assert lines_of(svg) == [
        [(left, bottom), ((left + right) / 2, top), (right, (top + bottom) / 2)]
    ]
    assert svg.count("<circle") == 3  # few points are marked
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert texts == ["1", "1.5", "2", "2.5", "3", "0", "2.5", "5", "7.5", "10", "epoch"]


def test_a_chart_with_gaps_one_point_or_none():
    x, nan = Axis("step"), float("nan")
    (line,) = lines_of(chart([Line("a", range(4), [1.0, nan, 2.0, 1.0])], x, Axis("y")))
    assert len(line) == 3
    for lines in ([Line("a", [3], [0.5])], [Line("a", [1, 2], [nan, nan])], []):
        assert "nan" not in chart(lines, x, Axis("y"))
    steps = np.arange(5000)
    (line,) = lines_of(chart([Line("a", steps, 2.0 * steps)], x, Axis("y")))
    assert len(line) == panels.MOST_POINTS
    assert "&lt;b&gt;" in chart([], Axis("<b>"), Axis("y"))


def test_every_row_has_a_line_of_its_own():
    styles = [re.sub(r"^s\d+ ", "", panels.style_of(style)) for style in range(24)]
    assert len(set(styles)) == 24


def test_training_panels_show_each_metric_once():
    steps = [10, 20]
    own = {"epoch": (steps, [1.0, 2.0]), "learning_rate": (steps, [0.1, 0.0])}
    own |= {"loss": (steps, [2.0, 1.0]), "ce": (steps, [2.0, 1.0])}
    shares = {"accuracy": (steps, [0.5, 0.7]), "test_accuracy": ([20], [0.6])}
    titles = [panel.title for panel in charts.training_panels(own | shares)]
    assert titles == ["loss", "accuracy in %", "learning rate"]
    more = {"loss": (steps, [3.0, 2.0]), "level_set": (steps, [1.0, 1.0])}
    found = charts.training_panels(own | more)
    assert [panel.title for panel in found] == [
        "loss",
        "cross-entropy",
        "level set",
        "learning rate",
    ]
    assert "epoch" in found[0].svg
    del own["epoch"]
    assert ">step<" in charts.training_panels(own)[0].svg


@pytest.mark.parametrize("digits", [8, 0])
def test_roc_curves_are_those_of_scikit_learn(digits):
    """Also where many scores are equal."""
    of_id, ood = RNG.normal(1, 1, 300).round(digits), RNG.normal(0, 1, 200).round(digits)
    fpr, tpr, _ = roc_curve(np.arange(500) < 300, np.concatenate([of_id, ood]))
    expected = np.interp(charts.GRID, fpr, tpr)
    np.testing.assert_allclose(charts.roc_curve(of_id, ood), expected, atol=1e-12)
    scores = {"a": {"id": of_id, "x": ood, "y": of_id}, "b": {"id": ood, "x": ood, "y": ood}}
    found = charts.roc_panels(scores, ["x", "y"], {"x": "Textures"})
    assert [panel.title for panel in found] == ["mean over OOD sets", "Textures", "y"]
    assert all(len(lines_of(panel.svg)) == 2 for panel in found)


def test_the_gallery_says_what_is_known_of_each_outlier():
    pixels = np.linspace(0, 1, 60 * 4).reshape(60, 2, 2, 1).astype(np.float32)
    labels = np.arange(60) % 2
    read = {
        "d_k": np.arange(60)[::-1] / 100,
        "own": np.where(labels, 0.25, 0.96),
        "read": np.zeros(60, int),
        "surest": np.where(labels, 0.7, 0.96),
    }
    tiles = gallery.tiles(Images.of(pixels), labels, read, ["a", SPRINGER], seed=3)
    assert [tile.label for tile in tiles] == [0] * gallery.PER_CLASS + [1] * gallery.PER_CLASS
    assert sum(not tile.more for tile in tiles) == 2 * gallery.SHOWN
    number = 2 * (gallery.PER_CLASS - 1)  # of the first ones, the last is the nearest
    first, last = tiles[0], tiles[-1]
    assert first.caption == ["d_k 0.130", "own class 96\xa0%", f"seed\xa03, no.\xa0{number}"]
    assert (first.reading, last.reading) == ("own", "none")
    assert last.caption[1:3] == ["own class 25\xa0%", "a 70\xa0%"]
    with Image.open(io.BytesIO(b64decode(first.source.partition(",")[2]))) as image:
        expected = np.round(pixels[number, ..., 0] * 255)
        np.testing.assert_array_equal(np.asarray(image), expected)
    alone = gallery.tiles(Images.of(pixels), labels, {"d_k": read["d_k"]}, ["a", "b"], seed=3)
    assert {tile.reading for tile in alone} == {""} and len(alone[0].caption) == 2


def test_large_outliers_become_thumbnails():
    images = Images.of(RNG.uniform(size=(1, 200, 200, 3)).astype(np.float32))
    (tile,) = gallery.tiles(images, np.zeros(1, int), {"d_k": np.ones(1)}, ["a"], seed=0)
    assert tile.source.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(b64decode(tile.source.partition(",")[2]))) as image:
        assert image.size == (gallery.THUMBNAIL, gallery.THUMBNAIL)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zero", "zero"),
        (SPRINGER, "English springer,\nEnglish springer\nspaniel"),
        ("x" * 50, "x" * 18 + "\n" + "x" * 18 + "\n" + "x" * 14),
        ("x" * 70, "x" * 18 + "\n" + "x" * 18 + "\n" + "x" * 17 + "…"),
        ("犬" * 12, "犬" * 9 + "\n" + "犬" * 3),
        ("", ""),
    ],
)
def test_names_are_wrapped(name, expected):
    assert wrapped(name, 18, 3) == expected
    assert all(columns(line) <= 18 for line in expected.split("\n"))


@pytest.mark.parametrize("spread", [1.0, 0.05])
def test_names_on_a_map_cover_neither_each_other_nor_stars(spread):
    import matplotlib

    centres = RNG.normal(scale=spread, size=(20, 2))
    with matplotlib.rc_context(STYLE):
        figure = figure_of(*embeddings.MAP)
        axes = figure.add_subplot()
        axes.set(xlim=(-3, 3), ylim=(-3, 3))
        stars = centres[:5]
        names = [f"{SPRINGER} {i}" if i % 3 == 0 else f"class {i}" for i in range(20)]
        texts = embeddings.write_names(figure, axes, names, centres, stars)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in texts]
        frame, tips = axes.get_window_extent().padded(1), axes.transData.transform(stars)
    for i, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other) for other in boxes[:i]), names[i]
        assert not any(box.padded(-1).contains(*tip) for tip in tips)
        assert box.x0 >= frame.x0 and box.x1 <= frame.x1
        assert box.y0 >= frame.y0 and box.y1 <= frame.y1
