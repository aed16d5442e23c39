"""Folders of images of every kind, as an ID set by class and as OOD sets."""

import numpy as np
import pytest
from PIL import Image

from dream_jax.data.framing import frame, random_resized_crop
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.modes import to_mode
from dream_jax.data.registry import check_available, load_id, load_ood
from dream_jax.errors import DataUnavailable, UserError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 52, 3), np.uint8)


def write(path, image: Image.Image | None = None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.fromarray(PIXELS)).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    """Three classes, with an underscore, an umlaut and Chinese in their names."""
    for split, count in (("train", 4), ("val", 2)):
        for level, name in enumerate(("gear_wheel", "Zahnräder", "螺丝")):
            for index in range(count):
                colour = Image.new("RGB", (30 + index, 44), (80 * level, 10 * index, 7))
                write(tmp_path / split / name / "below" / f"{index}é.png", colour)
    return tmp_path


def options(folder, **more) -> DataOptions:
    more["classes"] = tuple(more.pop("class_names", {}).items())
    return DataOptions(**{"image_size": 32, "channels": 3, "folder": str(folder)} | more)


def test_classes_labels_and_pixels(root):
    (root / "train" / "gear_wheel" / "notes.txt").write_text("not an image")
    (root / "train" / "gear_wheel" / "._0.png").write_bytes(b"another system's notes")
    (root / "train" / ".cache").mkdir()
    train, test = load_id("imagefolder", options(root))
    assert train.class_names == test.class_names == ("Zahnräder", "gear wheel", "螺丝")
    assert train.images.shape == (12, 32, 32, 3) and train.images[0].dtype == np.float32
    assert np.bincount(train.labels).tolist() == [4, 4, 4]
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    level = np.array([1, 0, 2])[train.labels]
    np.testing.assert_array_equal(train.images[:][:, 5, 5, 0], np.float32(80 * level) / 255)
    np.testing.assert_array_equal(train.images[:][:4, 5, 5, 1] * 255, [0, 10, 20, 30])


def test_class_names_rename_and_select(root):
    chosen = {"螺丝": "screw", "Zahnräder": "gear"}
    train, test = load_id("imagefolder", options(root, class_names=chosen))
    assert train.class_names == ("gear", "screw") and len(train) == 8 and len(test) == 4
    assert train.images[:][-1, 0, 0, 0] == np.float32(160) / 255
    with pytest.raises(UserError, match="'bolt'"):
        load_id("imagefolder", options(root, class_names={"bolt": "bolt"}))
    with pytest.raises(UserError, match="called 'x'"):
        load_id("imagefolder", options(root, class_names={"螺丝": "x", "Zahnräder": "x"}))


def modes() -> dict[str, Image.Image]:
    rgb = Image.fromarray(PIXELS)
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    transparent = rgb.copy()
    transparent.putalpha(Image.fromarray(PIXELS[..., 1]))
    return {
        "rgb.png": rgb,
        "grey.png": rgb.convert("L"),
        "grey.jpg": rgb.convert("L"),
        "palette.png": rgb.quantize(200),
        "rgba.PNG": transparent,
        "la.png": rgb.convert("LA"),
        "bilevel.png": rgb.convert("1"),
        "deep.png": deep,
        "cmyk.jpeg": rgb.convert("CMYK"),
        "ycc.JPEG": rgb,
        "one_pixel.png": rgb.resize((1, 1)),
        "wide.png": rgb.resize((300, 3)),
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 64])
def test_every_mode_and_size_arrives_in_the_frame(tmp_path, channels, size):
    for name, image in modes().items():
        write(tmp_path / name, image)
    ood = load_ood(f"mixed={tmp_path}", DataOptions(image_size=size, channels=channels))
    assert ood.name == "mixed" and not len(ood.labels)
    assert ood.images.shape == (len(modes()), size, size, channels)
    assert ood.images[:].dtype == np.float32
    # One pixel is a flat image; all others show something.
    assert np.sum(ood.images[:].std(axis=(1, 2)).max(-1) > 0.02) == len(modes()) - 1


