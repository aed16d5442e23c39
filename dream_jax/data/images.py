"""Images as a column of 8-bit pixels, in memory or read from their files when they are asked for.

Where the pixels are makes no difference to a result: a set that is held gives the bits of one that
is read, in training and in evaluation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from tqdm import tqdm

from dream_jax.data.framing import frame, random_resized_crop
from dream_jax.data.modes import to_mode
from dream_jax.data.reader import decoding, reason
from dream_jax.data.sources import ImageSource, Pixels, fetch, to_bytes
from dream_jax.errors import UserError

PADDING = 4  # pixels, as of `augment.crop_flip`
Indices = int | slice | Int[np.ndarray, "..."] | Bool[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Images:
    """Images of a source, framed as at test time.

    Indexing with an integer, a slice, integers or booleans gives float32 (..., H, W, C) in [0, 1].

    Attributes:
      source: where the images are.
      indices: (n,) those of the source that make up the set.
      size: height and width in pixels.
      channels: 1 or 3.
      crop: see `framing.frame`.
      held: all pixels, uint8 (n, H, W, C), where they are in memory.
    """

    source: ImageSource
    indices: Int[np.ndarray, " n"]
    size: int
    channels: int
    crop: bool = True
    held: UInt8[np.ndarray, "n H W C"] | None = None

    @classmethod
    def of(cls, values: np.ndarray) -> Images:
        """Returns the images of an array: bytes, or floats in [0, 1], which become bytes."""
        pixels = values if values.dtype == np.uint8 else to_bytes(values)
        count, size, _, channels = pixels.shape
        return cls(Pixels(pixels), np.arange(count), size, channels, crop=False, held=pixels)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, height, width, channels)."""
        return len(self.indices), self.size, self.size, self.channels

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def in_memory(self) -> bool:
        return self.held is not None

    def pixels(self, rows: Indices) -> UInt8[np.ndarray, "... H W C"]:
        """Returns some of the images as bytes."""
        if self.held is not None:
            return np.asarray(self.held[rows])
        return read_pixels(self, self.indices[rows], lambda image, _: self._framed(image))

    def __getitem__(self, rows: Indices) -> Float[np.ndarray, "... H W C"]:
        return self.pixels(rows).astype(np.float32) / 255

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def at(self, rows: Int[np.ndarray, " batch"], step: int) -> UInt8[np.ndarray, "batch H W C"]:
        """Returns the images of a training step, which are the same in every step."""
        return self.pixels(rows)

    def name(self, row: int) -> str:
        """Returns what a message calls an image."""
        return self.source.name(self.indices[row])

    def take(self, rows: Indices) -> Images:
        """Returns the set of some of the images; reads nothing."""
        held = None if self.held is None else self.held[rows]
        return replace(self, indices=self.indices[rows], held=held)

    def hold(self, most: int) -> Images:
        """Returns the images in memory if they take at most `most` bytes, else as they are."""
        if self.in_memory or self.nbytes > most:
            return self
        return replace(self, held=self.pixels(slice(None)))

    def _framed(self, image: Image.Image) -> Image.Image:
        return frame(image, self.size, self.crop)


@dataclass(frozen=True, eq=False)
class RandomCrops:
    """Images of which every training step sees random parts, cut from the full resolution.

    Attributes:
      images: the set.
      seed: of the draws.
    """

    images: Images
    seed: int
    in_memory = False
    nbytes = 0

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: Int[np.ndarray, " batch"], step: int) -> UInt8[np.ndarray, "batch H W C"]:
        """Returns the crops of a training step.

        A crop is drawn from the seed, the step and the image's index in its source, so it is the
        same in every process, and in a training that was resumed.
        """

        def crop(image: Image.Image, index: int) -> Image.Image:
            rng = np.random.default_rng((self.seed, step, index))
            return random_resized_crop(image, self.images.size, rng)

        return read_pixels(self.images, self.images.indices[rows], crop)


