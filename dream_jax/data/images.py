"""Images that are read from their files when they are asked for, and the choice to hold them.

A set whose frames fit into `data.hold_bytes` is read once into an array. A larger one stays a
`StreamedImages`, which has an array's length and shape and gives the rows asked for.
"""

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from dream_jax.data.framing import WHILE_READING, frame, random_resized_crop, to_mode
from dream_jax.errors import UserError


class Source(Protocol):
    """Encoded images, each opened by its row."""

    def __len__(self) -> int: ...

    def name(self, row: int) -> str:
        """What a message calls the image."""

    def open(self, row: int) -> Image.Image:
        """The image, its pixels perhaps not decoded yet; Pillow's errors pass through."""


@dataclass(frozen=True)
class Files:
    """Image files below a folder.

    Attributes:
      root: the folder.
      names: of the files, relative to it.
    """

    root: str
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        return os.path.join(self.root, self.names[row])

    def open(self, row: int) -> Image.Image:
        return Image.open(self.name(row))


@dataclass(frozen=True)
class Records:
    """The examples of a split that TFDS has prepared.

    Attributes:
      examples: row → {"image": encoded bytes, ...}, as a `tfds.data_source` without image decoding.
      title: set and split.
    """

    examples: Any
    title: str

    def __len__(self) -> int:
        return len(self.examples)

    def name(self, row: int) -> str:
        return f"{self.title}, example {row}"

    def open(self, row: int) -> Image.Image:
        return Image.open(io.BytesIO(self.examples[int(row)]["image"]))


