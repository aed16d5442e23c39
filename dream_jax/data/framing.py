"""Bringing images of any source to the size, channels and range that all sets share."""

import zlib

import numpy as np
from PIL import Image


def set_rng(name: str, seed: int) -> np.random.Generator:
    """The random generator of one set: the same seed gives different sets unrelated draws."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Repeats the channel of grey images: (n, H, W) or (n, H, W, 1) to (n, H, W, channels)."""
    return np.repeat(images.reshape(*images.shape[:3], 1), channels, axis=-1)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, antialiased resize of (n, H, W) to float32 (n, size, size); values are kept."""
    images = images.astype(np.float32)
    if images.shape[1:] == (size, size):
        return images
    resized = [Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR) for i in images]
    return np.stack([np.asarray(i) for i in resized])


def frame_28(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """MNIST-like images in the network's frame.

    Sizes other than 32 show the padded 32x32 image, so an object fills the same share of it.

    Args:
      images: (n, 28, 28), values from 0 to 255.

    Returns:
      float32 (n, size, size, channels) in [0, 1], padded with zeros.
    """
    padded = np.pad(images.astype(np.float32) / 255, ((0, 0), (2, 2), (2, 2)))
    return with_channels(resize(padded, size), channels)