@dataclass(frozen=True, eq=False)
class Patches:
    """Images of which every training step sees patches in their own scale, cut at random places.

    A patch may reach over the border of its image by `PADDING` pixels, which are black. So the
    published code shows its outliers to CIFAR-100's classifier (torchvision's RandomCrop with
    padding 4), whatever size their files have.

    Attributes:
      images: the set, in the size of the files.
      size: height and width of the patches.
      seed: of the draws.
    """

    images: Images
    size: int
    seed: int
    in_memory = False
    nbytes = 0

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: Int[np.ndarray, " batch"], step: int) -> UInt8[np.ndarray, "batch H W C"]:
        """Returns the patches of a training step; they are drawn as those of `RandomCrops`."""
        pixels, size = self.images.pixels(rows), self.size
        padded = np.pad(pixels, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
        out = np.empty((len(rows), size, size, self.images.channels), np.uint8)
        for place, index in enumerate(self.images.indices[rows].tolist()):
            rng = np.random.default_rng((self.seed, step, index))
            top, left = rng.integers(padded.shape[1] - size + 1, size=2)
            out[place] = padded[place, top : top + size, left : left + size]
        return out


def for_training(images: Images, augment: str, seed: int) -> Images | RandomCrops:
    """Returns the images as a training sees them, before what is done on the devices.

    Args:
      augment: one of `AUGMENTATIONS`; "random_resized_crop" is made here.
      seed: of the random crops.
    """
    if augment != "random_resized_crop":
        return images
    return RandomCrops(replace(images, held=None), seed)  # workers need not be sent the frames


def read_pixels(
    images: Images,
    indices: Int[np.ndarray, "..."],
    shape: Callable[[Image.Image, int], Image.Image],
) -> UInt8[np.ndarray, "... H W C"]:
    """Reads images of a source by their indices, decoded by threads.

    Args:
      images: whose source, size and channels they have.
      shape: (8-bit image, index) → the image in its final size.

    Raises:
      UserError: an image cannot be read.
    """
    out = np.empty((np.size(indices), *images.shape[1:]), np.uint8)

    def read(source: ImageSource, place: int, index: int) -> None:
        try:
            with source.open(index) as image, decoding(image):
                pixels = np.asarray(shape(to_mode(image, images.channels), index))
        except UserError:
            raise
        except Exception as error:  # Pillow raises many kinds
            raise UserError(
                f"{images.source.name(index)}: not a readable image ({reason(error)})"
                f"{images.source.remedy}"
            ) from error
        out[place] = pixels.reshape(images.shape[1:])

    for _ in _in_threads(images.source, read, np.ravel(indices)):
        pass
    return out.reshape(*np.shape(indices), *images.shape[1:])


def load_images(
    source: ImageSource,
    indices: Int[np.ndarray, " n"],
    *,
    size: int,
    channels: int,
    hold_bytes: int,
    unreadable: str,
    crop: bool = True,
) -> tuple[Images, Bool[np.ndarray, " n"]]:
    """Opens every image of a set once, and holds their pixels if they fit.

    An image that is not held is decoded at the smallest scale that its file allows, which shows
    whether it is whole. So an unreadable one is met before any work, and what is skipped is the
    same in all epochs and processes.

    Args:
      indices: of the source.
      hold_bytes: the largest size of the pixels that are held.
      unreadable: what an image that cannot be read does: "stop" or "skip".

    Returns:
      The images, and which of `indices` they are.

    Raises:
      UserError: images are unreadable, and `unreadable` is "stop", or none is left.
    """
    images = Images(source, np.asarray(indices), size, channels, crop)
    images, failed = open_all(images, images.nbytes <= hold_bytes)
    kept = ~np.isin(np.arange(len(images)), list(failed))
    if failed:
        found = {int(images.indices[place]): reason for place, reason in failed.items()}
        _report(source, found, unreadable, len(kept))
    return (images.take(kept) if failed else images), kept


def open_all(images: Images, hold: bool) -> tuple[Images, dict[int, str]]:
    """Opens every image once.

    Args:
      images: not in memory.
      hold: whether to keep the pixels; without, each is decoded at the smallest scale of its file.

    Returns:
      The images, in memory if asked for, and which of them cannot be read, with the reason; the
      pixels of those mean nothing.
    """
    channels = images.channels
    held = np.zeros(images.shape if hold else 0, np.uint8)

    def read(source: ImageSource, place: int, index: int) -> str:
        """Returns why the image cannot be read; nothing if it can."""
        try:
            with source.open(index) as image, decoding(image):
                if hold:
                    framed = frame(to_mode(image, channels), images.size, images.crop)
                    held[place] = np.asarray(framed).reshape(held.shape[1:])
                else:
                    image.draft(None, (1, 1))
                    to_mode(image, channels)
        except Exception as error:  # Pillow raises many kinds
            return reason(error)
        return ""

    reasons = _progress(_in_threads(images.source, read, images.indices), len(images))
    failed = {place: reason for place, reason in enumerate(reasons) if reason}
    return (replace(images, held=held) if hold else images), failed


def _report(source: ImageSource, failed: dict[int, str], unreadable: str, count: int) -> None:
    """Raises UserError if the set cannot be used; else names what is skipped."""
    first, reason = next(iter(failed.items()))
    if unreadable == "stop" or len(failed) == count:
        remedy = "; replace them, or set data.unreadable=skip" if len(failed) < count else ""
        raise UserError(
            f"{source.name(first)}: not a readable image ({reason}); {len(failed)} of {count} "
            f"images of its set are unreadable{remedy}"
        )
    for index, reason in failed.items():
        print(f"skipped image {source.name(index)}: {reason}", file=sys.stderr)
    print(f"skipped {len(failed)} of {count} images, which are unreadable", file=sys.stderr)


def _progress(items: Iterable, count: int) -> Iterable:
    """Shows a progress bar where there are many images."""
    return tqdm(items, total=count, desc="reading images", disable=count < 20_000)


def _in_threads(
    source: ImageSource,
    read: Callable[[ImageSource, int, int], Any],
    indices: Int[np.ndarray, " n"],
) -> Iterator[Any]:
    """Yields `read(source, place, index)` in order; each thread takes some images at a time."""
    numbers = indices.tolist()
    if len(numbers) == 1:  # perhaps from one of the threads, which must not wait for another
        yield read(source, 0, numbers[0])
        return
    threads = _threads()
    size = max(1, min(64, len(numbers) // _cores()))
    parts = [
        range(start, min(start + size, len(numbers))) for start in range(0, len(numbers), size)
    ]

    def read_part(part: range) -> list[Any]:
        fetched = fetch(source, [numbers[place] for place in part])
        return [read(fetched, place, numbers[place]) for place in part]

    for results in threads.map(read_part, parts):
        yield from results


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """The threads of this process that decode images; Pillow lets them run at the same time."""
    return ThreadPoolExecutor(_cores(), "decode")


def _cores() -> int:
    """The cores of this process, at most 32."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(32, cores or 1)