@dataclass(frozen=True)
class Stored:
    """The images of a .npy file, uint8 (n, H, W, C), of which only the rows asked for are read."""

    path: str

    @cached_property
    def _array(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self._array)

    def __getstate__(self) -> dict:
        return {"path": self.path}  # a worker process opens the file itself

    def name(self, row: int) -> str:
        return f"{self.path}, row {row}"

    def open(self, row: int) -> Image.Image:
        pixels = np.array(self._array[row])
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images of a source by row, framed as at test time or randomly cropped for training.

    Indexing with an integer, a slice or integer rows gives float32 (..., H, W, C) in [0, 1]. It has
    no `nbytes`, by which the training loop knows what to leave on the host.

    Attributes:
      source: where the images are.
      rows: (n,) the rows of the source that make up the set.
      size: height and width in pixels.
      channels: 1 or 3.
      crop: see `framing.frame`.
      crop_seed: of the random crops that `draw` makes; None for none.
    """

    source: Source
    rows: np.ndarray
    size: int
    channels: int
    crop: bool = True
    crop_seed: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.rows), self.size, self.size, self.channels

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        return self._read(self.rows[rows], self._framed).astype(np.float32) / 255

    def take(self, rows: np.ndarray) -> "StreamedImages":
        """The set of some rows only; nothing is read."""
        return replace(self, rows=self.rows[rows])

    def draw(self, rows: np.ndarray, step: int) -> np.ndarray:
        """The images of a training step as bytes: (batch,) rows → uint8 (batch, H, W, C).

        A crop is drawn from the seed, the step and the row, so it is the same whichever process
        makes the batch, and in a training that was resumed.
        """
        if self.crop_seed is None:
            return self._read(self.rows[rows], self._framed)

        def crop(image: Image.Image, row: int) -> Image.Image:
            rng = np.random.default_rng((self.crop_seed, step, row))
            return random_resized_crop(image, self.size, rng)

        return self._read(self.rows[rows], crop)

    def _framed(self, image: Image.Image, row: int) -> Image.Image:
        return frame(image, self.size, self.crop)

    def _read(self, rows: np.ndarray, shape: Callable[[Image.Image, int], Image.Image]):
        """(...,) rows of the source → uint8 (..., H, W, C), decoded by threads."""
        out = np.empty((np.size(rows), *self.shape[1:]), np.uint8)

        def read(place: int, row: int) -> None:
            try:
                with self.source.open(row) as image:
                    pixels = shape(to_mode(image, self.channels), row)
            except Exception as error:  # Pillow raises many kinds
                raise UserError(
                    f"{self.source.name(row)}: not a readable image ({_reason(error)}), though it "
                    "was one when the run began"
                ) from error
            out[place] = np.asarray(pixels).reshape(self.shape[1:])

        for _ in _in_threads(read, np.ravel(rows)):
            pass
        return out.reshape(*np.shape(rows), *self.shape[1:])


def subset(images: Any, rows: np.ndarray) -> Any:
    """Some rows of images; of those that are no array nothing is read."""
    return images[rows] if isinstance(images, np.ndarray) else images.take(rows)


def for_training(images: Any, augment: str, seed: int) -> Any:
    """The images of a training's table: streamed ones are cropped while they are read, if asked.

    Args:
      augment: one of `AUGMENTATIONS`.
    """
    if isinstance(images, StreamedImages) and augment in WHILE_READING:
        return replace(images, crop_seed=seed)
    return images


def load_images(
    source: Source,
    rows: np.ndarray,
    *,
    size: int,
    channels: int,
    hold_bytes: int,
    unreadable: str,
    crop: bool = True,
) -> tuple[Any, np.ndarray]:
    """The images of some rows of a source: an array if it fits, else streamed.

    Every image is read once, here: for an array by framing it, otherwise at the smallest scale at
    which its file can be decoded, which shows whether it is whole. So an unreadable one is met
    before any work, and what is skipped is the same in all epochs and processes.

    Args:
      rows: (n,) of the source.
      hold_bytes: the largest size of the array, as float32.
      unreadable: "stop" or "skip".

    Returns:
      The images, (n', H, W, C) in [0, 1], and which of `rows` they are: (n,) booleans.

    Raises:
      UserError: images are unreadable, and `unreadable` is "stop", or none is left.
    """
    images = StreamedImages(source, np.asarray(rows), size, channels, crop)
    hold = 4 * int(np.prod(images.shape)) <= hold_bytes
    held = np.empty(images.shape if hold else 0, np.float32)

    def read(place: int, row: int) -> str:
        """Why the image cannot be read; nothing if it can."""
        try:
            with source.open(row) as image:
                if hold:
                    pixels = np.asarray(frame(to_mode(image, channels), size, crop))
                    held[place] = pixels.reshape(held.shape[1:]).astype(np.float32) / 255
                else:
                    image.draft(None, (1, 1))
                    image.load()
        except Exception as error:  # Pillow raises many kinds
            return _reason(error)
        return ""

    reasons = _progress(_in_threads(read, images.rows), len(images))
    failed = {place: reason for place, reason in enumerate(reasons) if reason}
    kept = ~np.isin(np.arange(len(images)), list(failed))
    if failed:
        _report(source, {int(images.rows[p]): r for p, r in failed.items()}, unreadable, len(kept))
    if hold:
        return (held[kept] if failed else held), kept
    return images.take(kept), kept


def _report(source: Source, failed: dict[int, str], unreadable: str, count: int) -> None:
    """Raises if the set cannot be used; else names what is skipped."""
    first, reason = next(iter(failed.items()))
    if unreadable == "stop" or len(failed) == count:
        remedy = "; replace them, or set data.unreadable=skip" if len(failed) < count else ""
        raise UserError(
            f"{source.name(first)}: not a readable image ({reason}); {len(failed)} of {count} "
            f"images of its set are unreadable{remedy}"
        )
    for row, reason in failed.items():
        print(f"skipped image {source.name(row)}: {reason}", file=sys.stderr)
    print(f"skipped {len(failed)} of {count} images, which are unreadable", file=sys.stderr)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _progress(items: Iterable, count: int) -> Iterable:
    """A progress bar, where there is enough to read."""
    return tqdm(items, total=count, desc="reading images", disable=count < 20_000)


def _in_threads(read: Callable[[int, int], Any], rows: np.ndarray) -> Iterator[Any]:
    """Yields `read(place, row)` of each row in order, some rows at a time in each thread."""
    rows = rows.tolist()
    threads = _threads()
    size = max(1, min(64, len(rows) // _cores()))
    parts = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    for results in threads.map(lambda part: [read(place, rows[place]) for place in part], parts):
        yield from results


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """Decoding threads of this process; Pillow lets them run at the same time."""
    return ThreadPoolExecutor(_cores(), "decode")


def _cores() -> int:
    """Of this process, at most 32."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(32, cores or 1)


def image_files(folder: Path) -> list[str]:
    """The images anywhere below a folder, relative to it and sorted.

    By their suffix: png, jpg or jpeg, in any case. Names that begin with a dot are left out, as
    some systems keep notes under an image's name with a dot before it.
    """
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith((".png", ".jpg", ".jpeg")) and not name.startswith("."):
                found.append(os.path.relpath(os.path.join(parent, name), folder))
    return sorted(found)
