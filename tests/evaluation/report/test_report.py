"""The figures are drawn and show what they are given; the page holds everything."""

import base64
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from dream_jax.data.images import Images
from dream_jax.errors import UserError
from dream_jax.evaluation.bootstrap import paired_bootstrap
from dream_jax.evaluation.evaluators.ood import measure
from dream_jax.evaluation.report import comparison, embeddings, image_sheets, maps, page, write
from dream_jax.evaluation.report import scores as histograms
from dream_jax.evaluation.report.charts import Panel
from dream_jax.evaluation.report.gallery import Tile
from dream_jax.evaluation.report.panels import Axis, chart, swatch
from dream_jax.evaluation.report.write import write_report
from dream_jax.evaluation.seeds import summarise

NAMES = ["zero", "one", "two"]
RNG = np.random.default_rng(0)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def has_colour(image, colour, share=1e-4):
    near = np.all(np.abs(image.astype(int) - np.asarray(colour)) < 8, axis=-1)
    return near.mean() > share


def flat(n, colour, size=8):
    """n images of one colour; a single number gives one channel."""
    colour = np.atleast_1d(colour) / 255
    return np.broadcast_to(colour, (n, size, size, len(colour))).astype(np.float32)


@pytest.mark.parametrize("classes", [3, 100])
def test_image_grid_places_images_by_class(tmp_path, classes):
    names = [f"class {i}" for i in range(classes)]
    id_images = np.concatenate([flat(4, (200, 0, 0)), flat(4, (0, 0, 200), size=8)])
    labels = np.array([0] * 4 + [1] * 4)
    path = image_sheets.image_grid_by_class(
        id_images, labels, flat(5, 100, size=128), np.full(5, 2), names, tmp_path / "a" / "g.png",
        per_class=4,
    )  # fmt: skip
    image = pixels(path)
    tall = image_sheets.TILE + image_sheets.GAP
    assert abs(image.shape[0] - tall * min(classes, image_sheets.MAX_ROWS)) < 60
    where = {}
    for name, colour in {"red": (200, 0, 0), "blue": (0, 0, 200), "grey": (100,) * 3}.items():
        rows, columns = np.nonzero(np.all(image == colour, axis=-1))
        # Four tiles each, whole and at their exact colour.
        assert abs(len(rows) - 4 * image_sheets.TILE**2) < 0.02 * 4 * image_sheets.TILE**2, name
        where[name] = rows.mean(), columns.mean()
    assert where["blue"][0] - where["red"][0] == pytest.approx(tall, abs=1)
    assert where["grey"][0] - where["blue"][0] == pytest.approx(tall, abs=1)
    assert where["red"][1] == pytest.approx(where["blue"][1], abs=1)
    assert where["grey"][1] > where["red"][1] + 4 * image_sheets.TILE


def test_decoded_id_sheet_has_a_row_for_each_class(tmp_path):
    """Real image, round trip and image by name of a class stand one next to the other."""
    labels, of_sampled = np.array([2, 0, 1, 0]), np.array([1, 0, 1])
    greys = np.array([40, 60, 80])
    images = lambda labels, add: np.concatenate([flat(1, greys[y] + add) for y in labels])  # noqa: E731
    path = image_sheets.decoded_id_sheet(
        images(labels, 0),
        labels,
        images(labels, 5),
        images(of_sampled, 10),
        of_sampled,
        NAMES,
        tmp_path / "d.png",
    )
    image = pixels(path)
    lines = []
    for label in range(3):
        places = []
        for add in (0, 5, 10):
            down, across = np.nonzero(np.all(image == greys[label] + add, axis=-1))
            if label == 2 and add == 10:
                assert len(down) < 0.1 * image_sheets.TILE**2  # none was sampled
                continue
            assert abs(len(down) / image_sheets.TILE**2 - 1) < 0.2
            places.append((np.median(across), np.median(down)))
        assert places == sorted(places)
        assert np.ptp([down for _, down in places]) < 1
        lines.append(places[0][1])
    assert lines == sorted(lines) and len(set(lines)) == 3


