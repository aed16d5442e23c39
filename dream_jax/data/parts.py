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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dream_jax.data.images import Images
from dream_jax.data.modes import to_mode
from dream_jax.data.reader import open_image, reason
from dream_jax.data.sources import Files, to_bytes, to_pillow
from dream_jax.errors import UserError
from dream_jax.files import PARTIAL, write_whole

THREADS = 8  # that read or write image files
WAITING = 64  # images per process that may wait to be written
LISTING = "metadata.jsonl"


def write_image(path: Path, image: Float[np.ndarray, "H W C"]) -> None:
    """Writes an image in [0, 1] as an 8-bit PNG, which is whole or not there."""
    write_whole(path, lambda partial: to_pillow(to_bytes(image)).save(partial, "PNG"))


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


def read_image(path: Path, channels: int) -> UInt8[np.ndarray, "H W C"]:
    """Reads an image file.

    Raises:
      UserError: the file is empty, unreadable or cut short.
    """
    try:
        with open_image(path) as image:
            pixels = np.asarray(to_mode(image, channels))
    except Exception as error:  # Pillow raises many kinds
        raise UserError(
            f"{path}: not a readable image ({reason(error)}); delete it to make it again"
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
            if file.name.endswith(".png") and not file.name.startswith(PARTIAL)
        ]
        for part in sorted(folder.glob("part-*"))
    }


def write_metadata(part: Path, rows: Sequence[dict]) -> None:
    """One JSON object a line; each names its `file_name` relative to the part."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # A name that is not UTF-8 has lone surrogates, which JSON writes as escapes.
    content = text.encode("utf-8", "backslashreplace")
    write_whole(part / LISTING, lambda partial: partial.write_bytes(content))


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
            # Not by `splitlines`: a name may hold what Unicode takes for the end of a line.
            lines = (part / LISTING).read_text(encoding="utf-8").split("\n")
            for row in map(json.loads, filter(None, lines)):
                found[int(Path(row["file_name"]).stem)] = f"{part.name}/{row['file_name']}", row
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{part / LISTING}: cannot be read ({type(error).__name__}: {error}); redo with "
                "--overwrite"
            ) from error
    missing = [number for number in range(count) if number not in found]
    if missing or len(found) != count:
        raise UserError(
            f"{folder}: its parts list {len(found)} images, expected {count}"
            + (f" (number {missing[0]} is missing)" if missing else "")
            + "; redo with --overwrite"
        )
    return [found[number] for number in range(count)]


@dataclass(frozen=True)
class DecodedFiles(Files):
    """Image files that all have one size, (width, height)."""

    image_size: tuple[int, int] = (0, 0)
    remedy = "; delete it to make it again"

    def open(self, index: int) -> Image.Image:
        image = super().open(index)
        if image.size != self.image_size:
            raise UserError(
                f"{self.name(index)}: has size {image.size}, the first image {self.image_size}"
            )
        return image


def read_decoded(
    folder: Path, count: int, size: int, channels: int, hold_bytes: int
) -> tuple[Images, list[dict]]:
    """Returns all images that the parts list, and their entries, by the images' numbers.

    Args:
      count: how many there must be.
      size, channels: of the images that are returned, whatever those of the files.
      hold_bytes: the largest size of the pixels that are held in memory.

    Raises:
      UserError: a list or an image cannot be read, or there are not the images 0 ... count - 1.
    """
    names, entries = zip(*read_listing(folder, count), strict=True)
    first = read_image(folder / names[0], channels)
    source = DecodedFiles(str(folder), names, first.shape[1::-1])
    images = Images(source, np.arange(count), size, channels, crop=False)
    return images.hold(hold_bytes), list(entries)
