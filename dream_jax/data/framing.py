"""Bringing images of any source to the size, channels and range that all sets share."""

import math
import zlib

import numpy as np
from PIL import Image

# From this size on, images are cropped as ImageNet's are; smaller ones show the whole picture.
CROP_FROM = 64
# From this ratio of the sides on, images are cropped before they are resized: whole, 1 by 20,000
# pixels would take 5 GB on their way to size 224.
CROP_FIRST_FROM = 16
COLUMNS_FIRST_FROM = 2**24  # pixels after the rows of an image are scaled, before the columns are
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


def frame(image: Image.Image, size: int, crop: bool) -> Image.Image:
    """An 8-bit image in the network's frame, as at test time: `size` by `size`, bilinear.

    Args:
      crop: for sizes of at least `CROP_FROM`, scale the shorter side to size·256/224 and cut out
        the centre; otherwise both sides are scaled to `size`.
    """
    if not crop or size < CROP_FROM:
        return _resize_whole(image, size)
    scale = round(size * 256 / 224) / min(image.size)
    width, height = (max(size, round(extent * scale)) for extent in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    if max(image.size) > CROP_FIRST_FROM * min(image.size):
        return _resize_part(image, (width, height), (left, top, left + size, top + size))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))


def _resize_whole(image: Image.Image, size: int) -> Image.Image:
    """Scales an image to `size` by `size`.

    Pillow scales the rows first. The result may be far larger than the image where that is narrow
    and very high; then columns come first.
    """
    if size * image.height > COLUMNS_FIRST_FROM and image.width < size:
        image = image.resize((image.width, size), Image.Resampling.BILINEAR)
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _resize_part(
    image: Image.Image, whole: tuple[int, int], part: tuple[int, int, int, int]
) -> Image.Image:
    """Returns what resizing to `whole` and cropping to `part` does, without all of the former.

    Values may differ by 1 or 2, because Pillow takes the part in single precision.
    """
    start, end, box = [], [], []
    for axis in (0, 1):
        step = image.size[axis] / whole[axis]  # pixels of the image for one of the result
        margin = math.ceil(max(step, 1)) + 1  # to which bilinear interpolation looks
        first, last = part[axis] * step, part[axis + 2] * step
        start.append(max(0, math.floor(first) - margin))
        end.append(min(image.size[axis], math.ceil(last) + margin))
        box.append((first - start[axis], min(last, image.size[axis]) - start[axis]))
    size = part[2] - part[0], part[3] - part[1]
    (left, right), (top, bottom) = box
    cut = image.crop((start[0], start[1], end[0], end[1]))
    return cut.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))


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