@pytest.mark.parametrize("classes", [3, 40])
def test_tsne_anchors(tmp_path, classes):
    anchors = RNG.normal(size=(classes, 16))
    labels = np.arange(160) % classes
    features = anchors[labels] * 20 + RNG.normal(size=(160, 16))
    names = [f"class {i}" for i in range(classes)]
    path = embeddings.map_anchors(features, labels, anchors, names, tmp_path / "t.png", seed=0)
    assert np.count_nonzero(pixels(path).min(axis=-1) < 200) > 2000


def test_tsne_is_of_directions_and_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "MAX_OUTLIERS", 80)
    features, outliers = RNG.normal(size=(40, 8)), RNG.normal(size=(200, 8))
    first = embeddings.map_outliers(features, outliers, "seven", tmp_path / "1.png", seed=3)
    scaled = embeddings.map_outliers(
        features * 4, outliers / 4, "seven", tmp_path / "2.png", seed=3
    )
    image = pixels(first)
    # Powers of two leave directions exact: a map of unit vectors cannot change.
    np.testing.assert_array_equal(image, pixels(scaled))
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    purple = (red - green > 20) & (blue - green > 40)
    assert np.count_nonzero(purple) > 1000, "no ID features drawn"
    assert np.count_nonzero(red - blue > 100) > 2000, "no outliers drawn"


@pytest.mark.parametrize(("named", "label"), [("", 1), ("zero", 0), ("two", 2)])
def test_figure_4_is_of_the_class_that_is_named(tmp_path, named, label):
    results = replace(some_results(), figure_class=named)
    (shown,) = page.outlier_embeddings(results, tmp_path)
    own = results.features[results.feature_labels == label]
    given = own, results.embeddings[label], NAMES[label]
    expected = embeddings.map_outliers(*given, tmp_path / "expected.png", results.seed)
    assert shown.path.name == "tsne_outliers.png"
    assert shown.path.read_bytes() == expected.read_bytes()
    assert shown.title == f"Outlier embeddings of the class {NAMES[label]}"


def test_umap_is_named_where_it_is_not_installed():
    if find_spec("umap"):
        pytest.skip("umap-learn is installed")
    with pytest.raises(
        UserError, match="x is 'umap', which needs the package umap-learn"
    ) as caught:
        maps.check_map("umap", "x")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="x is 'pca'; it must be one of tsne, umap"):
        maps.check_map("pca", "x")


@pytest.mark.parametrize("counts", [(40, 60), (2, 3)])
def test_umap_repeats(tmp_path, counts):
    pytest.importorskip("umap")
    maps.check_map("umap", "x")
    parts = [RNG.normal(size=(count, 8)) for count in counts]
    one, other = (maps.flat_map(parts, 3, "umap") for _ in range(2))
    assert [part.shape for part in one] == [(count, 2) for count in counts]
    for part, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(part, again)
        assert np.isfinite(part).all()
    results = replace(some_results(), map="umap")
    (shown,) = page.outlier_embeddings(results, tmp_path)
    assert shown.path.name == "umap_outliers.png" and "UMAP of the features" in shown.caption


def test_score_histograms(tmp_path):
    id_scores = RNG.normal(8, 1, 300)
    sets = {"letters": RNG.normal(3, 1, 200), "faces": RNG.normal(5, 1, 50)}
    kept = {"round_trips": id_scores - 0.1, "sampled_by_name": id_scores - 1}
    with_kept = histograms.score_histograms(id_scores, sets, kept, "Energy", tmp_path / "k.png")
    without = histograms.score_histograms(id_scores, sets, {}, "Energy", tmp_path / "n.png")
    green = (0, 122, 88)
    assert has_colour(pixels(with_kept), green) and not has_colour(pixels(without), green)
    assert pixels(with_kept).shape[0] > pixels(without).shape[0]  # a panel more
    constant = {"black": np.zeros(4)}
    assert histograms.score_histograms(np.zeros(9), constant, {}, "x", tmp_path / "c.png").is_file()
    with pytest.raises(UserError, match="NaN"):
        histograms.score_histograms([np.nan, 1.0], sets, {}, "Energy", tmp_path / "bad.png")