@pytest.mark.parametrize("name", ["rgba.PNG", "palette.png", "cmyk.jpeg", "ycc.JPEG"])
def test_colours_are_those_of_the_picture(tmp_path, name):
    """Palette and JPEG lose a little; transparency shows white."""
    smooth = Image.fromarray(PIXELS).resize((4, 3)).resize((52, 40), Image.Resampling.BILINEAR)
    image = smooth.quantize(250) if name == "palette.png" else smooth.convert("RGB")
    image = image.convert("CMYK") if name == "cmyk.jpeg" else image
    if name == "rgba.PNG":
        image.putalpha(Image.new("L", image.size, 90))
    write(tmp_path / name, image, **({"quality": 95} if name.lower().endswith("jpeg") else {}))
    found = load_ood(f"one={tmp_path}", DataOptions(channels=3)).images[0]
    expected = np.asarray(smooth.resize((32, 32), Image.Resampling.BILINEAR), np.float32) / 255
    if name == "rgba.PNG":
        expected = 1 - (1 - expected) * 90 / 255
    assert np.abs(found - expected).max() < 0.06


def test_sixteen_bits_keep_their_brightness(tmp_path):
    deep, grey = modes()["deep.png"], Image.fromarray(PIXELS[..., 0])
    with Image.open(write(tmp_path / "deep.png", deep)) as image:
        assert image.mode.startswith("I")
        np.testing.assert_array_equal(np.asarray(to_mode(image, 1)), np.asarray(grey))


def test_frame_crops_the_centre_of_large_images_and_shows_all_of_small_ones():
    ramp = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    large = np.asarray(frame(Image.fromarray(ramp), 64, crop=True))
    # The shorter side, 100, becomes 73 pixels; 64 of the 146 columns are in the middle.
    assert abs(int(large[32, 0]) - 100 * (41 / 73)) < 2 and abs(large.mean() - 99.5) < 1
    small = np.asarray(frame(Image.fromarray(ramp), 32, crop=True))
    assert small[0, 0] < 6 and small[0, -1] > 193
    assert np.array_equal(
        np.asarray(frame(Image.fromarray(ramp), 64, crop=False))[:, 0] < 6, [True] * 64
    )


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("extents", [(300, 200), (90, 1400), (1700, 100), (20, 3000), (9000, 7)])
def test_cropping_first_changes_little_and_ordinary_images_not_at_all(extents, size):
    smooth = Image.fromarray(PIXELS).resize(extents, Image.Resampling.BICUBIC)
    scale = round(size * 256 / 224) / min(extents)
    width, height = (max(size, round(extent * scale)) for extent in extents)
    left, top = round((width - size) / 2), round((height - size) / 2)
    whole = smooth.resize((width, height), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + size, top + size))).astype(int)
    difference = np.abs(np.asarray(frame(smooth, size, crop=True)) - expected).max()
    assert difference <= (2 if max(extents) > 16 * min(extents) else 0)


def test_random_resized_crops_have_the_areas_and_aspects_asked_for():
    rows, columns = np.mgrid[:120, :200].astype(np.uint8)
    places = Image.fromarray(np.stack([rows, columns, rows], -1))
    areas, aspects, flipped = [], [], 0
    for seed in range(300):
        crop = np.asarray(random_resized_crop(places, 24, np.random.default_rng(seed))).astype(
            float
        )
        height, width = (np.ptp(crop[..., 0]) + 1) * 24 / 23, (np.ptp(crop[..., 1]) + 1) * 24 / 23
        areas.append(height * width / (120 * 200))
        aspects.append(width / height)
        flipped += crop[0, 0, 1] > crop[0, -1, 1]
    assert 0.05 < min(areas) < 0.12 and 0.75 < max(areas) < 1.1
    assert 0.7 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.45
    assert 115 < flipped < 185


