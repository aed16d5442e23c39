"""The miniature generator's world: captioned pictures, wider than the ID classes."""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from dream_jax.data import glyphs
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import load_id
from dream_jax.training.batches import epoch_index


class World(NamedTuple):
    """Pictures (n, H, W, 1) in [0, 1] with their captions; the first `digits` are digits."""

    images: np.ndarray
    captions: list[str]
    digits: int
    class_names: tuple[str, ...]


def build_world(config: ConfigDict) -> World:
    """Digits of the training split and named glyphs, each under a small random affine map.

    Args:
      config: `image_size` (pixels), `digit_prompt` and `glyph_prompt` with a {name} field,
        `digit_versions` (affine maps of each digit).
    """
    rng = np.random.default_rng(20230913)  # the world is one, whatever the seed of the training
    digits, _ = load_id("digits", DataOptions(image_size=config.image_size))
    pictures, captions = [], []
    for _ in range(config.digit_versions):
        for image, label in zip(digits.images[:][..., 0], digits.labels, strict=True):
            pixels = (image * 255).round().astype(np.uint8)
            pictures.append(glyphs.random_affine(pixels, rng))
            captions.append(config.digit_prompt.format(name=digits.class_names[label]))
    count = len(pictures)
    for char, face, name in tqdm(list(glyphs.world_glyphs()), desc="rendering glyphs"):
        picture = glyphs.render_glyph(char, face, size=config.image_size)
        pictures.append(glyphs.random_affine(picture, rng))
        captions.append(config.glyph_prompt.format(name=name))
    images = np.stack(pictures)[..., None].astype(np.float32) / 255
    return World(images, captions, count, digits.class_names)


def sample_rows(world_size: int, digits: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Rows of a training batch, one half digits and one half glyphs: (batch_size,)."""
    half = batch_size // 2
    first = epoch_index(digits, step, half, seed)
    second = digits + epoch_index(world_size - digits, step, batch_size - half, seed + 1)
    return np.concatenate([first, second])
