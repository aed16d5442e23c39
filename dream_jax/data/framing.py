"""Bringing images of any source to the size, channels and range that all sets share."""

import math
import zlib

import numpy as np
from PIL import Image

# From this size on, images are cropped as ImageNet's are; smaller ones show the whole picture.
CROP_FROM = 64
# Of torchvision's RandomResizedCrop.
CROP_AREA = (0.08, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
CROP_TRIES = 10


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


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """An image of any mode as 8-bit grey (1 channel) or RGB (3).

    16-bit grey is scaled to 8 bits, where Pillow would cut off all above 255; transparency is
    dropped, as is usual for these sets.
    """
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.float32)
        image = Image.fromarray(np.clip(np.round(deep / 257), 0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of what is lost otherwise
    return image.convert("L" if channels == 1 else "RGB")


def frame(image: Image.Image, size: int, crop: bool) -> Image.Image:
    """An 8-bit image in the network's frame, as at test time: `size` by `size`, bilinear.

    Args:
      crop: for sizes of at least `CROP_FROM`, scale the shorter side to size·256/224 and cut out
        the centre; otherwise both sides are scaled to `size`.
    """
    if not crop or size < CROP_FROM:
        return image.resize((size, size), Image.Resampling.BILINEAR)
    scale = round(size * 256 / 224) / min(image.size)
    width, height = (max(size, round(extent * scale)) for extent in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def random_resized_crop(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A random part of the image scaled to `size` by `size`, flipped half of the time.

    As torchvision's RandomResizedCrop and RandomHorizontalFlip: 8 to 100 % of the area, an aspect
    ratio from 3/4 to 4/3, and the centre where ten draws did not fit into the image.
    """
    left, top, width, height = _crop_box(*image.size, rng)
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    flip = rng.random() < 0.5
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


def _crop_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random part."""
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(*CROP_AREA)
        aspect = math.exp(rng.uniform(*np.log(CROP_ASPECT)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w, h = width, height
    if width / height < CROP_ASPECT[0]:
        h = round(width / CROP_ASPECT[0])
    elif width / height > CROP_ASPECT[1]:
        w = round(height * CROP_ASPECT[1])
    return (width - w) // 2, (height - h) // 2, w, h
