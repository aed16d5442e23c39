"""Augmentations on the device: ranges, keys, and what each may change."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from dream_jax.data.augment import (
    AUGMENTATIONS,
    CUTS,
    affine,
    augment_patch,
    crop_flip,
    degrade,
    shift_flip,
    zoom,
)

KEYS = jax.random.split(jax.random.key(0), 200)
IMAGE = np.random.default_rng(0).random((20, 24, 3)).astype(np.float32)


def over_keys(function, image=IMAGE, keys=KEYS) -> np.ndarray:
    """The image augmented with each of the keys."""
    return np.asarray(jax.jit(jax.vmap(function, in_axes=(0, None)))(keys, image))


DEGRADE = jax.jit(jax.vmap(degrade, in_axes=(0, None, None)))


def degraded(share: float, image=IMAGE) -> np.ndarray:
    return np.asarray(DEGRADE(KEYS, image, share))


@pytest.mark.parametrize("function", [*AUGMENTATIONS.values(), lambda k, x: degrade(k, x, 0.5)])
@pytest.mark.parametrize("shape", [(20, 24, 3), (9, 9, 1)])
def test_shape_and_range_stay_and_the_key_decides(function, shape):
    image = np.random.default_rng(1).random(shape).astype(np.float32)
    out = over_keys(function, image, KEYS[:8])
    assert out.shape == (8, *shape) and out.dtype == np.float32
    assert out.min() >= 0 and out.max() <= 1 + 1e-6
    assert np.array_equal(out, over_keys(function, image, KEYS[:8]))
    alone = over_keys(function, image, KEYS[3:4])
    np.testing.assert_allclose(alone[0], out[3], atol=1e-6)


def test_none_changes_nothing():
    assert np.array_equal(AUGMENTATIONS["none"](KEYS[0], IMAGE), IMAGE)


@pytest.mark.parametrize(
    ("function", "most", "mode"), [(crop_flip, 4, "constant"), (shift_flip, 2, "reflect")]
)
def test_only_shifts_and_flips(function, most, mode):
    padded = np.pad(IMAGE, ((most, most), (most, most), (0, 0)), mode=mode)
    places = 2 * most + 1
    crops = [padded[i : i + 20, j : j + 24] for i in range(places) for j in range(places)]
    allowed = np.stack([*crops, *(crop[:, ::-1] for crop in crops)])
    found = over_keys(function)
    names = [int(np.argmin(np.abs(allowed - image).sum((1, 2, 3)))) for image in found]
    assert np.array_equal(found, allowed[names])
    assert 70 <= sum(name >= len(crops) for name in names) <= 130  # of 200, half are flipped
    shifts = {name % len(crops) for name in names}
    assert {s // places for s in shifts} == {s % places for s in shifts} == set(range(places))


def test_affine_is_small_and_keeps_channels_alike():
    """The centre of mass of a blob moves by up to its shift of 2 pixels, its area by 20 %."""
    rows, columns = np.mgrid[:32, :32]
    blob = np.exp(-((rows - 15.5) ** 2 + (columns - 15.5) ** 2) / 18).astype(np.float32)
    out = over_keys(affine, np.stack([blob, 0.5 * blob], -1))
    np.testing.assert_allclose(out[..., 1], 0.5 * out[..., 0], atol=1e-6)
    centres = np.array([ndimage.center_of_mass(image) for image in out[..., 0]])
    moved = np.abs(centres - 15.5).max(1)
    assert moved.max() < 2.0 * 1.2 * 1.2 and moved.max() > 1.5
    areas = out[..., 0].sum((1, 2)) / blob.sum()
    assert 0.78 < areas.min() < 0.9 and 1.1 < areas.max() < 1.25


def test_affine_is_black_outside():
    out = over_keys(affine, np.ones((16, 16, 1), np.float32))
    assert np.median(out) == pytest.approx(1) and out.min() == 0


def test_degrade_of_no_share_is_the_identity():
    assert np.array_equal(degraded(0.0), np.broadcast_to(IMAGE, (200, 20, 24, 3)))


def test_degrade_changes_the_share_asked_for():
    changed = lambda share: np.mean(np.any(degraded(share) != IMAGE, axis=(1, 2, 3)))  # noqa: E731
    assert changed(1.0) == 1
    assert abs(changed(0.3) - 0.3) < 0.13  # four standard deviations


def test_degrade_dims_to_no_less_than_seven_tenths():
    """Blur and noise keep the mean of a flat grey image, away from its edges."""
    out = degraded(1.0, np.full((20, 20, 1), 0.6, np.float32))
    means = out[:, 4:-4, 4:-4].mean((1, 2, 3)) / 0.6
    assert 0.67 < means.min() < 0.75 and 0.95 < means.max() < 1.03


def test_degrade_adds_noise_of_up_to_a_tenth():
    out = degraded(1.0, np.full((20, 20, 1), 0.6, np.float32))
    deviations = out[:, 4:-4, 4:-4].std((1, 2, 3))
    assert deviations.min() < 0.01 and 0.08 < deviations.max() < 0.12


def test_degrade_blurs_by_up_to_one_pixel():
    """A bright line is spread as by SciPy's Gaussians of 0 to 1 pixel."""
    image = np.zeros((33, 33, 1), np.float32)
    image[:, 16] = 1
    profile = degraded(1.0, image)[:, 5:-5, :, 0].mean(1)  # across the line, noise averaged
    heights = profile[:, 16] / profile[:, 14:19].sum(1)
    line = np.eye(33)[16]
    lowest = ndimage.gaussian_filter1d(line, 1.0).max()
    assert heights.max() > 0.85
    assert lowest - 0.15 < heights.min() < lowest + 0.15


def test_zoom_by_one_changes_nothing():
    np.testing.assert_allclose(zoom(KEYS[0], IMAGE, 1.0), IMAGE, atol=1e-6)


def test_zoom_shows_a_part_of_the_image():
    """On a ramp, an enlarged part is a flatter ramp within the range of the whole."""
    ramp = np.broadcast_to(np.linspace(0, 1, 32, dtype=np.float32)[None, :, None], (32, 32, 1))
    for out in over_keys(lambda k, x: zoom(k, x, 4.0), ramp)[:, 16, 4:-4, 0]:
        steps = np.diff(out) * 31
        np.testing.assert_allclose(steps, steps[0], atol=1e-3)
        assert 0.25 - 1e-3 <= steps[0] <= 1 + 1e-3
        assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_patch_is_flipped_or_moved_and_not_cut_again(name):
    found = over_keys(lambda key, image: augment_patch(name, key, image))
    if name in CUTS:
        flipped = (found == IMAGE[:, ::-1]).all((1, 2, 3))
        assert 60 < flipped.sum() < 140
        assert (found[~flipped] == IMAGE).all()
    else:
        np.testing.assert_allclose(found, over_keys(AUGMENTATIONS[name]), atol=1e-6)
