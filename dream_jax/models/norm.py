"""Batch normalisation over the real rows of all devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.training.devices import AXIS


class BatchNorm(nn.Module):
    """Batch norm whose statistics are those of the unpadded global batch (Ioffe & Szegedy, 2015).

    Flax's own averages per-device means, which is off when padding leaves devices with unequal
    numbers of rows. Statistics are kept in the collection `batch_stats`, and computed in float32
    whatever the input's type, which the output has too.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """x: (n, ..., channels); mask: (n,) 1 for real rows, needed in training."""
        channels, dtype = x.shape[-1], x.dtype
        x = x.astype(jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(channels))
        var = self.variable("batch_stats", "var", lambda: jnp.ones(channels))
        if not train:
            m, v = mean.value, var.value
        else:
            axes = tuple(range(x.ndim - 1))
            weight = mask.reshape(-1, *([1] * (x.ndim - 1)))
            pixels = x[0, ..., 0].size
            sums = jnp.sum(x * weight, axes), jnp.sum(x**2 * weight, axes), jnp.sum(mask) * pixels
            if not self.is_initializing():
                sums = jax.lax.psum(sums, AXIS)
            total, squares, count = sums
            m = total / count
            v = jnp.maximum(squares / count - m**2, 0.0)
            if not self.is_initializing():
                mean.value = self.momentum * mean.value + (1 - self.momentum) * m
                var.value = self.momentum * var.value + (1 - self.momentum) * v
        factor = scale * jax.lax.rsqrt(v + self.epsilon)
        return (x * factor + (bias - m * factor)).astype(dtype)
