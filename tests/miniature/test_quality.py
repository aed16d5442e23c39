"""Measures of a generator's pictures, against plain computations."""

import numpy as np
import scipy.linalg

from dream_jax.miniature.quality import frechet_distance, legibility, nearest


def test_frechet_distance_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    second = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 1
    covariances = np.cov(first.T), np.cov(second.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    means = np.sum((first.mean(0) - second.mean(0)) ** 2)
    expected = means + np.trace(covariances[0] + covariances[1] - 2 * root)
    np.testing.assert_allclose(frechet_distance(first, second), expected, rtol=1e-9)
    assert abs(frechet_distance(first, first[::-1])) < 1e-9
    np.testing.assert_allclose(frechet_distance(first, first + 2), 20, rtol=1e-9)


def test_legibility_is_a_share_for_each_class():
    logits = np.eye(3)[[0, 0, 1, 2, 2]]
    assert legibility(logits, np.array([0, 1, 1, 2, 2])) == {0: 1.0, 1: 0.5, 2: 1.0}


def test_the_nearest_image_and_its_difference():
    images = np.random.default_rng(0).random((6, 4, 4, 3)).astype(np.float32)
    found, distance = nearest(images[[4, 2]] + 0.25 * np.float32([[[[1]]], [[[0]]]]), images)
    assert list(found) == [4, 2]
    np.testing.assert_allclose(distance, [0.25, 0], atol=1e-6)