def test_score_grid_has_a_line_per_row_and_a_column_per_set(tmp_path):
    high, low = RNG.normal(0, 1, 300) + 20, RNG.normal(0, 1, 300)
    scores = {
        "good": {"id": high, "letters": low, "faces": low},
        "bad": {"id": low, "letters": high, "faces": low},
    }
    image = pixels(histograms.score_grid(scores, ["letters", "faces"], tmp_path / "g.png"))
    blue, red = np.array([127, 184, 216]), np.array([234, 174, 127])  # half transparent
    near = lambda c: np.all(np.abs(image.astype(int) - c) < 6, axis=-1)  # noqa: E731
    # Without the heading and the key.
    rows = np.flatnonzero(near(blue).any(axis=1))
    top, bottom = rows[0], rows[-1] - 40
    middle = (top + bottom) // 2
    half = image.shape[1] // 2
    place = lambda c, part: np.nonzero(near(c)[part])[1].mean()  # noqa: E731
    good, bad = np.s_[top:middle, : half + 60], np.s_[middle:bottom, : half + 60]
    assert place(blue, good) > place(red, good) + 50
    assert place(red, bad) > place(blue, bad) + 50
    with pytest.raises(UserError, match="NaN"):
        histograms.score_grid(
            {"x": {"id": np.ones(3), "a": np.array([np.nan])}}, ["a"], tmp_path / "x"
        )


def test_row_comparison_places_dots(tmp_path):
    fprs = {"one": 0.2, "two": 0.6, "three": 0.4}
    of = lambda fpr: {"ood": {"mean": {"fpr95": fpr}}}  # noqa: E731
    metrics = {"methods": {row: of(fpr) for row, fpr in fprs.items()}}
    blue = (0, 114, 178)

    def dots(metrics):
        path = comparison.row_comparison(metrics, tmp_path / "c.png", sections={"two": "Others"})
        exact = np.all(pixels(path) == blue, axis=-1)
        return ndimage.find_objects(ndimage.label(exact)[0])

    plain = sorted(dots(metrics), key=lambda box: box[0].start)[:3]  # the key comes last
    x = [(box[1].start + box[1].stop) / 2 for box in plain]
    y = [box[0].start for box in plain]
    assert x[2] - x[0] == pytest.approx(x[1] - x[2], abs=2) and x[2] - x[0] > 100
    assert y[1] - y[0] == pytest.approx(2 * (y[2] - y[1]), abs=3)  # a heading lies between

    metrics["std"] = {row: of(0.05) for row in fprs}
    metrics["by_seed"] = {
        str(i): {row: of(f + 0.05 * i) for row, f in fprs.items()} for i in (-1, 1)
    }
    metrics["bootstrap"] = {
        "level": 0.95,
        "rows": {"fpr95": {"mean": {row: [f, f - 0.1, f + 0.1] for row, f in fprs.items()}}},
    }
    wide = max(box[1].stop - box[1].start for box in dots(metrics))
    assert wide > 4 * max(box[1].stop - box[1].start for box in plain)


