"""The CPU's attention against the plain formula."""

import jax
import numpy as np
import pytest

from dream_jax.generator.cpu_attention import attention


def softmax_attention(q, k, v, scale):
    """In float64 NumPy."""
    scores = scale * np.einsum("hid,hjd->hij", q, k, dtype=np.float64)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hij,hjd->hid", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize(
    ("heads", "queries", "keys", "width"),
    [(2, 9, 9, 8), (4, 1024, 1024, 8), (8, 1024, 77, 16), (2, 4096, 1024, 8), (3, 997, 400, 5)],
)
def test_equals_the_formula(heads, queries, keys, width):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(heads, n, width)) for n in (queries, keys, keys)]
    parts = [part.astype(np.float32) for part in parts]
    expected = softmax_attention(*parts, 0.7)
    np.testing.assert_allclose(jax.jit(attention)(*parts, 0.7), expected, atol=2e-5)
