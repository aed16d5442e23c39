"""Image files are scored as the evaluation scores them, and a scoring that was killed goes on."""

import dataclasses
import re
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dream_jax
from dream_jax.errors import UserError
from dream_jax.files import read_npz
from dream_jax.scoring_files import Calibration, parts, read_images
from dream_jax.scoring_files.program import Request, score_by, score_files
from dream_jax.scoring_files.scorer import ImageScorer
from dream_jax.scoring_files.table import ENDINGS, Rows, read_table


def table_of(path: Path) -> Rows:
    """All rows of a table at once."""
    found = list(read_table(path))
    columns = [[getattr(rows, f.name) for rows in found] for f in dataclasses.fields(Rows)]
    files, classes, *numbers = columns
    return Rows([*chain(*files)], [*chain(*classes)], *map(np.concatenate, numbers))


def line_of(call, *arguments) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# By a run.


@pytest.fixture(scope="module")
def digits(toy_run, tmp_path_factory) -> Path:
    """The ID test images of the run as files, in their order."""
    folder = tmp_path_factory.mktemp("digits")
    images, _ = dream_jax.load_run(toy_run.workdir).images("test")
    for row in range(len(images)):
        Image.fromarray(images.pixels(row)[..., 0]).save(folder / f"{row:03d}.png")
    return folder


@pytest.mark.parametrize(("ending", "keep"), [(".csv", 0.95), (".parquet", 0.6)])
def test_scores_are_those_of_the_evaluation(toy_run, digits, tmp_path, ending, keep):
    out = tmp_path / f"scores{ending}"
    request = Request([str(digits)], run=str(toy_run.workdir), keep=keep, out=str(out))
    record = score_files(request)
    rows = table_of(out)
    run = dream_jax.load_run(toy_run.workdir)
    expected = run.scores("dream_ood")["id"]
    np.testing.assert_allclose(rows.score, expected, rtol=1e-6, atol=1e-6)
    assert rows.files == [str(digits / f"{row:03d}.png") for row in range(200)]
    assert record["is_id"] == rows.is_id.sum() == round(keep * 200)
    logits = run.classifier("dream_ood").logits(run.images("test")[0])
    assert rows.classes == [run.class_names[label] for label in logits.argmax(-1)]
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(rows.probability, shares.max(-1), rtol=1e-5)
    ranks = (expected[None] <= expected[:, None]).sum(1)
    np.testing.assert_allclose(rows.p_value, (1 + ranks) / 201, atol=1.1 / 201)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"{out.name}.json"]


def test_a_row_that_the_run_does_not_have_and_a_run_that_is_not_finished(copied_run, digits):
    workdir = copied_run("evaluation/dream_ood")
    request = Request([str(digits)], run=str(workdir), row="vim")
    assert "no row 'vim'; it has energy, dream_ood" in line_of(score_files, request)
    request = dataclasses.replace(request, row="dream_ood")
    assert "stage 'evaluate dream_ood' of the run is not done" in line_of(score_files, request)


# By any scorer.

CLASSES = ("dark", "grey, or so", "bright")


def brightness(images) -> tuple[np.ndarray, np.ndarray]:
    """Logits of three classes, and the mean as the score."""
    mean = images[:].mean((1, 2, 3))
    return -np.abs(mean[:, None] - np.asarray([0.1, 0.5, 0.9])) * 10, mean.astype(np.float32)


@pytest.fixture
def scorer(monkeypatch) -> ImageScorer:
    """A scorer whose parts have 8 images."""
    monkeypatch.setattr(parts, "IMAGES", 8)
    known = {"id": np.linspace(0.2, 0.8, 61), "letters": np.linspace(0, 0.3, 10)}
    identity = {"run": "grey", "row": "mean", "detector": "1"}
    prepare = lambda: brightness  # noqa: E731
    return ImageScorer("Mean", CLASSES, 28, 1, "stop", 4, known, identity, prepare)


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    for row in range(30):
        path = folder / ("a" if row % 2 else "b, \u732b") / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30 + row), (row * 8,) * 3).save(path)
    return folder


@pytest.fixture
def request_of(folder, tmp_path):
    """`request_of(keep=0.5)`: a request for the folder's images."""
    return lambda **more: Request(
        **{"images": [str(folder)], "out": str(tmp_path / "s.csv")} | more
    )


class Killed(BaseException):
    """Ends the program, whatever catches exceptions."""