class Page(HTMLParser):
    """Collects what a browser would show, load or run."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.shown, self._open = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._open.append(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if "style" not in self._open:
            self.shown += data


HOSTILE = "</pre><script>alert('&amp;')</script> \"x\" <b>"


@pytest.fixture
def report(tmp_path):
    paths = []
    for i in range(2):
        path = tmp_path / f"figure{i}.png"
        Image.fromarray(RNG.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(
            path, dpi=(192, 192)
        )
        paths.append(path)
    row = {"fpr95": 0.25, "auroc": 0.875, "aupr_in": 0.5}
    better = {"fpr95": 0.125, "auroc": 0.75, "aupr_in": 0.5}
    metrics = {
        "methods": {
            "energy": {"id_accuracy": 0.9, "ood": {"letters": row, "mean": row}},
            "dream_ood": {"id_accuracy": 0.95, "ood": {"letters": better, "mean": better}},
        },
        "seed": 7,
        "config": HOSTILE,
    }
    config = json.dumps({"name": HOSTILE, "sampling": {"k": 100}}, indent=2)
    content = write.Page(
        title="Title " + HOSTILE,
        metrics=metrics,
        config_json=config,
        stages=[
            {
                "stage": "decode " + HOSTILE,
                "seconds": 3725.2,
                "peak_memory_mb": 2048.4,
                "start_memory_mb": 1000,
            },
            {"stage": "evaluate", "seconds": 62, "peak_memory_mb": None},
        ],
        figures=[
            {"path": p, "title": f"Figure {i}", "caption": f"Caption {i} {HOSTILE}"}
            for i, p in enumerate(paths)
        ],
        facts=[("Still in class", "12 %", HOSTILE)],
        names={"dream_ood": "Dream-OOD & co"},
    )
    return write_report(tmp_path / "made" / "report", content), paths, config


def test_page_embeds_every_figure_and_loads_nothing(report):
    index, paths, _ = report
    page = Page(index.read_text(encoding="utf-8"))
    images = [s for s in page.sources if s.startswith("data:image/png;base64,")]
    assert [base64.b64decode(s.split(",")[1]) for s in images] == [p.read_bytes() for p in paths]
    rest = [s for s in page.sources if s not in images]
    assert 'width="33"' in index.read_text()  # 30 pixels at 192 dpi are 15 CSS pixels, + padding
    assert rest and all(s.startswith("#") for s in rest)
    assert "url(" not in index.read_text() and "@import" not in index.read_text()
    assert not {"script", "link", "iframe"} & set(page.tags)
    ids = set(re.findall(r'id="([^"]+)"', index.read_text()))
    assert {s[1:] for s in rest} <= ids


def test_page_shows_every_text_as_it_is(report):
    index, _, config = report
    text = index.read_text(encoding="utf-8")
    shown = Page(text).shown
    assert config in shown, "the configuration is not shown whole"
    # Title twice (head and heading), configuration's name and text, stage, two captions, a fact.
    assert shown.count("<script>alert") == 8
    assert "<script" not in text and html.escape("<script>") in text
    for expected in (
        "Caption 0", "Caption 1", "Figure 0", "Still in class", "12 %", "seed 7",
        "1 h 2 min", "2,048 MB", "1,048 MB", "1 min 2 s", "1 h 3 min", "Dream-OOD & co",
    ):  # fmt: skip
        assert expected in shown, expected


def test_page_marks_the_best_of_each_column(report):
    text = report[0].read_text(encoding="utf-8")
    best = [re.findall(r"<b>([^<]+)</b>", row) for row in text.split("<tr>")]
    # AUROC is energy's, FPR95 (lower) and ID accuracy Dream-OOD's; equal AUPRs are nobody's.
    assert [b for b in best if b] == [["87.5", "87.5"], ["12.5", "12.5", "95.0"]]


def test_tables_lie_beside_the_page(report):
    folder = report[0].parent
    assert {p.name for p in folder.iterdir()} == {
        "index.html",
        "table.md",
        "table.csv",
        "table.tex",
    }
    assert "| Dream-OOD & co | 12.5 / 75.0 / 50.0 |" in (folder / "table.md").read_text()
    assert (folder / "table.csv").read_text().splitlines()[2].startswith("dream_ood,0.125,0.75,")


def test_charts_gallery_and_command_show_every_text_as_it_is(tmp_path):
    drawn = chart([], Axis(HOSTILE), Axis(HOSTILE))
    panel = Panel(HOSTILE, drawn, [(swatch(0), HOSTILE), (swatch(1), HOSTILE)])
    row = {"fpr95": 0.25, "auroc": 0.875, "aupr_in": 0.5}
    content = write.Page(
        "Toy", {"methods": {"energy": {"id_accuracy": 0.5, "ood": {"mean": row}}}, "seed": 0}
        | {"config": "toy"}, "{}", stages=[], figures=[], facts=[],
        names={"energy": HOSTILE}, class_names=[HOSTILE], roc=[panel],
        tiles=[Tile(0, False, "own", "data:image/png;base64,AA==", [HOSTILE])],
        trainings=[(HOSTILE, [panel])], command=HOSTILE, versions={HOSTILE: HOSTILE},
    )  # fmt: skip
    text = write_report(tmp_path, content).read_text(encoding="utf-8")
    page = Page(text)
    # Row: table, legend. Class: heading, choice, caption. Training, its panel, its axis (below and
    # not in the label), its legend twice; ROC panel and axis. Command and version twice.
    assert page.shown.count("<script>alert") == 2 + 3 + 5 + 2 + 3
    assert "<script" not in text and "AUROC" in page.shown
    assert page.sources.count("data:image/png;base64,AA==") == 1


def test_page_without_figures_facts_or_stages(tmp_path):
    metrics = {"methods": {"energy": {"id_accuracy": 0.5, "ood": {}}}, "seed": 0, "config": "toy"}
    content = write.Page("Toy", metrics, "{}", stages=[], figures=[], facts=[])
    index = write_report(tmp_path, content)
    page = Page(index.read_text())
    assert "50.0" in page.shown and "Figures" not in page.shown and "img" not in page.tags


def some_results() -> page.RunResults:
    """Eight rows and two seeds, with a bootstrap, tuning and shifted sets."""
    rng = np.random.default_rng(0)
    rows = [f"row_{i}" for i in range(8)]
    scores = {
        seed: {
            row: {
                "id": rng.normal(2, 1, 60),
                "letters": rng.normal(0.2 * i, 1, 50),
                "round_trips": rng.normal(2, 1, 5),
                "sampled_by_name": rng.normal(2, 1, 5),
            }
            for i, row in enumerate(rows)
        }
        for seed in (3, 5)
    }
    results = {
        seed: {
            row: measure(of[row], np.arange(60) > 53, ["letters"], list(page.KEPT))
            | {"shifted": {"blur": {"mean": 0.7 + 0.01 * i}, "mean": 0.7}}
            for i, row in enumerate(rows)
        }
        for seed, of in scores.items()
    }
    metrics = summarise(results) | {
        "config": "toy",
        "bootstrap": paired_bootstrap(scores, ["letters"], resamples=50),
        "tuning": {"sets": ["glyphs"], "seed": 100, "rows": {}},
    }
    labels = np.repeat(np.arange(3), 10)
    images = Images.of(rng.uniform(size=(30, 8, 8, 1)).astype(np.float32))
    judged = {"outliers": 30, "in_class": 0.1, "in_any_class": 0.25, "used": 21}
    return page.RunResults(
        name="toy", config_json="{}", metrics=metrics, class_names=NAMES,
        features=rng.normal(size=(30, 8)), feature_labels=labels, anchors=rng.normal(size=(3, 8)),
        embeddings=rng.normal(size=(3, 10, 8)), train=(images, labels), test=(images, labels),
        outliers=(images, labels), round_trips=images, by_name=(images, labels), scores=scores[3],
        titles={row: row.replace("_", " ") for row in rows}, stages=[], seed=3,
        sections={row: "First rows" if row < "row_4" else "Last rows" for row in rows},
        judgements={"One": judged, "Other": judged | {"used": 17}}, legible=0.875,
    )  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    return page.make_page(some_results(), tmp_path_factory.mktemp("compared"))


def measured(collapsed: int) -> dict:
    """The part `embeddings` of metrics.json for three classes, of which some have collapsed."""
    classes = {}
    for label, name in enumerate(NAMES):
        fallen = label < collapsed
        spread = {"median": 1.25, "min": 1.0, "max": 1.5 + label}
        classes[name] = {
            "distinct_share": 0.03 if fallen else 0.97,
            "distinct": 12 if fallen else 388,
            "effective_rank": 11.25 if fallen else 82.5,
            "collapsed": fallen,
            "d_k": {"embeddings": spread, "boundary_set": spread, "class": spread},
            "nearest_cosine": {"own_class": spread | {"median": 0.5}},
        }
    shares = [own["distinct_share"] for own in classes.values()]
    return {"count": 12_000, "grouped": 400, "placed": 300, "same_cosine": 0.9, "k": 100} | {
        "mean": {"distinct_share": np.mean(shares), "effective_rank": 50.0},
        "classes": classes,
    }


@pytest.mark.parametrize("collapsed", [0, 2])
def test_page_tells_whether_embeddings_have_collapsed(tmp_path, collapsed):
    row = {"fpr95": 0.25, "auroc": 0.875, "aupr_in": 0.5}
    metrics = {"methods": {"energy": {"id_accuracy": 0.5, "ood": {"mean": row}}}, "seed": 0}
    metrics |= {"config": "toy", "embeddings": measured(collapsed)}
    fact = page.embedding_table.fact(metrics["embeddings"])
    content = write.Page("Toy", metrics, "{}", stages=[], figures=[], facts=[fact])
    shown = Page(write_report(tmp_path, content).read_text(encoding="utf-8")).shown
    warning = (
        "Collapsed: the outlier embeddings of 2 of 3 classes have collapsed: of the 400 of class"
    )
    assert (warning in shown) is (collapsed > 0)
    assert ("collapsed in 2 of 3 classes" in shown) is (collapsed > 0)
    for expected in (
        "different of 400", "median of all classes", "1.250 1.00 to 2.50", "1.250 1.00 to 3.50",
        "as many of the first 400 of 12,000 embeddings", "medians of 300 embeddings", "82.5", "–",
        "34.3%" if collapsed else "97.0%",
    ):  # fmt: skip
        assert expected in shown, expected


def test_page_tells_what_was_judged_for_each_training(compared):
    shown = Page(compared.read_text(encoding="utf-8")).shown
    for expected in ("(One)", "(Other)", "21 of 30", "17 of 30", "87.5%", "25.0%"):
        assert expected in shown, expected


def test_page_of_several_seeds(compared):
    text = compared.read_text(encoding="utf-8")
    shown = Page(text).shown
    for expected in (
        "Dream-OOD: toy, seeds 3, 5", "Generalisation", "Tuning", "First rows", "Last rows",
        "over 2 seeds", "50 resamples", "validation OOD sets glyphs", "How the rows compare",
        "Scores of all methods",
    ):  # fmt: skip
        assert expected in shown, expected
    assert text.count("±") > 8 * 4 and "†</td>" in text and text.count("<td>defaults</td>") == 8
    ids = set(re.findall(r'id="([^"]+)"', text))
    assert {s[1:] for s in Page(text).sources if s.startswith("#")} <= ids


def test_files_of_several_seeds(compared):
    names = {path.name for path in compared.parent.iterdir() if path.suffix != ".png"}
    texts = {"table.md", "table.csv", "table.tex", "shifted.csv", "shifted.tex"}
    assert names == {"index.html", *texts}
    assert {p.name for p in compared.parent.glob("*.png")} >= {"scores.png", "comparison.png"}
    assert not list(compared.parent.glob("scores_*.png"))
    markdown = (compared.parent / "table.md").read_text()
    assert "\n## Generalisation\n" in markdown and "\n## Tuning\n" in markdown
