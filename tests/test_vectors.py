"""Unit vectors against their definition, at zero and at the ends of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax.vectors import cosine_logits, unit, unit_on_host

VECTORS = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)


@pytest.mark.parametrize("function", [unit, unit_on_host])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_unit_vectors_have_length_one_and_the_direction(function, axis):
    found = function(VECTORS, axis)
    assert found.dtype == np.float32
    length = np.linalg.norm(VECTORS.astype(np.float64), axis=axis, keepdims=True)
    np.testing.assert_allclose(found, VECTORS / length, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("function", [unit, unit_on_host])
def test_zeros_stay_zeros(function):
    found = np.asarray(function(np.stack([VECTORS[0], 0 * VECTORS[0]])))
    assert np.all(found[1] == 0)
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=-1), 1, rtol=1e-6)


def test_gradient_is_finite_at_zero_and_orthogonal_elsewhere():
    vectors = jnp.stack([VECTORS[0, 0], jnp.zeros(5)])
    gradient = jax.grad(lambda v: jnp.sum(unit(v) @ jnp.arange(5.0)))(vectors)
    assert np.all(gradient[1] == 0)
    np.testing.assert_allclose(gradient[0] @ vectors[0], 0, atol=1e-5)
    assert np.abs(gradient[0]).max() > 0.1


def test_what_is_not_a_number_stays_so():
    assert np.all(np.isnan(unit(jnp.full((2, 3), jnp.nan))))


def test_on_the_host_every_length_above_zero_is_scaled():
    lengths = np.float32([1e-40, 1e-30, 1, 1e30])[:, None]
    expected = unit_on_host(VECTORS[0, :1])
    found = unit_on_host(VECTORS[0, :1] * lengths)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-4)
    doubles = unit_on_host(VECTORS.astype(np.float64))
    assert doubles.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(doubles, axis=-1), 1, rtol=1e-14)


def test_cosine_logits_are_cosines_over_the_temperature():
    features, anchors = VECTORS[0].astype(np.float64), VECTORS[1].astype(np.float64)
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(anchors, axis=1)
    logits = cosine_logits(unit(VECTORS[0]), unit(VECTORS[1]), 0.1)
    np.testing.assert_allclose(logits, features @ anchors.T / lengths / 0.1, rtol=1e-5, atol=1e-5)
    assert np.all(cosine_logits(np.zeros_like(VECTORS[0]), unit(VECTORS[1]), 0.1) == 0)