def killed_after(scorer: ImageScorer, calls: int) -> ImageScorer:
    """A scorer that kills the program after some parts."""
    left = [calls]

    def score(images):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return brightness(images)

    return dataclasses.replace(scorer, prepare=lambda: score)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_scoring_that_was_killed_ends_with_the_same_bytes(scorer, request_of, tmp_path, ending):
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"killed{ending}"
    score_by(scorer, request_of(out=str(whole)))
    for calls in (2, 1):
        with pytest.raises(Killed):
            score_by(killed_after(scorer, calls), request_of(out=str(out)))
        assert not out.exists()
    score_by(killed_after(scorer, 1), request_of(out=str(out)))  # of four parts, three are there
    assert out.read_bytes() == whole.read_bytes()
    score_by(killed_after(scorer, 0), request_of(out=str(out)))  # nothing is scored again
    assert len(table_of(out)) == 30


def test_changes_are_noticed(scorer, request_of, folder, tmp_path, capsys):
    with pytest.raises(Killed):
        score_by(killed_after(scorer, 2), request_of())
    other = dataclasses.replace(scorer, identity=scorer.identity | {"row": "knn"})
    assert "parts of a scoring of row mean, not knn" in line_of(score_by, other, request_of())
    other = dataclasses.replace(scorer, identity=scorer.identity | {"run": "b"})
    assert "parts of a scoring of run grey, not b" in line_of(score_by, other, request_of())
    more = request_of(images=[str(folder / "a")])
    assert "parts of a scoring of other images" in line_of(score_by, scorer, more)

    first = min(folder.rglob("*.png"))
    Image.new("L", (33, 33), 255).save(first)
    score_by(scorer, request_of())
    assert "8 images are scored again: some of them have changed" in capsys.readouterr().out
    rows = table_of(tmp_path / "s.csv")
    assert rows.score[rows.files.index(str(first))] == 1

    assert "a scoring of keep 0.95, not 0.5" in line_of(score_by, scorer, request_of(keep=0.5))
    Image.new("L", (34, 34), 255).save(first)
    assert "a scoring of other images" in line_of(score_by, scorer, request_of())
    (tmp_path / "s.csv").write_text("mine")
    assert "other images" in line_of(score_by, scorer, request_of())
    (tmp_path / "s.csv.json").unlink()
    assert "is there without s.csv.json" in line_of(score_by, scorer, request_of())


def test_unreadable_images_stop_or_are_named_and_counted(scorer, request_of, folder, capsys):
    damaged = sorted(folder.rglob("*.png"))[11]
    damaged.write_bytes(damaged.read_bytes()[:60])
    line = line_of(score_by, scorer, request_of())
    assert line.startswith(f"{damaged}: not a readable image (") and "--unreadable=skip" in line
    record = score_by(killed_after(scorer, 3), request_of(unreadable="skip"))  # the first is kept
    assert record["images"] == 29 and record["unreadable"] == 1
    assert [*record["first_unreadable"]] == [str(damaged)]
    output = capsys.readouterr()
    assert f"skipped image {damaged}: " in output.err and "unreadable: 1 (" in output.out


def test_nothing_readable(scorer, request_of, folder, tmp_path):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"<html>")
    line = line_of(score_by, scorer, request_of(unreadable="skip"))
    assert "none of the 30 images can be read" in line and "is a page of the web" in line


