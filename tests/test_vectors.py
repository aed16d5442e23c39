"""Unit vectors and cosines."""

import jax
import numpy as np
from scipy.spatial.distance import cdist

from dream_jax.vectors import cosine_logits, unit

RNG = np.random.default_rng(0)


def test_unit_vectors():
    vectors = RNG.normal(size=(5, 3)).astype(np.float32)
    vectors[2] = 0
    expected = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(unit(vectors), expected, rtol=1e-5)
    assert np.all(np.isfinite(jax.grad(lambda v: unit(v).sum())(vectors)))
    np.testing.assert_allclose(unit(vectors.T, axis=0), expected.T, rtol=1e-5)


def test_large_and_small_vectors_have_length_1():
    vectors = np.float32([[3e-8, 4e-8], [3e15, 4e15]])
    np.testing.assert_allclose(unit(vectors), [[0.6, 0.8]] * 2, rtol=1e-5)


def test_cosine_logits_are_scipys():
    vectors, centres = RNG.normal(size=(7, 5)), RNG.normal(size=(3, 5))
    found = cosine_logits(unit(np.float32(vectors)), unit(np.float32(centres)), 0.1)
    np.testing.assert_allclose(found, 10 * (1 - cdist(vectors, centres, "cosine")), atol=1e-4)
