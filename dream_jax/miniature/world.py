"""The world of the miniature generator: captioned pictures of more than the ID classes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from dream_jax.data import glyphs
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import load_id
from dream_jax.miniature.settings import WorldSettings
from dream_jax.training.batches import epoch_index


class World(NamedTuple):
    """Captioned pictures, first the digits, then the glyphs.

    Attributes:
      images: in [0, 1].
      captions: one for each image.
      digits: the number of digits.
      class_names: of the digits.
    """

    images: Float[np.ndarray, "n H W 1"]
    captions: list[str]
    digits: int
    class_names: tuple[str, ...]


def build_world(config: WorldSettings) -> World:
    """Draws digits of the training split and named glyphs, each under a small random affine map.

    Args:
      config: with `image_size`, `digit_prompt` and `glyph_prompt`, which hold {name}, and
        `digit_versions`, the number of affine maps of each digit.
    """
    rng = np.random.default_rng(20230913)  # the world is one, whatever the seed of the training
    digits, _ = load_id("digits", DataOptions(image_size=config.image_size))
    pictures, captions = [], []
    for _ in range(config.digit_versions):
        for image, label in zip(digits.images.pixels(slice(None)), digits.labels, strict=True):
            pictures.append(glyphs.random_affine(image[..., 0], rng))
            captions.append(config.digit_prompt.format(name=digits.class_names[label]))
    count = len(pictures)
    for char, face, name in tqdm(list(glyphs.world_glyphs()), desc="rendering glyphs"):
        picture = glyphs.render_glyph(char, face, size=config.image_size)
        pictures.append(glyphs.random_affine(picture, rng))
        captions.append(config.glyph_prompt.format(name=name))
    images = np.stack(pictures)[..., None].astype(np.float32) / 255
    return World(images, captions, count, digits.class_names)


def batch_indices(
    digits: int, others: int, batch_size: int, step: int, seed: int
) -> Int[np.ndarray, " batch_size"]:
    """Returns the indices of a training step's pictures: one half digits, one half glyphs.

    Args:
      digits: how many there are in the world, before the glyphs.
      others: the number of glyphs.
    """
    half = batch_size // 2
    first = epoch_index(digits, step, half, seed)
    second = digits + epoch_index(others, step, batch_size - half, seed + 1)
    return np.concatenate([first, second])