def test_images_are_read_as_those_of_a_run(toy_run, folder):
    turned = folder / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 60, 3), np.uint8)
    Image.fromarray(pixels).save(turned, exif=exif)
    data = dream_jax.load_run(toy_run.workdir).settings.data
    images, names = read_images([str(folder)], data)
    assert images.shape == (31, 32, 32, 1) and names[-1] == str(turned)
    upright = np.asarray(
        Image.open(turned).convert("L").rotate(-90, expand=True).resize((32, 32), 2)
    )
    np.testing.assert_array_equal(images.pixels(30)[..., 0], upright)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"run": ""}, "--run is '' and --detector is ''; one of them must be given"),
        ({"detector": "d"}, "--run is 'r' and --detector is 'd'; one of them"),
        ({"run": "", "detector": "d", "row": "knn"}, "--row is 'knn'; it goes with --run"),
        ({"keep": 0.0}, "--keep is 0.0; it must be above 0 and below 1"),
        ({"keep": 1.0}, "--keep is 1.0; it must be above 0 and below 1"),
        ({"keep": float("nan")}, "--keep is nan; it must be above 0 and below 1"),
        ({"out": "s.txt"}, "--out is 's.txt'; it must end in .csv or .parquet"),
        ({"out": "nowhere/s.csv"}, "--out is 'nowhere/s.csv'; there is no folder nowhere"),
        ({"page": "p.pdf"}, "--page is 'p.pdf'; it must end in .html"),
        ({"page": "nowhere/p.html"}, "--page is 'nowhere/p.html'; there is no folder nowhere"),
        ({"run": "nowhere"}, "nowhere: "),
        ({"run": "", "detector": "nowhere"}, "nowhere is not there; it must be a folder that"),
        ({"run": "", "detector": "."}, ". has no detector.json; it must be a folder that"),
    ],
)
def test_bad_requests_are_refused(tmp_path, monkeypatch, more, line):
    monkeypatch.chdir(tmp_path)
    assert line_of(score_files, Request(**{"images": ["x"], "run": "r"} | more)).startswith(line)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("images", "line"),
    [
        ([], "--images is not given"),
        (["{}/none"], "--images: {}/none is not there; it must be a folder of images, or an"),
        ([""], "--images is not given"),
        (["{}/*.gif"], "--images is {}/*.gif; there is no such file"),
        (["{}/empty"], "{}/empty: holds no png, jpg, "),
        (["{}/notes.txt"], "--images: {}/notes.txt is no image by its name; allowed: png, jpg, "),
        (["{}/pictures", "{}/pictures"], "--images has {}/pictures and itself, which have"),
        (["{}/pictures", "{}/pictures/../pictures/a"], "--images has {}/pictures and {}/pictures/"),
        (["{}/pictures/a/01.png", "{}/pictures"], "--images has {}/pictures and {}/pictures/a/01"),
        (["{}/link", "{}/pictures/a"], "--images has {}/link and {}/pictures/a, which have"),
    ],
)
def test_bad_lists_of_images_are_refused(scorer, request_of, folder, tmp_path, images, line):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "link").symlink_to(folder / "a")
    given = [path.replace("{}", str(tmp_path)) for path in images]
    found = line_of(score_by, scorer, request_of(images=given))
    assert found.startswith(line.replace("{}", str(tmp_path)))


def test_files_and_patterns(scorer, request_of, folder, tmp_path, capsys):
    images = [str(folder / "b, \u732b" / "04.png"), str(folder / "a" / "0*.png")]
    score_by(scorer, request_of(images=images))
    assert "note: 6 of the first 6 images have 3 channels or more" in capsys.readouterr().err
    rows = table_of(tmp_path / "s.csv")
    assert [Path(file).stem for file in rows.files] == ["04", "01", "03", "05", "07", "09"]
    assert set(rows.classes) <= set(CLASSES)


# What scores mean.


def test_calibration_keeps_the_share_and_p_values_are_conformal():
    scores = np.random.default_rng(0).normal(size=997)
    for keep in (0.001, 0.5, 0.95, 0.999):
        calibration = Calibration(scores, keep)
        kept = calibration.is_id(scores).mean()
        assert keep <= kept < keep + 1 / 997 + 1e-9
        nudged = scores + 1e-9 * np.sign(scores)
        assert (calibration.is_id(nudged) == calibration.is_id(scores)).all()
    p_values = Calibration(np.asarray([3.0, 1.0, 2.0, 2.0]), 0.5).p_values([0.5, 1, 2, 9])
    np.testing.assert_allclose(p_values, [1 / 5, 2 / 5, 4 / 5, 1])
    assert Calibration(np.ones(5), 0.5).is_id(np.ones(3)).all()


# The page.


def test_the_page_is_one_file_with_pictures_of_both_ends(scorer, request_of, folder, tmp_path):
    page = tmp_path / "page.html"
    score_by(scorer, request_of(page=str(page)))
    text = page.read_text()
    assert not re.search(r'(src|href)=(?!"data:)|url\(|@import|https?:', text)
    cards = re.findall(r'data-class="([^"]*)"', text)
    assert set(cards) == set(CLASSES)
    assert text.count("data:image/png;base64,") == len(cards) >= 48  # each end has 24 and more
    for name in ("Your images", "ID test images", "letters", "Threshold"):
        assert name in text
    most = text[text.index("Most in-dist") : text.index("Least in-dist")]
    scores = [float(score) for score in re.findall(r"(?:ID|OOD)</span>\s+([\d.]+)", most)]
    assert scores == sorted(scores, reverse=True)
    before = page.read_bytes()
    score_by(killed_after(scorer, 0), request_of(page=str(page)))
    assert page.read_bytes() == before


def test_parts_without_their_job_are_refused(scorer, request_of, tmp_path):
    with pytest.raises(Killed):
        score_by(killed_after(scorer, 1), request_of())
    found = read_npz(tmp_path / "s.csv.parts" / "part-000000.npz")
    assert len(found["score"]) == 8 and found["score"].dtype == np.float32
    (tmp_path / "s.csv.parts" / "job.json").unlink()
    assert "has parts without job.json" in line_of(score_by, scorer, request_of())