def damage(folder) -> list:
    """An empty file, text, and images cut short; each is named as an image."""
    whole = write(folder / "whole.jpg", Image.fromarray(PIXELS)).read_bytes()
    files = {
        "cut.jpg": whole[: len(whole) // 2],
        "empty.png": b"",
        "text.jpeg": b"<html>404</html>",
        "cut.png": write(folder / "cut.png").read_bytes()[:900],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sorted(folder / name for name in files)


@pytest.mark.parametrize("hold_bytes", [0, 2**30])
def test_unreadable_images_stop_the_run_by_name(root, hold_bytes):
    bad = damage(root / "train" / "Zahnräder")
    with pytest.raises(UserError) as caught:
        load_id("imagefolder", options(root, hold_bytes=hold_bytes))
    message = str(caught.value)
    assert str(bad[0]) in message and "4 of 17 images" in message and "\n" not in message
    assert "data.unreadable=skip" in message


@pytest.mark.parametrize("hold_bytes", [0, 2**30])
def test_unreadable_images_are_skipped_named_and_counted(root, capsys, hold_bytes):
    before, _ = load_id("imagefolder", options(root))
    bad = damage(root / "train" / "Zahnräder")
    skipping = options(root, hold_bytes=hold_bytes, unreadable="skip")
    train, _ = load_id("imagefolder", skipping)
    lines = capsys.readouterr().err.splitlines()
    assert [line for path in bad for line in lines if line.startswith(f"skipped image {path}: ")]
    assert len(lines) == 5 and lines[-1] == "skipped 4 of 17 images, which are unreadable"
    assert np.bincount(train.labels).tolist() == [5, 4, 4]  # with whole.jpg
    np.testing.assert_array_equal(train.images[:4], before.images[:4])
    np.testing.assert_array_equal(train.images[5:], before.images[4:])
    again, _ = load_id("imagefolder", skipping)
    np.testing.assert_array_equal(train.images[:], again.images[:])


def test_nothing_readable_stops_also_where_images_are_skipped(tmp_path):
    damage(tmp_path)
    (tmp_path / "whole.jpg").unlink()
    with pytest.raises(UserError, match="4 of 4 images"):
        load_ood(f"broken={tmp_path}", DataOptions(unreadable="skip"))


def test_ood_folder_is_a_fixed_random_part(root):
    few = DataOptions(channels=3, count=5)
    first, second = (load_ood(f"parts={root}", few) for _ in range(2))
    assert len(first) == 5
    np.testing.assert_array_equal(first.images, second.images)
    assert len(load_ood(f"parts={root}", DataOptions(channels=3))) == 18


def refusal(kind, ask, *arguments) -> str:
    with pytest.raises(kind) as caught:
        ask(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_folders_are_named(root, tmp_path):
    nowhere = tmp_path / "nowhere"
    for ask in (check_available, load_ood):
        assert str(nowhere) in refusal(DataUnavailable, ask, f"x={nowhere}", options(root))
    assert "data.folder" in refusal(UserError, load_id, "imagefolder", DataOptions())
    (root / "val").rename(root / "other")
    for ask in (check_available, load_id):
        assert "test or val" in refusal(DataUnavailable, ask, "imagefolder", options(root))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no png" in refusal(UserError, load_ood, f"x={empty}", options(root))


def test_classes_must_be_in_both_splits(root):
    (root / "val" / "surplus").mkdir()
    assert "surplus" in refusal(UserError, load_id, "imagefolder", options(root))
    (root / "val" / "surplus").rmdir()
    (root / "train" / "unfilled").mkdir()
    lacking = refusal(UserError, load_id, "imagefolder", options(root))
    assert "train/unfilled: there is no such class in" in lacking
    (root / "val" / "unfilled").mkdir()
    assert "unfilled: holds no png" in refusal(UserError, load_id, "imagefolder", options(root))
