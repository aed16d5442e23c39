"""Max-pooling against Flax's."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax.models.pooling import max_pool


@pytest.mark.parametrize("sides", [(8, 9), (31, 16)])
@pytest.mark.parametrize(
    ("size", "stride", "before"),
    [(1, 1, 0), (2, 1, 0), (2, 2, 0), (3, 1, 1), (3, 2, 1), (5, 2, 2), (4, 3, 1), (12, 12, 3)],
)
def test_max_pooling_is_flaxs_and_so_is_its_gradient(sides, size, stride, before):
    """On whole numbers, so that many of a window are equal and sums are exact."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 4, (2, *sides, 3)), jnp.float32)
    padding = [(before, (-(-p // stride) - 1) * stride + size - before - p) for p in sides]
    flax = partial(nn.max_pool, window_shape=(size, size), strides=(stride,) * 2, padding=padding)
    shape = jax.eval_shape(flax, x).shape
    weights = jnp.asarray(rng.integers(-9, 10, shape), jnp.float32)
    spoilt = x.at[0, 2, 3, 1].set(jnp.nan)

    @partial(jax.jit, static_argnums=0)
    def shown(pool):
        made, gradient = jax.vjp(pool, x)
        return made, gradient(weights)[0], pool(spoilt)

    expected, expected_gradient, expected_spoilt = shown(flax)
    made, gradient, made_spoilt = shown(lambda x: max_pool(x, size, stride, before))
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)
    np.testing.assert_array_equal(made_spoilt, expected_spoilt)


def test_pixels_that_no_window_reaches_get_no_gradient():
    x = jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    made, gradient = jax.vjp(lambda x: max_pool(x, 2, 2, 1), x)  # the last row and column are out
    np.testing.assert_array_equal(made[0, :, :, 0], [[1, 3], [9, 11]])
    (found,) = gradient(jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1))
    expected = np.zeros((4, 4))
    expected[[0, 0, 2, 2], [0, 2, 0, 2]] = 1, 2, 3, 4
    np.testing.assert_array_equal(found[0, :, :, 0], expected)


def test_of_several_nans_the_first_gets_the_gradient():
    x = jnp.array([1.0, jnp.nan, 2.0, jnp.nan]).reshape(1, 2, 2, 1)
    _, gradient = jax.vjp(lambda x: max_pool(x, 2, 2), x)
    found = gradient(jnp.ones((1, 1, 1, 1)))[0]
    np.testing.assert_array_equal(found.ravel(), [0, 1, 0, 0])
