"""Sets that are read as needed give the batches of those held in memory, whoever makes them."""

import pickle
from dataclasses import dataclass, field

import jax
import numpy as np
import pytest
from PIL import Image

from dream_jax.data import augment
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.images import Images, Patches, RandomCrops, for_training, load_images
from dream_jax.data.registry import load_id
from dream_jax.data.sources import Files, Stored
from dream_jax.decoding.round_trips import write_shares
from dream_jax.errors import UserError
from dream_jax.training.batches import Batches, Stacked, epoch_index
from dream_jax.training.streaming import stream

COUNT, BATCH = 30, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for index in range(COUNT // 2):
                pixels = rng.integers(0, 256, (36 + index, 50, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index:02}.png")
    return root


def train_images(folder, hold_bytes: int):
    options = DataOptions(channels=3, folder=str(folder), hold_bytes=hold_bytes)
    return load_id("imagefolder", options)[0].images


@dataclass
class Counted:
    """A source that counts what is opened."""

    source: Files
    remedy = ""
    opened: list = field(default_factory=list)

    def __len__(self):
        return len(self.source)

    def name(self, row):
        return self.source.name(row)

    def open(self, row):
        self.opened.append(row)
        return self.source.open(row)


def batches(images, workers: int = 0) -> Batches:
    labels = np.arange(COUNT, dtype=np.int32)
    rows = lambda step: epoch_index(COUNT, step, BATCH, seed=3)  # noqa: E731
    return Batches({"images": images, "labels": labels}, rows, workers)


def steps_of(source: Batches, steps: range) -> list[dict]:
    return list(stream(source.at, steps, source.workers))


def assert_equal(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_held_images_are_those_that_are_read(folder):
    held, read = train_images(folder, 2**30), train_images(folder, 0)
    assert held.in_memory and not read.in_memory
    assert (read.shape, len(read), read.nbytes) == (held.shape, len(held), held.held.nbytes)
    array = np.asarray(held)
    mask = np.arange(COUNT) % 7 == 0
    for rows in (slice(None), slice(3, 9), slice(40, 50), 7, -1, np.array([5, 2, 5]), [1, 0], mask):
        for images in (held, read):
            assert images[rows].dtype == np.float32
            np.testing.assert_array_equal(images[rows], array[rows])
            np.testing.assert_array_equal(images.take(np.arange(COUNT))[rows], array[rows])
    rows = np.array([4, 29, 0])
    np.testing.assert_array_equal(read.take(rows)[1:], held.take(rows)[1:])
    assert read.hold(read.nbytes).in_memory and not read.hold(read.nbytes - 1).in_memory


def test_images_of_an_array():
    values = np.random.default_rng(0).integers(0, 256, (6, 5, 5, 1), np.uint8)
    floats = values.astype(np.float32) / 255
    for images in (Images.of(values), Images.of(floats)):
        assert images.shape == values.shape and images.in_memory
        np.testing.assert_array_equal(images, floats)
        np.testing.assert_array_equal(images.pixels(slice(1, 3)), values[1:3])
        crops = for_training(images.take(np.array([5, 1])), "random_resized_crop", 0)
        assert crops.at(np.arange(2), 0).shape == (2, 5, 5, 1)


@pytest.mark.parametrize("augmentation", ["crop_flip", "random_resized_crop"])
def test_batches_of_images_that_are_read_are_those_of_held_ones(folder, augmentation):
    read, held = (
        batches(for_training(train_images(folder, most), augmentation, seed=0))
        for most in (0, 2**30)
    )
    assert not read.fit_on_device
    assert held.fit_on_device == (augmentation == "crop_flip")
    assert_equal(steps_of(read, range(6)), [held.at(step) for step in range(6)])
    assert read.at(0)["images"].dtype == np.uint8


def test_random_crops_are_those_of_the_step_whoever_makes_them_and_after_a_resume(folder):
    images = for_training(train_images(folder, 0), "random_resized_crop", seed=5)
    whole = steps_of(batches(images), range(8))
    assert_equal(whole, [batches(images).at(step) for step in range(8)])
    assert_equal(steps_of(batches(images, workers=2), range(3, 8)), whole[3:])
    row = whole[0]["labels"][0]
    later = next(b for b in whole[4:] if row in b["labels"])  # the next epoch's crop is another
    assert np.any(later["images"][later["labels"] == row][0] != whole[0]["images"][0])
    other = batches(for_training(train_images(folder, 0), "random_resized_crop", seed=6))
    assert np.any(other.at(0)["images"] != whole[0]["images"])


def test_patches_are_those_of_the_step_whoever_makes_them_and_wherever_the_pixels_are(folder):
    read, held = (Patches(train_images(folder, most), 9, seed=5) for most in (0, 2**30))
    whole = steps_of(batches(read), range(6))
    assert whole[0]["images"].shape == (BATCH, 9, 9, 3)
    assert_equal(whole, [batches(held).at(step) for step in range(6)])
    assert_equal(steps_of(batches(read, workers=2), range(3, 6)), whole[3:])
    assert not batches(held).fit_on_device
    own = Patches(held.images, held.images.size, seed=5)  # as RandomCrop of pictures of its size
    padded = np.pad(held.images.pixels(3), ((4, 4), (4, 4), (0, 0)))
    size = held.images.size
    allowed = {padded[y : y + size, x : x + size].tobytes() for y in range(9) for x in range(9)}
    seen = {own.at(np.array([3]), step)[0].tobytes() for step in range(60)}
    assert seen <= allowed and len(seen) > 30


def test_only_the_images_asked_for_are_decoded(folder):
    files = sorted(str(p.relative_to(folder)) for p in folder.glob("train/*/*.png"))
    source = Counted(Files(str(folder), files))
    images = Images(source, np.arange(COUNT), 32, 3)
    images.take(np.arange(10))
    assert source.opened == []
    images[np.array([3, 8])]
    assert sorted(source.opened) == [3, 8]
    source.opened.clear()
    made = stream(batches(images).at, range(100), 0)
    next(made)
    made.close()
    # The batch asked for, those ahead of it, and one that a thread was at.
    assert len(source.opened) <= 6 * BATCH


def test_a_column_of_several_parts(folder):
    read, held = train_images(folder, 0), train_images(folder, 2**30)
    parts = [for_training(read, "random_resized_crop", seed) for seed in (0, 1)]
    rows = np.array([29, 0, 30, 59])
    drawn = Stacked(parts).at(rows, 4)
    np.testing.assert_array_equal(drawn[:2], parts[0].at(np.array([29, 0]), 4))
    np.testing.assert_array_equal(drawn[2:], parts[1].at(np.array([0, 29]), 4))
    for second in (read, held):
        both = Stacked([read, second])
        np.testing.assert_array_equal(both.at(rows, 0), held.pixels(rows % COUNT))
        assert not both.in_memory and len(both) == 2 * COUNT
    assert Stacked([held, held]).in_memory and Stacked([held, held]).nbytes == 2 * held.nbytes


@pytest.mark.parametrize("channels", [1, 3])
def test_stored_rows_are_read_as_they_were_written(tmp_path, channels):
    pixels = np.random.default_rng(1).integers(0, 256, (7, 64, 64, channels), np.uint8)
    path = tmp_path / "rows.npy"
    write_shares(path, pixels.shape, lambda done: np.array_split(pixels[done:], 3))
    stored = pickle.loads(pickle.dumps(Stored(str(path))))
    images = Images(stored, np.arange(7), 64, channels, crop=False)
    np.testing.assert_array_equal(images[:], pixels.astype(np.float32) / 255)
    with pytest.raises(ValueError, match="rows up to 3 came, 4"):
        write_shares(tmp_path / "other.npy", (4, 64, 64, channels), lambda done: [pixels[:3]])
    assert not (tmp_path / "other.npy").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_workers_end_the_run(folder, tmp_path, workers):
    path = tmp_path / "vanishes.png"
    Image.new("RGB", (9, 9)).save(path)
    images, _ = load_images(
        Files(str(tmp_path), [path.name]),
        np.zeros(1, int),
        size=32,
        channels=3,
        hold_bytes=0,
        unreadable="stop",
    )
    path.unlink()
    with pytest.raises(UserError, match=r"vanishes\.png: not a readable image"):
        list(stream(batches(images.take(np.zeros(COUNT, int))).at, range(2), workers))


def test_what_a_worker_raises_can_always_be_sent():
    class Local(Exception):
        """Of a class that no other process can import."""

    def fails(step):
        raise Local("step of no return")

    with pytest.raises(RuntimeError, match="step of no return"):
        list(stream(fails, range(2), 1))


def test_bytes_become_the_floats_of_numpy_on_the_device():
    every = np.arange(256, dtype=np.uint8)
    expected = every.astype(np.float32) / 255
    for to_float in (
        augment.to_float,
        jax.jit(augment.to_float),
        jax.jit(jax.vmap(augment.to_float)),
    ):
        np.testing.assert_array_equal(to_float(every), expected)


def test_augmentations_take_bytes_and_floats():
    image = np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)
    as_float, key = (image / 255).astype(np.float32), jax.random.key(0)
    for name in augment.AUGMENTATIONS:
        found, expected = (augment.augment(name, key, i) for i in (image, as_float))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        if name in ("none", "random_resized_crop"):  # which is made where images are read
            np.testing.assert_array_equal(found, as_float)


def test_random_crops_are_cut_from_the_full_resolution(tmp_path):
    """A part of a large checkerboard of single pixels is grey only where it was shrunk before."""
    fine = 255 * (np.indices((400, 400)).sum(0) % 2).astype(np.uint8)
    Image.fromarray(fine).save(tmp_path / "a.png")
    source = Files(str(tmp_path), ["a.png"])
    for held in (False, True):
        images = Images(source, np.zeros(1, int), 128, 1).hold(held * 2**20)
        crops = RandomCrops(images, seed=0)
        contrasts = [crops.at(np.zeros(1, int), step).std() for step in range(20)]
        assert max(contrasts) > 5 > images.pixels(0).std()
