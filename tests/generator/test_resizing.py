"""The ways in which pictures are resized, against Pillow and plain formulas."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator
from dream_jax.generator.resizing import WAYS, resize, ways_of

SIZES = [((16, 16), (8, 8)), ((17, 12), (5, 7)), ((8, 9), (13, 20)), ((42, 10), (12, 3))]
HOW = (*WAYS, "mixed")


def noise(size, count=3, channels=2) -> np.ndarray:
    return np.random.default_rng(0).random((count, *size, channels), np.float32)


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.key_data(jax.random.split(jax.random.key(seed), count))


def by_pillow(images, size, how) -> np.ndarray:
    """Each channel as an image of floats."""
    height, width = size
    channels = np.moveaxis(images, -1, 1)
    resized = [
        [np.asarray(Image.fromarray(c).resize((width, height), how)) for c in image]
        for image in channels
    ]
    return np.moveaxis(np.asarray(resized), 1, -1)


def by_formula(images, size) -> np.ndarray:
    """PyTorch's definition for align_corners=False: the centre of a new pixel among the old ones.

    One outside of all old centres is that of the border.
    """
    for axis, new in ((1, size[0]), (2, size[1])):
        old = images.shape[axis]
        place = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, old - 1)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(4)])
        images = (1 - share) * images.take(low, axis) + share * images.take(high, axis)
    return images


EXPECTED = {
    "antialiased": lambda images, size: by_pillow(images, size, Image.Resampling.BILINEAR),
    "bilinear": by_formula,
    "nearest": lambda images, size: by_pillow(images, size, Image.Resampling.NEAREST),
}


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("how", WAYS)
def test_each_way_is_what_pillow_or_the_formula_gives(how, old, new):
    images = noise(old)
    found = jax.jit(lambda x: resize(x, new, how, None))(images)
    np.testing.assert_allclose(found, EXPECTED[how](images, new), atol=2e-6)


def test_ways_differ_where_pictures_become_smaller():
    images = noise((16, 16))
    found = {how: np.asarray(resize(images, (6, 6), how, keys(3))) for how in WAYS}
    spread = {how: image.std() for how, image in found.items()}
    assert spread["antialiased"] < spread["bilinear"] < spread["nearest"]
    assert spread["nearest"] == pytest.approx(images.std(), rel=0.15)


@pytest.mark.parametrize("how", HOW)
def test_pictures_of_the_right_size_are_left_as_they_are(how):
    images = noise((8, 6))
    assert np.array_equal(resize(images, (8, 6), how, keys(3)), images)


def test_mixed_takes_one_way_for_each_picture_by_its_key_alone():
    images, own = noise((16, 16), 30), keys(30)
    ways = np.asarray(ways_of(own))
    each = {how: np.asarray(resize(images, (5, 5), how, own)) for how in HOW}
    for place, way in enumerate(ways):
        assert np.array_equal(each["mixed"][place], each[[*WAYS][way]][place])
    order = np.random.default_rng(1).permutation(30)[:7]
    others = resize(images[order], (5, 5), "mixed", own[order])
    # XLA may sum the products of batches of different sizes in another order.
    np.testing.assert_allclose(others, each["mixed"][order], rtol=0, atol=1e-6)
    counts = np.bincount(np.asarray(ways_of(keys(3000, seed=1))))
    assert len(counts) == 3 and np.all(np.abs(counts - 1000) < 5 * 26)  # standard deviation 26


SAMPLING = Sampling("ddim", steps=1, guidance=1.0, batch_size=3, vae_batch_size=2)


def decoded(toy, how: str, shape, rows=slice(None), **changes) -> np.ndarray:
    """Pictures of one prompt from different noise."""
    sampling = dataclasses.replace(SAMPLING, resize=how, **changes)
    own = jax.random.split(jax.random.key(3), 9)[rows]
    ids = np.tile(toy.prompt_ids(toy.name_ids("a picture of the dog")), (len(own), 1))
    return np.concatenate(list(toy.decode(ids, None, own, sampling, shape)))


@pytest.fixture(scope="module")
def mixed(toy) -> np.ndarray:
    return decoded(toy, "mixed", (8, 8, 1))


def test_decoded_pictures_are_resized_as_they_are_told(toy, mixed):
    whole = decoded(toy, "antialiased", None)
    ways = [[*WAYS][way] for way in ways_of(jax.random.key_data(jax.random.split(
        jax.random.key(3), 9)))]  # fmt: skip
    assert set(ways) == set(WAYS)
    expected = {how: EXPECTED[how](whole, (8, 8)) for how in WAYS}
    nearest = decoded(toy, "nearest", (8, 8, 1))
    np.testing.assert_allclose(nearest, expected["nearest"], atol=1e-5)
    for place, way in enumerate(ways):
        np.testing.assert_allclose(mixed[place], expected[way][place], atol=1e-5)
    some = decoded(toy, "mixed", (8, 8, 1), slice(4, 7), batch_size=2, vae_batch_size=1)
    np.testing.assert_allclose(some, mixed[4:7], atol=1e-5)


def decode_mixed(folder: str) -> dict[str, np.ndarray]:
    return {"images": decoded(load_generator(folder), "mixed", (8, 8, 1), batch_size=4)}


def test_the_way_of_a_picture_does_not_depend_on_the_devices(mixed, toy_folder, on_devices):
    four = on_devices(4, decode_mixed, toy_folder)["images"]
    np.testing.assert_allclose(four, mixed, atol=1e-4)
