"""Each corruption against what SciPy, NumPy or geometry says of it; its strengths; its keys."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from dream_jax.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt, corrupted
from dream_jax.data.images import Images
from dream_jax.data.sources import to_bytes

SHAPES = [(32, 32, 1), (64, 48, 3)]
IMAGES = np.random.default_rng(0).random((12, 40, 40, 3)).astype(np.float32)


def amount(name: str, strength: int) -> float:
    return CORRUPTIONS[name][1][strength - 1]


def blob(height: int, width: int) -> np.ndarray:
    """A bright ellipse, leaning, off the centre: (height, width, 1)."""
    rows, columns = np.mgrid[:height, :width] - np.array([height, width])[:, None, None] / 2
    slanted = (columns - 1 - 0.4 * rows) / (0.09 * width)
    return np.exp(-(((rows + 1) / (0.1 * height)) ** 2) - slanted**2)[..., None]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_range_shape_and_growing_distance(name, shape):
    """Mean squared distance from images like digits grows with the strength."""
    images = np.stack([np.broadcast_to(np.roll(blob(*shape[:2]), s, 1), shape) for s in range(10)])
    distances = []
    for strength in STRENGTHS:
        changed = np.stack([corrupt(image, name, strength, 0, i) for i, image in enumerate(images)])
        assert changed.shape == images.shape and changed.dtype == np.float32
        assert changed.min() >= 0 and changed.max() <= 1
        distances.append(np.mean((changed - images) ** 2))
    assert np.all(np.diff(distances) > 0) and distances[0] > 1e-5


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_draws_depend_on_seed_strength_and_index_only(name):
    images = Images.of(IMAGES)
    whole = corrupted(images, name, 3, seed=1)
    rows = np.array([5, 2, 11])
    np.testing.assert_array_equal(whole[rows], whole[:][rows])
    np.testing.assert_array_equal(whole.pixels(-1), to_bytes(corrupt(images[11], name, 3, 1, 11)))
    unheld = dataclasses.replace(images, held=None)
    np.testing.assert_array_equal(corrupted(unheld, name, 3, seed=1)[4:6], whole[4:6])
    assert len(whole) == 12 and whole.shape == IMAGES.shape
    first = images[0]
    own, *others = (
        corrupt(first, name, 3, *key) for key in ((1, 0), (2, 0), (1, 1), (1, 2), (1, 3), (1, 4))
    )
    alike = [np.array_equal(other, own) for other in others]
    assert all(alike) if name in ("blur", "contrast") else not all(alike)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_noise_has_its_deviation(strength):
    """At middle grey, what is clipped is known: compared with clipped normal numbers."""
    grey = np.full((200, 200, 1), 0.5, np.float32)
    found = corrupt(grey, "noise", strength, 0, 0) - 0.5
    normal = np.random.default_rng(3).normal(0, amount("noise", strength), 40_000).clip(-0.5, 0.5)
    assert abs(found.mean()) < 0.01
    assert found.std() == pytest.approx(normal.std(), rel=0.02)
    correlation = np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1]
    assert abs(correlation) < 0.02


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_scipys_channel_by_channel(strength, shape):
    image = np.random.default_rng(1).random(shape).astype(np.float32)
    sigma = amount("blur", strength) * shape[0] / 32
    rows = ndimage.gaussian_filter1d(image, sigma, axis=0)
    expected = ndimage.gaussian_filter1d(rows, sigma, axis=1)
    np.testing.assert_allclose(corrupt(image, "blur", strength, 0, 0), expected, atol=1e-5)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_shear_keeps_mass_and_moves_the_moments_as_the_affine_map_does(strength):
    """x → x ± s y: the covariance C becomes A C Aᵀ, and the mass stays."""
    image = 0.9 * blob(96, 96)
    grid = np.stack(np.meshgrid(np.arange(96), np.arange(96)), -1).reshape(-1, 2) - 47.5

    def moments(values):
        weights = values.ravel() / values.sum()
        mean = weights @ grid
        return mean, (grid - mean).T * weights @ (grid - mean)

    mean, covariance = moments(image)
    sides = set()
    for index in range(8):
        changed = corrupt(image, "shear", strength, 0, index)
        assert changed.sum() == pytest.approx(image.sum(), rel=1e-3)
        found_mean, found = moments(changed)
        side = -np.sign(found[0, 1] - covariance[0, 1])
        affine = np.array([[1, -side * amount("shear", strength)], [0, 1]])
        np.testing.assert_allclose(found, affine @ covariance @ affine.T, rtol=0.02, atol=0.5)
        np.testing.assert_allclose(found_mean, affine @ mean, atol=0.05)
        sides.add(side)
    assert sides == {-1.0, 1.0}


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("height", [32, 64])
def test_occlusion_covers_one_square_of_its_area(strength, height):
    image = np.ones((height, height, 3), np.float32)
    side = amount("occlusion", strength) * height // 32
    corners = set()
    for index in range(20):
        covered = corrupt(image, "occlusion", strength, 0, index) != 1
        assert covered.sum() == 3 * side**2
        rows, columns = np.nonzero(covered[..., 0])
        assert np.ptp(rows) == np.ptp(columns) == side - 1
        corners.add((rows.min(), columns.min()))
    assert len(corners) > 10
    assert set(np.unique(corrupt(image, "occlusion", strength, 0, 0))) == {0.5, 1.0}


@pytest.mark.parametrize("strength", STRENGTHS)
def test_contrast_shrinks_about_the_mean_of_each_channel(strength):
    image = IMAGES[0] * np.array([0.3, 0.6, 1.0], np.float32)
    changed = corrupt(image, "contrast", strength, 0, 0)
    for channel in range(3):
        assert changed[..., channel].mean() == pytest.approx(image[..., channel].mean(), abs=1e-5)
        ratio = changed[..., channel].std() / image[..., channel].std()
        assert ratio == pytest.approx(amount("contrast", strength), rel=1e-4)
        assert np.corrcoef(changed[..., channel].ravel(), image[..., channel].ravel())[0, 1] > 0.999
