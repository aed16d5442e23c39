"""Folders of images in the ImageFolder convention of Hugging Face datasets.

Each process that writes into a folder has a part of its own, which has its own list:

    <folder>/part-00000/<class>/000012.png
    <folder>/part-00000/metadata.jsonl

An image is named by its number, which is its own among all parts.
"""

import json
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from dream_jax.errors import UserError

THREADS = 8  # that read or write image files
WAITING = 64  # images per process that may wait to be written
LISTING = "metadata.jsonl"


class Pixels:
    """8-bit images as a column of float32 images in [0, 1], in a quarter of the memory.

    `pixels[rows]`, with row numbers, a slice, a mask or one number, are float images.

    Args:
      values: (n, H, W, C) uint8.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, values: np.ndarray):
        self._values = values
        self.shape = values.shape

    def __len__(self) -> int:
        return len(self._values)

    @property
    def nbytes(self) -> int:
        """Bytes of all images as floats: what they take where they are used all at once."""
        return self._values.size * self.dtype.itemsize

    def __getitem__(self, rows) -> np.ndarray:
        return self._values[rows].astype(np.float32) / 255

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def take(self, rows: np.ndarray) -> "Pixels":
        """Some of the images, as they are held."""
        return Pixels(self._values[rows])


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Float images in [0, 1] as uint8."""
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    """(H, W, C) in [0, 1] as an 8-bit PNG, renamed into place when whole."""
    pixels = to_pixels(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(partial, "PNG")
    os.replace(partial, path)


class ImageWriter:
    """Writes images in threads, as they come.

        with ImageWriter() as write:
            write(path, image)

    What goes wrong with an image is raised at a later call, or at the end. Too many images waiting
    make a call wait for the oldest.
    """

    def __init__(self):
        self._threads = ThreadPoolExecutor(THREADS)
        self._waiting: deque[Future] = deque()

    def __call__(self, path: Path, image: np.ndarray) -> None:
        self._waiting.append(self._threads.submit(write_image, path, image))
        while len(self._waiting) > WAITING or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(self, kind, *_) -> None:
        self._threads.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for image in self._waiting:
                image.result()


def read_image(path: Path, channels: int) -> np.ndarray:
    """An image file as uint8 (H, W, channels).

    Raises:
      UserError: the file is empty, unreadable or cut short.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # Pillow raises many kinds
        raise UserError(
            f"{path}: not a readable image ({os.path.getsize(path) if path.exists() else 'no'} "
            f"bytes, {type(error).__name__}); delete it to make it again"
        ) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def part_folder(folder: Path, process: int) -> Path:
    """Where a process writes its images of the folder."""
    return folder / f"part-{process:05d}"


def written_images(folder: Path) -> dict[Path, list[str]]:
    """The images of each part: {part: ["<class>/000012.png", ...]}; without opening any."""
    return {
        part: [
            f"{group.name}/{file.name}"
            for group in os.scandir(part)
            if group.is_dir()
            for file in os.scandir(group)
            if file.name.endswith(".png")
        ]
        for part in sorted(folder.glob("part-*"))
    }


def remove_partial(folder: Path) -> None:
    """Deletes what was being written when a run was killed."""
    for pattern in ("part-*/*/*.partial", "part-*/*.partial"):
        for path in folder.glob(pattern):
            path.unlink()


def write_metadata(part: Path, rows: Sequence[dict]) -> None:
    """One JSON object a line; each names its `file_name` relative to the part."""
    partial = part / "metadata.partial"
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    os.replace(partial, part / LISTING)


def read_listing(folder: Path, count: int) -> list[tuple[str, dict]]:
    """What the parts list, by the images' numbers: (path relative to the folder, row).

    Args:
      count: how many images there must be.

    Raises:
      UserError: a list cannot be read, or there are not the images 0 ... count - 1.
    """
    found: dict[int, tuple[str, dict]] = {}
    for part in sorted(folder.glob("part-*")):
        try:
            rows = [json.loads(line) for line in (part / LISTING).read_text().splitlines()]
        except (OSError, ValueError) as error:
            raise UserError(
                f"{part / LISTING}: cannot be read ({error}); redo with --overwrite"
            ) from error
        for row in rows:
            found[int(Path(row["file_name"]).stem)] = f"{part.name}/{row['file_name']}", row
    missing = [number for number in range(count) if number not in found]
    if missing or len(found) != count:
        raise UserError(
            f"{folder}: its parts list {len(found)} images, expected {count}"
            + (f" (number {missing[0]} is missing)" if missing else "")
            + "; redo with --overwrite"
        )
    return [found[number] for number in range(count)]


def read_folder(folder: Path, channels: int, count: int) -> tuple[Pixels, list[dict]]:
    """All images that the parts list: (n, H, W, channels), and their rows, by the images' numbers.

    Args:
      count: how many there must be.

    Raises:
      UserError: a list or an image cannot be read, or there are not the images 0 ... count - 1.
    """
    names, rows = zip(*read_listing(folder, count), strict=True)
    first = read_image(folder / names[0], channels)
    values = np.empty((count, *first.shape), np.uint8)

    def read(number: int) -> None:
        path = folder / names[number]
        image = read_image(path, channels)
        if image.shape != first.shape:
            raise UserError(f"{path}: has shape {image.shape}, the first image {first.shape}")
        values[number] = image

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(read, range(count), chunksize=100):
            pass
    return Pixels(values), list(rows)
