"""Batch normalisation over the real examples of all devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dream_jax.training.devices import AXIS


class BatchNorm(nn.Module):
    """Batch norm with the statistics of the unpadded global batch (Ioffe & Szegedy, 2015).

    Flax's own averages the means of the devices, which is off when padding leaves them unequal
    numbers of examples. Statistics are kept in the collection `batch_stats`. They are computed in
    float32 whatever the type of the input, which the output has too.

    Attributes:
      momentum: weight of the old statistics when a batch updates them.
      epsilon: added to the variance.
      learned: whether a scale and a shift are learned after the normalisation.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    learned: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "n *maps C"], train: bool, mask: Float[Array, " n"] | None = None
    ) -> Float[Array, "n *maps C"]:
        """Normalises each channel.

        Args:
          x: activations, the channels last.
          train: whether to use the statistics of this batch, and to update the stored ones.
          mask: 1 for real examples, 0 for padding; needed in training.
        """
        channels, dtype = x.shape[-1], x.dtype
        x = x.astype(jnp.float32)
        scale, bias = jnp.ones(channels), jnp.zeros(channels)
        if self.learned:
            scale = self.param("scale", nn.initializers.ones, (channels,))
            bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(channels))
        var = self.variable("batch_stats", "var", lambda: jnp.ones(channels))
        if not train:
            m, v = mean.value, var.value
        else:
            if mask is None:
                raise ValueError("batch norm needs a mask in training")
            # Of each image first: no map is weighted, which would be one more to keep.
            maps = tuple(range(1, x.ndim - 1))
            pixels = x[0, ..., 0].size
            of_images = jnp.sum(x, maps), jnp.sum(x**2, maps)
            sums = *(jnp.sum(mask[:, None] * s, 0) for s in of_images), jnp.sum(mask) * pixels
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
