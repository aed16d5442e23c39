"""Augmentations on the device, one random key per image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.data.framing import CROP_AREA, CROP_ASPECT, CROP_TRIES, WHILE_READING


def affine(key: jax.Array, image: jax.Array) -> jax.Array:
    """A rotation of up to 10°, scaling of up to 10 %, shear of up to 0.1, shift of up to 2 pixels.

    image: (H, W, C); outside it is black.
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


def crop_flip(key: jax.Array, image: jax.Array) -> jax.Array:
    """A random crop after padding by 4 pixels, flipped half of the time (CIFAR's usual)."""
    crop_key, flip_key = jax.random.split(key)
    padded = jnp.pad(image, ((4, 4), (4, 4), (0, 0)))
    start = jax.random.randint(crop_key, (2,), 0, 9)
    image = jax.lax.dynamic_slice(padded, (start[0], start[1], 0), image.shape)
    return jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)


def random_resized_crop(key: jax.Array, image: jax.Array) -> jax.Array:
    """A random part scaled to the whole image, flipped half of the time (ImageNet's usual).

    Areas and aspect ratios are those of `framing.random_resized_crop`, by which the worker
    processes crop images that are not held in memory, from their files' full resolution.
    """
    area_key, aspect_key, place_key, flip_key = jax.random.split(key, 4)
    size = jnp.array(image.shape[:2], jnp.float32)
    low, high = np.log(CROP_ASPECT)
    area = jax.random.uniform(area_key, (CROP_TRIES,), minval=CROP_AREA[0], maxval=CROP_AREA[1])
    aspect = jnp.exp(jax.random.uniform(aspect_key, (CROP_TRIES,), minval=low, maxval=high))
    area = area * jnp.prod(size)
    parts = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], 1)
    fits = jnp.all(parts <= size, axis=1)
    part = jnp.where(fits.any(), parts[jnp.argmax(fits)], size)
    corner = jax.random.uniform(place_key, (2,)) * (size - part)
    scale = size / part
    image = jax.image.scale_and_translate(
        image, image.shape, (0, 1), scale, -corner * scale, "linear", antialias=True
    )
    return jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)


AUGMENTATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "none": lambda key, image: image,
    "affine": affine,
    "crop_flip": crop_flip,
    "random_resized_crop": random_resized_crop,
}


def augment(name: str, key: jax.Array, image: jax.Array) -> jax.Array:
    """One of `AUGMENTATIONS` on the device: float (H, W, C) in [0, 1] → the same.

    An image of bytes comes from `StreamedImages.draw`: it is scaled to [0, 1], and what was done
    while reading is not done again.
    """
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 255
        name = "none" if name in WHILE_READING else name
    return AUGMENTATIONS[name](key, image)


def zoom(key: jax.Array, image: jax.Array, most: float) -> jax.Array:
    """A random part of the image, enlarged to all of it by a factor from 1 to `most`."""
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


def degrade(key: jax.Array, image: jax.Array, share: float) -> jax.Array:
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
