"""Shifted test sets by name: corruptions, folders of classes, and TFDS sets in families."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream_jax.data import tfds
from dream_jax.data.corruptions import CORRUPTIONS, corrupt
from dream_jax.data.image_sets import DataOptions, ImageSet
from dream_jax.data.images import Images
from dream_jax.data.registry import load_id
from dream_jax.data.shifted import check_shifted, load_shifted, parts
from dream_jax.data.sources import Pixels, to_bytes
from dream_jax.errors import DataUnavailable, UserError

NAMES = ("tench", "hen", "sea lion")
IMAGES = np.random.default_rng(0).random((6, 32, 32, 3)).astype(np.float32)
ID_TEST = ImageSet("pets", Images.of(IMAGES), np.array([0, 1, 2, 0, 1, 2], np.int32), NAMES)


def options(**more) -> DataOptions:
    return DataOptions(**{"channels": 3} | more)


def refusal(kind, ask, *arguments) -> str:
    with pytest.raises(kind) as caught:
        list(ask(*arguments) or ())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def folder(root: Path, classes: dict[str, int]) -> Path:
    """A folder of classes; each image is of its class's grey."""
    for name, grey in classes.items():
        for index in range(2):
            path = root / name / f"{index}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40 + index, 36), (grey,) * 3).save(path)
    return root


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_come_at_five_strengths_with_the_labels_kept(name):
    check_shifted(name, options())
    found = list(load_shifted(name, ID_TEST, options(seed=4)))
    assert [(s.family, s.strength) for s in found] == [(name, s) for s in (1, 2, 3, 4, 5)]
    for _, strength, images in found:
        assert images.name == f"{name}_{strength}" and images.class_names == NAMES
        np.testing.assert_array_equal(images.labels, ID_TEST.labels)
        expected = to_bytes(corrupt(ID_TEST.images[5], name, strength, 4, 5))
        np.testing.assert_array_equal(images.images.pixels(5), expected)
        assert images.images.in_memory


def test_nothing_is_computed_before_it_is_asked_for():
    opened = []

    class Watched(Pixels):
        def open(self, index):
            opened.append(index)
            return super().open(index)

    pixels = to_bytes(IMAGES)
    images = Images(Watched(pixels), np.arange(len(pixels)), 16, 3, crop=False)
    watched = ImageSet("pets", images, ID_TEST.labels, NAMES)
    made = list(load_shifted("noise", watched, options()))
    assert not opened
    _ = made[0].images.images[1]
    assert opened == [1]


def test_streamed_sets_are_corrupted_as_they_are_read(tmp_path):
    for split in ("train", "test"):
        folder(tmp_path / split, {"hen": 60, "tench": 120})
    held, streamed = (
        load_id("imagefolder", options(folder=str(tmp_path), hold_bytes=b))[1] for b in (2**30, 0)
    )
    for one, other in zip(
        load_shifted("occlusion", held, options()),
        load_shifted("occlusion", streamed, options()),
        strict=True,
    ):
        assert not other.images.images.in_memory
        np.testing.assert_array_equal(one.images.images, other.images.images[:])
        np.testing.assert_array_equal(one.images.images[1:3], other.images.images[1:3])


def test_folders_of_classes_with_some_missing_and_some_unknown(tmp_path):
    folder(tmp_path, {"sea_lion": 40, "hen": 80, "aardvark": 200, "zebra": 240})
    name = f"sketches={tmp_path}"
    check_shifted(name, options())
    ((family, strength, found),) = load_shifted(name, ID_TEST, options())
    assert (family, strength, found.name, found.class_names) == ("sketches", 0, "sketches", NAMES)
    assert found.labels.tolist() == [1, 1, 2, 2]
    greys = np.rint(found.images[:][:, 9, 9, 0] * 255)
    np.testing.assert_allclose(greys, [80, 80, 40, 40], atol=1)


def test_wnids_are_renamed_as_the_id_sets_are(tmp_path):
    chosen = {"n01440764": "tench", "n01514859": "hen", "n02077923": "sea lion"}
    folder(tmp_path, {"n01514859": 80, "n01440764": 40, "n01443537": 120})
    ((_, _, found),) = load_shifted(
        f"a={tmp_path}", ID_TEST, options(classes=tuple(chosen.items()))
    )
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_folders_named_by_imagenets_class_indices(tmp_path):
    """As in torchvision and Keras: tench is 0, goldfish 1, hen 8 and sea lion 150."""
    chosen = {"n01440764": "tench", "n01514859": "hen", "n02077923": "sea lion"}
    folder(tmp_path, {"0": 40, "1": 120, "8": 80, "10": 160, "150": 200, "999": 240})
    ((_, _, found),) = load_shifted(
        f"v2={tmp_path}", ID_TEST, options(classes=tuple(chosen.items()))
    )
    assert found.labels.tolist() == [0, 0, 2, 2, 1, 1]  # folders in the order of their names
    greys = np.rint(found.images[:][:, 9, 9, 0] * 255)
    np.testing.assert_allclose(greys, [40, 40, 200, 200, 80, 80], atol=1)


def test_classes_that_are_numbers_are_taken_by_name(tmp_path):
    numbers = ImageSet("imagefolder", IMAGES, ID_TEST.labels, ("0", "1", "8"))
    folder(tmp_path, {"8": 80, "1": 40})
    ((_, _, found),) = load_shifted(f"n={tmp_path}", numbers, options())
    assert found.labels.tolist() == [1, 1, 2, 2]


