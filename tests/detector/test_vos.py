"""VOS: the Gaussians, their least likely samples, and the energy against NumPy and SciPy."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import chi2, multivariate_normal

from dream_jax.detector.inputs import Outputs
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.methods.base import Own
from dream_jax.detector.methods.dream_ood import phi
from dream_jax.detector.methods.vos import (
    RIDGE,
    fit_gaussians,
    uncertainty_branch,
    virtual_outliers,
    weighted_energy,
)
from dream_jax.detector.options import resolve
from dream_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGE = (32, 32, 1)
ROWS = (
    RNG.normal(size=(3, 200, 6)) @ RNG.normal(size=(6, 6)) + RNG.normal(size=(3, 1, 6)) * 4
).astype(np.float32)


def numpy_gaussians() -> tuple[np.ndarray, np.ndarray]:
    rows = ROWS.astype(np.float64)
    within = np.mean([np.cov(own.T, bias=True) for own in rows], axis=0)
    return rows.mean(1), within + RIDGE * np.eye(6)


def test_gaussians_have_class_means_and_the_pooled_covariance():
    means, factor = fit_gaussians(ROWS)
    expected_means, covariance = numpy_gaussians()
    np.testing.assert_allclose(means, expected_means, atol=1e-5)
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-4, atol=1e-4)
    assert np.all(np.triu(factor, 1) == 0)


def test_gaussians_of_a_degenerate_class_can_be_drawn_from():
    rows = np.zeros((2, 5, 4), np.float32)
    _, factor = fit_gaussians(rows)
    np.testing.assert_allclose(factor, np.sqrt(RIDGE) * np.eye(4), rtol=1e-5)


@pytest.mark.parametrize("label", range(3))
def test_virtual_outliers_are_the_least_likely_samples(label):
    means, factor = fit_gaussians(ROWS)
    key = jax.random.key(label)
    outliers = virtual_outliers(key, means[label], factor, candidates=2000, keep=7)
    mean, covariance = numpy_gaussians()
    gaussian = multivariate_normal(mean[label], covariance)
    # Brute force over the same samples, which are all kept when as many are asked for.
    samples = np.asarray(virtual_outliers(key, means[label], factor, candidates=2000, keep=2000))
    least = np.argsort(gaussian.logpdf(samples))[:7]
    np.testing.assert_allclose(outliers, samples[least], atol=1e-4)
    # In the tail: farther out than 99 % of the Gaussian, while the samples are all over it.
    distance = gaussian_distance(samples, mean[label], covariance)
    np.testing.assert_allclose(np.mean(distance < chi2(6).ppf(0.5)), 0.5, atol=0.06)
    tail = gaussian_distance(np.asarray(outliers), mean[label], covariance)
    assert np.all(tail > chi2(6).ppf(0.99))


def gaussian_distance(points, mean, covariance) -> np.ndarray:
    """Squared Mahalanobis distances."""
    centred = points - mean
    return np.einsum("nd,de,ne->n", centred, np.linalg.inv(covariance), centred)


def test_weighted_energy():
    logits = RNG.normal(size=(9, 5)) * 30
    weights = np.array([0.3, -2.0, 1.7, 0.0, 0.4])
    positive = np.maximum(weights, 0)  # a weight below 0 counts as none
    expected = np.log(np.sum(positive * np.exp(logits), axis=1))
    np.testing.assert_allclose(
        weighted_energy(np.float32(logits), np.float32(weights)), expected, rtol=1e-5
    )
    ones = weighted_energy(np.float32(logits), np.ones(5, np.float32))
    np.testing.assert_allclose(ones, logsumexp(logits, axis=1), rtol=1e-5)
    far = weighted_energy(np.float32([[2000, 1990], [-2000, -1990]]), np.float32([1, 1]))
    np.testing.assert_allclose(far, [2000, -1990])
    gradient = jax.grad(lambda w: weighted_energy(np.float32(logits), w).sum())(np.float32(weights))
    share = np.exp(logits) / np.sum(positive * np.exp(logits), axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, np.where(weights > 0, share.sum(0), 0), rtol=1e-4)


def test_the_certainty_is_phis_logit_of_the_weighted_energy():
    logits = RNG.normal(size=(9, 3)).astype(np.float32)
    kernel, bias = np.float32([[-0.4, 0.7]]), np.float32([0.2, -0.1])
    params = {"phi": {"layer0": {"kernel": kernel, "bias": bias}}, "weights": np.float32([2] * 3)}
    outputs = Outputs(logits, logits)
    found = TRAININGS["vos"].outputs(Own(params, {}), outputs, {"slope": "free"})
    energy = logsumexp(logits, axis=1)
    np.testing.assert_allclose(found.certainty, 1.1 * (energy + np.log(2)) - 0.3, rtol=1e-4)
    assert found._replace(certainty=None) == outputs


@pytest.mark.parametrize("hidden", [0, 4])
def test_a_rising_slope_whatever_is_trained(hidden):
    sizes = [(1, hidden), (hidden, 2)] if hidden else [(1, 2)]
    layers = {
        f"layer{i}": {"kernel": -np.abs(RNG.normal(size=size)), "bias": RNG.normal(size=size[1])}
        for i, size in enumerate(sizes)
    }
    energy = np.linspace(0, 20, 30)

    def logit(slope: str) -> np.ndarray:
        out = np.asarray(phi(uncertainty_branch(layers, slope), energy))
        return out[:, 1] - out[:, 0]

    assert np.all(np.diff(logit("rising")) > 0)
    np.testing.assert_array_equal(logit("free"), np.diff(phi(layers, energy), axis=1)[:, 0])


def test_settings_that_do_not_go_together_are_refused():
    method = TRAININGS["vos"]
    labels = np.repeat(np.arange(3), 40)
    options = resolve("method vos", method.options, {"queue": 30})
    method.check(options, IMAGE, labels, 1)
    with pytest.raises(UserError, match="queue is 30; it must be below 30"):
        method.check(options, IMAGE, labels[::4].repeat(3), 1)
    with pytest.raises(UserError, match="keep is 3; it must be at most candidates = 2"):
        method.check(options | {"keep": 3, "candidates": 2}, IMAGE, labels, 1)
