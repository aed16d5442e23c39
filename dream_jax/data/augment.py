"""Augmentations on the device, one random key per image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def affine(key: jax.Array, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Rotates an image by up to 10°, scales it by 10 %, shears it by 0.1, shifts it by 2 pixels.

    Outside the image all is black.
    """
    draw = jax.random.uniform(key, (5,), minval=-1.0, maxval=1.0)
    angle, zoom, shear = jnp.deg2rad(10.0) * draw[0], 1 + 0.1 * draw[1], 0.1 * draw[2]
    rotation = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    matrix = rotation @ jnp.array([[1.0, shear], [0.0, 1.0]]) / zoom
    height, width, _ = image.shape
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)
    places = (grid - centre - 2.0 * draw[3:]) @ matrix.T + centre
    sample = lambda channel: jax.scipy.ndimage.map_coordinates(  # noqa: E731
        channel, [places[..., 0], places[..., 1]], order=1, mode="constant"
    )
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def crop_flip(key: jax.Array, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Crops an image at random after padding by 4 pixels and flips it half of the time."""
    return _move_flip(key, image, 4, "constant")


def shift_flip(key: jax.Array, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Shifts an image by up to 2 pixels and flips it half of the time.

    What comes in at a side is mirrored there. Networks that are trained for few epochs learn more
    from it than from `crop_flip` (Jordan, arXiv 2404.00498).
    """
    return _move_flip(key, image, 2, "reflect")


def _move_flip(
    key: jax.Array, image: Float[Array, "H W C"], most: int, mode: str
) -> Float[Array, "H W C"]:
    """Cuts an image out at random after padding by `most` pixels and flips it half of the time.

    Args:
      mode: what the padding shows, as `jnp.pad` has it.
    """
    move_key, flip_key = jax.random.split(key)
    padded = jnp.pad(image, ((most, most), (most, most), (0, 0)), mode=mode)
    start = jax.random.randint(move_key, (2,), 0, 2 * most + 1)
    image = jax.lax.dynamic_slice(padded, (start[0], start[1], 0), image.shape)
    return flip(flip_key, image)


def flip(key: jax.Array, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Flips an image half of the time."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def unchanged(key: jax.Array, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Returns the image."""
    return image


AUGMENTATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "none": unchanged,
    "affine": affine,
    "crop_flip": crop_flip,
    "shift_flip": shift_flip,
    # Made where images are read, from their full resolution: `images.RandomCrops`.
    "random_resized_crop": unchanged,
}
CUTS = ("crop_flip", "shift_flip", "random_resized_crop")  # those that cut a part out and flip it


def augment(
    name: str, key: jax.Array, image: UInt8[Array, "H W C"] | Float[Array, "H W C"]
) -> Float[Array, "H W C"]:
    """Changes an image at random, on the device, by one of `AUGMENTATIONS`.

    Args:
      image: bytes, or floats in [0, 1].
    """
    return AUGMENTATIONS[name](key, to_float(image) if image.dtype == jnp.uint8 else image)


def augment_patch(
    name: str, key: jax.Array, image: UInt8[Array, "H W C"] | Float[Array, "H W C"]
) -> Float[Array, "H W C"]:
    """Changes a patch (`images.Patches`) as `augment` does, but for the cut, which it is already.

    `CUTS` flip it, "affine" moves it, "none" leaves it.
    """
    if name in CUTS:
        return flip(key, to_float(image) if image.dtype == jnp.uint8 else image)
    return augment(name, key, image)


def to_float(image: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """Returns bytes as floats in [0, 1], to the bit as NumPy divides them by 255.

    XLA replaces a division by a constant by a product, which rounds otherwise, so the divisor is
    made to look as if it depended on the image.
    """
    divisor = jnp.maximum(image.astype(jnp.int32), 255)
    return image.astype(jnp.float32) / divisor.astype(jnp.float32)


def zoom(key: jax.Array, image: Float[Array, "H W C"], most: float) -> Float[Array, "H W C"]:
    """Enlarges a random part to the whole image, by a factor from 1 to `most`."""
    factor_key, place_key = jax.random.split(key)
    factor = jax.random.uniform(factor_key, minval=1.0, maxval=most)
    size = jnp.array(image.shape[:2], jnp.float32)
    corner = jax.random.uniform(place_key, (2,)) * (factor - 1) * size
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), jnp.stack([factor, factor]), -corner, "linear", antialias=False
    )


def _gaussian(size: int, sigma: jax.Array) -> jax.Array:
    """Gaussian smoothing of a line of pixels as a matrix: (size, size), rows add up to 1."""
    distance = jnp.arange(size)[:, None] - jnp.arange(size)
    weights = jnp.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum(1, keepdims=True)


def degrade(key: jax.Array, image: Float[Array, "H W C"], share: float) -> Float[Array, "H W C"]:
    """Blurs, dims and adds noise to a `share` of the images, by random amounts.

    Drawn alike for real images, decoded images of the classes and outliers, it hides the traces
    that the decoder leaves, so that a classifier cannot tell outliers by them.

    image: (H, W, C) in [0, 1]. Blur: Gaussian of up to 1 pixel; contrast: down to 0.7; noise:
    Gaussian of up to 0.1.
    """
    which, amounts, noise_key = jax.random.split(key, 3)
    amount = jax.random.uniform(amounts, (3,))
    sigma = jnp.maximum(amount[0], 0.05)
    rows, columns = (_gaussian(size, sigma) for size in image.shape[:2])
    blurred = jnp.einsum("ih,hwc,jw->ijc", rows, image, columns)
    noise = 0.1 * amount[2] * jax.random.normal(noise_key, image.shape)
    changed = jnp.clip(blurred * (1 - 0.3 * amount[1]) + noise, 0, 1)
    return jnp.where(jax.random.uniform(which) < share, changed, image)
