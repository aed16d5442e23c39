"""Sets that are read as needed give the batches of those held in memory, whoever makes them."""

import pickle
from dataclasses import dataclass, field

import jax
import numpy as np
import pytest
from PIL import Image

from dream_jax.data import augment
from dream_jax.data.images import (
    Files,
    Stored,
    StreamedImages,
    for_training,
    load_images,
    subset,
)
from dream_jax.data.registry import DataOptions, load_id
from dream_jax.errors import UserError
from dream_jax.files import write_rows
from dream_jax.training.loop import Batches, Stacked, epoch_index
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


def test_indexing_is_that_of_the_array(folder):
    held, streamed = train_images(folder, 2**30), train_images(folder, 0)
    assert isinstance(held, np.ndarray) and isinstance(streamed, StreamedImages)
    assert (streamed.shape, len(streamed)) == (held.shape, len(held))
    for rows in (slice(None), slice(3, 9), slice(40, 50), 7, -1, np.array([5, 2, 5]), [1, 0]):
        found = streamed[rows]
        assert found.dtype == held.dtype
        np.testing.assert_array_equal(found, held[rows])
    rows = np.array([4, 29, 0])
    np.testing.assert_array_equal(subset(streamed, rows)[1:], subset(held, rows)[1:])


def test_streamed_batches_are_the_held_ones(folder):
    streamed = batches(for_training(train_images(folder, 0), "crop_flip", seed=0))
    held = batches(train_images(folder, 2**30))
    assert not streamed.fit_on_device and held.fit_on_device
    for step, batch in enumerate(steps_of(streamed, range(6))):
        assert batch["images"].dtype == np.uint8
        expected = held.at(step)
        np.testing.assert_array_equal(batch["images"].astype(np.float32) / 255, expected["images"])
        np.testing.assert_array_equal(batch["labels"], expected["labels"])


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


def test_only_the_images_asked_for_are_decoded(folder):
    files = sorted(str(p.relative_to(folder)) for p in folder.glob("train/*/*.png"))
    source = Counted(Files(str(folder), files))
    images = StreamedImages(source, np.arange(COUNT), 32, 3)
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


def test_a_column_of_several_streamed_parts(folder):
    images = train_images(folder, 0)
    parts = [for_training(images, "random_resized_crop", seed) for seed in (0, 1)]
    rows = np.array([29, 0, 30, 59])
    drawn = Stacked(parts).draw(rows, 4)
    np.testing.assert_array_equal(drawn[:2], parts[0].draw(np.array([29, 0]), 4))
    np.testing.assert_array_equal(drawn[2:], parts[1].draw(np.array([0, 29]), 4))
    np.testing.assert_array_equal(Stacked([images, images])[rows], images[rows % COUNT])
    with pytest.raises(TypeError, match="bytes and floats"):
        Stacked([images, images[:]]).draw(rows, 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_stored_rows_are_read_as_they_were_written(tmp_path, channels):
    pixels = np.random.default_rng(1).integers(0, 256, (7, 64, 64, channels), np.uint8)
    path = tmp_path / "rows.npy"
    write_rows(path, pixels.shape, np.array_split(pixels, 3))
    stored = pickle.loads(pickle.dumps(Stored(str(path))))
    images = StreamedImages(stored, np.arange(7), 64, channels, crop=False)
    np.testing.assert_array_equal(images[:], pixels.astype(np.float32) / 255)
    with pytest.raises(ValueError, match="rows up to 3 came, 4"):
        write_rows(tmp_path / "other.npy", (4, 64, 64, channels), [pixels[:3]])
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


def test_crops_made_while_reading_are_not_made_again_on_the_device():
    image = np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)
    key = jax.random.key(0)
    for name in ("none", "random_resized_crop"):
        np.testing.assert_allclose(augment.augment(name, key, image), image / 255, atol=1e-6)
    as_float = (image / 255).astype(np.float32)
    cropped = augment.augment("random_resized_crop", key, as_float)
    assert np.abs(np.asarray(cropped) - as_float).max() > 0.1
    np.testing.assert_allclose(
        augment.augment("crop_flip", key, image), augment.crop_flip(key, as_float), atol=1e-6
    )