def test_what_cannot_be_used_is_one_line(tmp_path):
    nowhere = f"x={tmp_path / 'nowhere'}"
    assert "nowhere" in refusal(DataUnavailable, check_shifted, nowhere, options())
    assert "nowhere" in refusal(DataUnavailable, load_shifted, nowhere, ID_TEST, options())
    bare = tmp_path / "bare"
    bare.mkdir()
    assert "no folders" in refusal(UserError, check_shifted, f"x={bare}", options())
    other = folder(tmp_path / "other", {"0": 1, "whale": 3})
    message = refusal(UserError, load_shifted, f"x={other}", ID_TEST, options())
    assert "no class of the ID set" in message and "whale" in message and "tench" in message
    digits = folder(tmp_path / "digits", {"0": 1, "1": 3})  # no indices of ImageNet's classes
    assert "the first 0, 1" in refusal(UserError, load_shifted, f"x={digits}", ID_TEST, options())
    for name in ("fog", "Blur", "x=", "=y", "cifar10_corrupted/fogg", "cifar10_corrupted/fog_6"):
        message = refusal(UserError, check_shifted, name, options(tfds_dir=str(tmp_path)))
        assert repr(name) in message and "occlusion" in message


def test_families_of_cifar10_c():
    all_parts = parts("cifar10_corrupted", options())
    families = {family for family, _ in all_parts}
    assert len(all_parts) == 75 and len(families) == 15
    assert "cifar10_corrupted/speckle_noise" not in families
    fog = [("cifar10_corrupted/fog", strength) for strength in (1, 2, 3, 4, 5)]
    assert set(fog) < set(all_parts)
    assert parts("cifar10_corrupted/fog", options()) == fog
    assert parts("cifar10_corrupted/fog_3", options()) == fog[2:3]
    assert parts("cifar10_corrupted/spatter_5", options()) == [("cifar10_corrupted/spatter", 5)]
    assert parts("svhn_cropped", options()) == [("svhn_cropped", 0)]
    assert parts("imagenet_v2/topimages", options()) == [("imagenet_v2/topimages", 0)]


def test_families_that_are_not_prepared_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "HOST", "http://127.0.0.1:9/tfds-data")
    unprepared = options(tfds_dir=str(tmp_path))
    message = refusal(DataUnavailable, check_shifted, "cifar10_corrupted/fog", unprepared)
    assert "`tfds build cifar10_corrupted/fog_1 " in message


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """TFDS sets: `tiny_pets`, and `tiny_pets_corrupted`, which names no labels, as CIFAR-10-C."""
    import tensorflow_datasets as real

    core, folder = real.core, tmp_path_factory.mktemp("tfds")

    def info(builder, label):
        features = {"image": real.features.Image(shape=(32, 32, 3)), "label": label}
        return core.DatasetInfo(builder=builder, features=real.features.FeaturesDict(features))

    def examples(greys):
        for label, grey in enumerate(greys):
            file = io.BytesIO()
            Image.new("RGB", (32, 32), (grey,) * 3).save(file, "PNG")
            yield label, {"image": io.BytesIO(file.getvalue()), "label": label}

    class TinyPets(core.GeneratorBasedBuilder):
        VERSION = core.Version("1.0.0")

        def _info(self):
            return info(self, real.features.ClassLabel(names=["hen", "tench", "sea_lion"]))

        def _split_generators(self, downloads):
            return {"train": examples([10, 20, 30]), "test": examples([10, 20, 30])}

        def _generate_examples(self):
            raise NotImplementedError

    class TinyPetsCorrupted(core.GeneratorBasedBuilder):
        VERSION = core.Version("1.0.0")
        BUILDER_CONFIGS = [core.BuilderConfig(name=f"dim_{s}") for s in (1, 2)]  # noqa: RUF012

        def _info(self):
            return info(self, real.features.ClassLabel(num_classes=3))

        def _split_generators(self, downloads):
            strength = int(self.builder_config.name[-1])
            return {"test": examples([100 * strength + g for g in (1, 2, 3)])}

        def _generate_examples(self):
            raise NotImplementedError

    for name in ("tiny_pets", "tiny_pets_corrupted/dim_1", "tiny_pets_corrupted/dim_2"):
        tfds.build(name, DataOptions(tfds_dir=str(folder)))
    return folder


def test_tfds_family_has_the_labels_of_its_id_set(prepared):
    chosen = options(
        tfds_dir=str(prepared), classes=tuple({"sea_lion": "sea lion", "hen": "hen"}.items())
    )
    _, id_test = load_id("tiny_pets", chosen)
    assert id_test.class_names == ("hen", "sea lion")
    check_shifted("tiny_pets_corrupted/dim", chosen)
    for name in ("tiny_pets_corrupted/dim", "tiny_pets_corrupted"):
        found = list(load_shifted(name, id_test, chosen))
        assert [s[:2] for s in found] == [("tiny_pets_corrupted/dim", s) for s in (1, 2)]
        for _, strength, images in found:
            greys = np.rint(images.images[:][:, 4, 4, 0] * 255).astype(int).tolist()
            order = np.argsort(greys)
            assert sorted(greys) == [100 * strength + 1, 100 * strength + 3]
            assert images.labels[order].tolist() == [0, 1]


def test_tfds_with_names_are_taken_by_name(prepared):
    ((_, _, found),) = load_shifted("tiny_pets", ID_TEST, options(tfds_dir=str(prepared)))
    order = np.argsort(found.images[:][:, 4, 4, 0])
    assert found.labels[order].tolist() == [1, 0, 2]


def test_unnamed_labels_need_an_id_set_with_an_order(prepared):
    chosen = options(tfds_dir=str(prepared))
    message = refusal(UserError, load_shifted, "tiny_pets_corrupted/dim_1", ID_TEST, chosen)
    assert "'pets' is not a TFDS set" in message
