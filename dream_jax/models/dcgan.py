"""Generator and discriminator of a GAN for small images: DCGANs (Radford et al., ICLR 2016)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.errors import UserError
from dream_jax.models.norm import BatchNorm

_INIT = nn.initializers.normal(0.02)  # of all weights, as for the DCGAN


def stages(size: int) -> tuple[int, tuple[int, ...]]:
    """The first image size of a generator, and by how many times `width` its stages are wide.

    Each stage doubles the size. At 64 pixels this is the DCGAN, at 32 that of the published code.

    Raises:
      UserError: the size is not reached.
    """
    doublings = max(size // 4, 1).bit_length() - 1
    first = size >> doublings
    if doublings < 2 or first << doublings != size:
        raise UserError(
            f"config.data.image_size is {size}; with the training gan it must be 4, 5, 6 or 7 "
            f"times a power of two from 4 on, such as 28, 32, 64 or 224"
        )
    return first, tuple(max(8 >> stage, 1) for stage in range(doublings))


def overlap(taps: jax.Array) -> jax.Array:
    """The sums of a transposed convolution with 4×4 kernels and stride 2, of doubled size.

    (n, h, w, 4, 4, c) of what each place gives to the 4×4 around it → (n, 2h, 2w, c). With one
    matrix product before, on the CPU it is much faster than XLA's gradients of that convolution.
    """

    def shift(x, axis, by):
        return jax.lax.pad(
            x, 0.0, [(by, -by, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
        )

    def along(taps, axis):
        """(4, ...) → (...) of twice the length; tap t of place i is for place 2i + t - 1."""
        even, odd = taps[1] + shift(taps[3], axis, 1), taps[2] + shift(taps[0], axis, -1)
        pairs = jnp.stack([even, odd], axis + 1)
        return pairs.reshape(*even.shape[:axis], -1, *even.shape[axis + 1 :])

    taps = jnp.moveaxis(taps, (3, 4), (0, 1))
    return along(along(taps, 2), 2)


class Generator(nn.Module):
    """Noise (n, d) to images (n, size, size, channels) in (0, 1)."""

    size: int
    channels: int
    width: int

    @nn.compact
    def __call__(self, noise: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        first, widths = stages(self.size)
        widths = [self.width * w for w in widths]
        x = nn.Dense(first * first * widths[0], use_bias=False, kernel_init=_INIT)(noise)
        x = x.reshape(-1, first, first, widths[0])
        for features in (*widths[1:], self.channels):
            x = nn.relu(BatchNorm()(x, train, mask))
            taps = nn.Dense(16 * features, use_bias=False, kernel_init=_INIT)(x)
            x = overlap(taps.reshape(*x.shape[:-1], 4, 4, features))
        return nn.sigmoid(x)


class Discriminator(nn.Module):
    """Images (n, size, size, channels) in [0, 1] to logits (n,), above 0 for real ones."""

    width: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        _, widths = stages(images.shape[1])
        x = images
        for stage, width in enumerate(reversed(widths)):
            features = self.width * width
            x = nn.Conv(features, (4, 4), (2, 2), 1, use_bias=False, kernel_init=_INIT)(x)
            x = BatchNorm()(x, train, mask) if stage else x
            x = nn.leaky_relu(x, 0.2)
        return nn.Dense(1, use_bias=False, kernel_init=_INIT)(x.reshape(len(x), -1))[:, 0]
