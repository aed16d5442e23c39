"""The page in a real browser, on a phone and on a desk, in light and dark, and printed.

    pip install playwright && apt-get install chromium

Skipped where either is missing.
"""

import os
import shutil

import numpy as np
import pytest

from dream_jax.data.images import Images
from dream_jax.evaluation.bootstrap import paired_bootstrap
from dream_jax.evaluation.evaluators.ood import measure
from dream_jax.evaluation.report import page
from dream_jax.evaluation.seeds import summarise

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")

NAMES = [
    *("tench, Tinca tinca", "English springer, English springer spaniel", "cassette player"),
    *("chain saw, chainsaw", "church, church building", "French horn, horn"),
    *("garbage truck, dustcart", "gas pump, gasoline pump, petrol pump, island dispenser"),
    *("golf ball", "parachute, chute"),
]
SETS = ("textures", "scenes", "flowers", "clothing")
ROWS = [f"outlier_exposure_{i}/knn" for i in range(8)]
SMALLEST = 9.5  # CSS pixels: the height of a font that is still read on a phone


def results() -> page.RunResults:
    """What a run with ten ImageNet classes, eight rows and two seeds would show."""
    rng = np.random.default_rng(0)
    sets = ("id", *SETS, *page.KEPT)
    scores = {
        seed: {row: {name: rng.normal(name == "id", 1, 40) for name in sets} for row in ROWS}
        for seed in (0, 1)
    }
    measures = {
        seed: {row: measure(of[row], np.arange(40) > 35, [*SETS], [*page.KEPT]) for row in ROWS}
        for seed, of in scores.items()
    }
    metrics = summarise(measures) | {
        "config": "imagefolder",
        "bootstrap": paired_bootstrap(scores, [*SETS], resamples=20),
    }
    labels, steps = np.arange(60) % 10, [20, 40, 60]
    images = Images.of(rng.uniform(size=(60, 16, 16, 3)).astype(np.float32))
    own = rng.uniform(size=60)
    curves = {"epoch": (steps, [1.0, 2.0, 3.0]), "loss": (steps, [2.0, 1.0, 0.5])}
    curves |= {"accuracy": (steps, [0.1, 0.6, 0.8]), "test_accuracy": (steps[1:], [0.5, 0.7])}
    return page.RunResults(
        name="imagefolder", config_json='{"name": "imagefolder"}', metrics=metrics,
        class_names=NAMES, features=rng.normal(size=(60, 8)), feature_labels=labels,
        anchors=rng.normal(size=(10, 8)), embeddings=rng.normal(size=(10, 9, 8)),
        train=(images, labels), test=(images, labels), outliers=(images, labels),
        round_trips=images, by_name=(images, labels), scores=scores[0],
        titles={row: row.replace("_", " ") for row in ROWS},
        sections=dict.fromkeys(ROWS, "Trained with real outliers"), judgements={}, legible=0.9,
        stages=[{"stage": "evaluate outlier_exposure, seed 1", "seconds": 3.0,
                 "peak_memory_mb": 1000.0}],
        seed=0, command="python launch/main.py --config=" + "folder/" * 20 + "imagefolder.py",
        versions={"jax": "0.10.2", "device": "cpu"}, curves={"latent space": curves},
        readings={"d_k": rng.uniform(size=60), "own": own, "surest": np.maximum(own, 0.5),
                  "read": np.where(own > 0.5, labels, (labels + 1) % 10)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return page.make_page(results(), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def chromium():
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=root)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, index):
    """`opened(width, scheme)`: the page as it is shown; fails if it loads or logs anything."""
    asked, said = [], []

    def open_page(width: int, scheme: str = "light"):
        shown = chromium.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.goto(index.as_uri())
        return shown

    yield open_page
    assert not said and {url.partition(":")[0] for url in asked} <= {"file", "data"}


# What sticks out of the page, and is not within what scrolls by itself.
STICKS_OUT = """() => [...document.querySelectorAll('body *')].filter(e =>
  !e.closest('.scroll, pre, select') && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 80))"""
# The height of the smallest letters, of text and in charts, in CSS pixels.
LETTERS = """() => [...document.querySelectorAll('body *')].filter(e =>
  [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) && e.getClientRects().length)
  .map(e => { const svg = e.closest('svg');
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    return parseFloat(getComputedStyle(e).fontSize) * scale; })"""
# How much smaller than drawn a figure is shown, of those that do not scroll.
SHRUNK = """() => [...document.querySelectorAll('figure img')].map(e =>
  e.closest('.scroll') ? 1 : e.getBoundingClientRect().width / e.getAttribute('width'))"""
# Names of classes and rows that lie over one another.
COLLIDE = """() => { const all = [...document.querySelectorAll('h3, h4, .tile span, .legend li')]
  .filter(e => e.getClientRects().length).map(e => e.getBoundingClientRect());
  return all.flatMap((a, i) => all.slice(i + 1).filter(b =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1))
  .length; }"""


@pytest.mark.parametrize("width", [400, 1400])
def test_everything_fits_and_can_be_read(opened, width):
    shown = opened(width)
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    assert shown.evaluate(STICKS_OUT) == []
    assert min(shown.evaluate(LETTERS)) >= SMALLEST
    assert min(shown.evaluate(SHRUNK)) >= 0.8
    assert shown.evaluate(COLLIDE) == 0
    scrolls = "e => e.scrollWidth > e.clientWidth"
    table = shown.locator(".scroll:has(.results)").first
    assert table.evaluate(scrolls) == (width == 400)
    table.evaluate("e => { e.scrollLeft = 300; }")
    name = table.locator("tbody th[scope=row]").first.bounding_box()
    assert name["x"] >= 0  # stays in sight


def test_outliers_are_chosen_by_class_and_by_reading(opened):
    shown = opened(400)
    count = lambda what: shown.locator(f"{what}:visible").count()  # noqa: E731
    assert (count(".kin"), count(".tile")) == (10, 40)
    shown.select_option("#by-class", label=NAMES[1])
    assert (count(".kin"), count(".tile")) == (1, 6)
    assert shown.locator(".kin:visible h3").inner_text() == NAMES[1]
    readings = results().readings
    own = (readings["surest"] >= 0.95) & (readings["read"] == np.arange(60) % 10)
    shown.select_option("#by-class", "all")
    shown.select_option("#by-reading", "own")
    assert count(".tile") == own.sum() > 0
    shown.select_option("#by-reading", "none")
    assert count(".tile") == (readings["surest"] < 0.95).sum()


def test_a_row_is_emphasised_in_every_roc_panel(opened):
    shown = opened(1400)
    strong = """() => [...document.querySelectorAll('#roc-curves .panels .line')]
      .filter(e => getComputedStyle(e).opacity == 1).length"""
    panels = 1 + len(SETS)
    assert shown.evaluate(strong) == panels * len(ROWS)
    shown.select_option("#roc-curves select", "5")
    assert shown.evaluate(strong) == panels


# The least contrast of text with the ground of the page (WCAG asks for 4.5).
CONTRAST = """() => { const parts = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = c => parts(c).map(v => v / 255).map(v =>
    v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll(
    'h1, p, th, td, a, .tile span, svg text, svg .line')].map(e => { const s = getComputedStyle(e);
      const own = light(e.matches('.line') ? s.stroke : e.closest('svg') ? s.fill : s.color);
      return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05)
        / (e.matches('.line') ? 3 / 4.5 : 1); }); }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(opened, scheme):
    shown = opened(1400, scheme)
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    assert min(shown.evaluate(CONTRAST)) >= 4.5


def test_it_prints_in_light_without_what_only_a_screen_can_do(opened):
    shown = opened(718, "dark")  # the width of a sheet of A4 within its margins
    shown.emulate_media(media="print", color_scheme="dark")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.evaluate("document.documentElement.scrollWidth") == 718
    assert shown.locator("select:visible").count() == 0
    assert shown.pdf(prefer_css_page_size=True).startswith(b"%PDF")
