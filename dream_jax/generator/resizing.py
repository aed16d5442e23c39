"""How a generator's pictures are brought to the size of their files.

The ways differ in what they leave of a picture that is made smaller. "antialiased" weighs all the
pixels that a new one covers. "bilinear" looks at four pixels alone, however many there are, as the
published code does, and "nearest" at one: both leave jagged edges and fine noise. "mixed" takes one
of the three for each picture, so that a classifier cannot know outliers by any one of them.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

Size = tuple[int, int]  # height and width
# A picture's key is that of its noise; with this number it gives one for the way it is resized.
_WAY = 1


def antialiased(images: Float[Array, "n H W C"], size: Size) -> Float[Array, "n height width C"]:
    """Resizes bilinearly, with a filter as wide as a new pixel; as Pillow's BILINEAR."""
    return jax.image.resize(images, (len(images), *size, images.shape[-1]), "bilinear")


def bilinear(images: Float[Array, "n H W C"], size: Size) -> Float[Array, "n height width C"]:
    """Interpolates between the four pixels around the centre of each new one.

    As PyTorch's `interpolate(mode="bilinear", align_corners=False)`, by which the published code
    halves its pictures of 512 pixels.
    """
    shape = (len(images), *size, images.shape[-1])
    return jax.image.resize(images, shape, "bilinear", antialias=False)


def nearest(images: Float[Array, "n H W C"], size: Size) -> Float[Array, "n height width C"]:
    """Takes the pixel in which the centre of each new one lies; as Pillow's NEAREST."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, images.shape[1:3], strict=True)
    )
    return images[:, rows][:, :, columns]


WAYS: Mapping[str, Callable[[jax.Array, Size], jax.Array]] = {
    "antialiased": antialiased,
    "bilinear": bilinear,
    "nearest": nearest,
}
MIXED = "mixed"


def ways_of(keys: UInt32[Array, "n 2"]) -> Int[Array, " n"]:
    """Returns the way in which each picture is resized by "mixed": its number in `WAYS`.

    Args:
      keys: data of the random keys from which the pictures' noise is drawn. They are folded from
        the kind of image and its index, which gives its class too, so the way does not depend on
        batches or devices.
    """

    def way(key: UInt32[Array, "2"]) -> Int[Array, ""]:
        own = jax.random.fold_in(jax.random.wrap_key_data(key), _WAY)
        return jax.random.randint(own, (), 0, len(WAYS))

    return jax.vmap(way)(keys)


def resize(
    images: Float[Array, "n H W C"], size: Size, how: str, keys: UInt32[Array, "n 2"]
) -> Float[Array, "n height width C"]:
    """Resizes pictures to (height, width), unless they have that size already.

    Args:
      how: one of `WAYS`, or "mixed".
      keys: see `ways_of`; looked at for "mixed" alone.
    """
    if images.shape[1:3] == tuple(size):
        return images
    if how != MIXED:
        return WAYS[how](images, size)
    each = jnp.stack([way(images, size) for way in WAYS.values()])
    return each[ways_of(keys), jnp.arange(len(images))]
