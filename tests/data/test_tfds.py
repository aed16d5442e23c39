"""Sets by their TFDS name: a small one that the test prepares, and CIFAR-10 if it is there."""

import io
import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from dream_jax.data import sources, tfds
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import check_available, load_id, load_ood
from dream_jax.errors import DataUnavailable, UserError

SIZES = {"train": 12, "validation": 5, "test": 6}
DISC, SQUARE = 0, 1


def picture(split: str, index: int) -> np.ndarray:
    """Of one grey per image; sizes differ."""
    return np.full((20 + index, 31, 3), 20 * index + len(split), np.uint8)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with the set `tiny_shapes` as TFDS prepares it; without network or tensorflow."""
    import tensorflow_datasets as real

    class TinyShapes(real.core.GeneratorBasedBuilder):
        VERSION = real.core.Version("1.2.0")

        def _info(self):
            features = {
                "image": real.features.Image(shape=(None, None, 3)),
                "label": real.features.ClassLabel(names=["red_disc", "square"]),
            }
            return real.core.DatasetInfo(
                builder=self, features=real.features.FeaturesDict(features)
            )

        def _split_generators(self, downloads):
            return {split: self._generate_examples(split, n) for split, n in SIZES.items()}

        def _generate_examples(self, split, count):
            for index in range(count):
                file = io.BytesIO()
                Image.fromarray(picture(split, index)).save(file, "PNG")
                label = -1 if split == "test" else index % 2
                yield index, {"image": io.BytesIO(file.getvalue()), "label": label}

    folder = tmp_path_factory.mktemp("tfds")
    options = DataOptions(tfds_dir=str(folder))
    assert tfds.known("tiny_shapes", options)
    tfds.build("tiny_shapes", options)
    return folder


def options(folder, **more) -> DataOptions:
    return DataOptions(**{"channels": 3, "tfds_dir": str(folder)} | more)


def greys(images) -> list[int]:
    return sorted(np.rint(images[:, 7, 7, 0] * 255).astype(int).tolist())


def test_id_set_with_names_and_the_split_that_has_labels(prepared):
    train, test = load_id("tiny_shapes", options(prepared))
    assert train.class_names == test.class_names == ("red disc", "square")
    assert train.images.shape == (12, 32, 32, 3) and train.images[0].dtype == np.float32
    assert greys(train.images) == [20 * i + 5 for i in range(12)]
    index = (np.rint(train.images[:][:, 0, 0, 0] * 255).astype(int) - 5) // 20
    np.testing.assert_array_equal(train.labels, index % 2)
    assert greys(test.images) == [20 * i + 10 for i in range(5)]  # validation: test has no labels


def test_class_names_rename_and_select(prepared):
    chosen = options(prepared, classes=tuple({"square": "box"}.items()))
    train, test = load_id("tiny_shapes", chosen)
    assert train.class_names == ("box",) and (len(train), len(test)) == (6, 2)
    assert not train.labels.any()
    assert greys(train.images) == [20 * i + 5 for i in range(1, 12, 2)]


def test_ood_set_is_a_part_of_the_test_split(prepared):
    ood = load_ood("tiny_shapes", options(prepared, channels=1, count=4))
    assert ood.images.shape == (4, 32, 32, 1) and not len(ood.labels)
    assert set(greys(ood.images)) <= {20 * i + 4 for i in range(6)}


def test_streamed_sets_are_the_held_ones(prepared):
    for held, streamed in zip(
        load_id("tiny_shapes", options(prepared)),
        load_id("tiny_shapes", options(prepared, hold_bytes=0)),
        strict=True,
    ):
        assert not isinstance(streamed.images, np.ndarray)
        np.testing.assert_array_equal(streamed.images[:], held.images)
        np.testing.assert_array_equal(streamed.labels, held.labels)


@pytest.mark.parametrize("at_once", [1, 5, 12])
def test_labels_are_read_some_at_a_time(prepared, monkeypatch, at_once):
    expected = [train.labels for train in load_id("tiny_shapes", options(prepared))]
    monkeypatch.setattr(sources, "AT_ONCE", at_once)
    for labels, same in zip(expected, load_id("tiny_shapes", options(prepared)), strict=True):
        np.testing.assert_array_equal(labels, same.labels)


def test_a_damaged_record_costs_no_other(prepared, tmp_path):
    """Several are read at once, and a damaged one makes that fail for all of them."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    [file] = tmp_path.rglob("*-test.array_record*")
    content = file.read_bytes()
    file.write_bytes(content.replace(b"IHDR", b"ihdr", 3).replace(b"ihdr", b"IHDR", 2))
    records, _ = tfds.ood_rows("tiny_shapes", options(tmp_path))

    def whole(index: int) -> bool:
        try:
            return records.examples[index] is not None
        except RuntimeError:
            return False

    kept = [index for index in range(len(records)) if whole(index)]
    assert len(kept) == 5
    assert records.fetch(list(range(6))) is records
    assert sorted(records.fetch(kept).examples) == kept
    ood = load_ood("tiny_shapes", options(tmp_path, unreadable="skip"))
    files = [io.BytesIO(records.examples[index]["image"]) for index in kept]
    assert greys(ood.images) == sorted(Image.open(file).getpixel((0, 0))[0] for file in files)
    message = refusal(UserError, load_ood, "tiny_shapes", options(tmp_path))
    assert "1 of 6 images of its set are unreadable" in message


def refusal(kind, ask, *arguments) -> str:
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        ask(*arguments)
    assert time.monotonic() - start < 15
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["cifar100", "dtd", "cifar10_corrupted/gaussian_noise_1"])
def test_what_cannot_be_prepared_says_so_within_15_seconds(tmp_path, monkeypatch, name):
    # A port on this machine at which nothing listens, as offline.
    monkeypatch.setattr(tfds, "HOST", "http://127.0.0.1:9/tfds-data")
    message = refusal(DataUnavailable, check_available, name, options(tmp_path))
    assert f"`tfds build {name} --file_format=array_record`" in message
    assert str(tmp_path / name.split("/")[0]) in message
    assert "tensorflow" in message


def test_a_host_that_is_silent_is_given_up(monkeypatch):
    import socket

    monkeypatch.setattr(tfds, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert not tfds.reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert time.monotonic() - start < 3


def test_a_failed_preparation_is_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    message = refusal(DataUnavailable, tfds.build, "tiny_shapes", options(blocked))
    assert "tiny_shapes" in message and "tfds build" in message


@pytest.mark.parametrize("name", ["cifar1000", "cifar10_corrupted/fog_9", "Cifar 10", "x=", "../x"])
def test_unknown_names_are_refused(tmp_path, name):
    for ask in (load_ood, check_available):
        assert repr(name) in refusal(UserError, ask, name, options(tmp_path))


@pytest.fixture
def tfds_dir():
    folder = os.environ.get("TFDS_DATA_DIR", "")
    if not os.path.isdir(os.path.join(folder, "cifar10")):
        pytest.skip("TFDS_DATA_DIR names no folder with cifar10")
    return folder


def test_cifar10(tfds_dir):
    train, test = load_id(
        "cifar10", options(tfds_dir, hold_bytes=0, classes=tuple({"cat": "cat"}.items()))
    )
    assert train.images.shape == (5000, 32, 32, 3) and test.images.shape == (1000, 32, 32, 3)
    assert train.class_names == ("cat",)
    sample = train.images[:50]
    assert sample.max() > 0.9 and 0.3 < sample.mean() < 0.6
    ood = load_ood("cifar10", options(tfds_dir, count=20))
    assert ood.images.shape == (20, 32, 32, 3)
