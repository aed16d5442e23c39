"""Where images are: files, records, arrays. Each source opens an image by its index."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from dream_jax.data.names import printable
from dream_jax.data.reader import open_image
from dream_jax.errors import UserError

AT_ONCE = 1024  # examples that are read at once
VANISHED = ", though it was one when the run began"


class ImageSource(Protocol):
    """Images, each opened by its index."""

    @property
    def remedy(self) -> str:
        """What the message about an image that cannot be read ends with."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Returns what a message calls the image."""

    def open(self, index: int) -> Image.Image:
        """Returns the image, whose pixels need not be decoded; see `reader.open_image`."""


def fetch(source: ImageSource, indices: list[int]) -> ImageSource:
    """Returns a source of some images, read at once where that is faster than one by one."""
    return source.fetch(indices) if isinstance(source, Records) else source


@dataclass(frozen=True)
class Files:
    """Image files below a folder.

    Attributes:
      root: the folder.
      names: of the files, relative to it.
    """

    root: str
    names: Sequence[str]
    remedy = VANISHED

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return printable(self.path(index))

    def path(self, index: int) -> str:
        """Returns where the file is, which need not be a text that can be printed."""
        return os.path.join(self.root, self.names[index])

    def open(self, index: int) -> Image.Image:
        return open_image(self.path(index))


@dataclass(frozen=True)
class Records:
    """The examples of a split that TFDS has prepared.

    Attributes:
      examples: index → {"image": encoded bytes, ...}, a `tfds.data_source` without image decoding.
      title: set and split.
    """

    examples: Any
    title: str
    remedy = VANISHED

    def __len__(self) -> int:
        return len(self.examples)

    def name(self, index: int) -> str:
        return f"{self.title}, example {index}"

    def open(self, index: int) -> Image.Image:
        return open_image(self.examples[int(index)]["image"])

    def labels(self) -> Int[np.ndarray, " n"]:
        """Returns the labels of all examples."""
        starts = range(0, len(self), AT_ONCE)
        parts = (list(range(s, min(s + AT_ONCE, len(self)))) for s in starts)
        return np.array([e["label"] for part in parts for e in self._read(part)], np.int64)

    def _read(self, indices: list[int]) -> Sequence[dict]:
        """Returns some examples: read at once, they take a tenth of the time of one by one."""
        return self.examples.__getitems__(indices)

    def fetch(self, indices: list[int]) -> "Records":
        """Returns the source of some examples, which are in memory."""
        try:
            read = self._read(indices)
        except Exception:  # TFDS raises many kinds; opening each shows which one is damaged
            return self
        return replace(self, examples=dict(zip(indices, read, strict=True)))


@dataclass(frozen=True, eq=False)
class Pixels:
    """An array of images.

    Attributes:
      values: uint8 (n, H, W, C).
    """

    values: UInt8[np.ndarray, "n H W C"]
    remedy = ""

    def __len__(self) -> int:
        return len(self.values)

    def name(self, index: int) -> str:
        return f"image {index} of an array"

    def open(self, index: int) -> Image.Image:
        return to_pillow(self.values[index])


@dataclass(frozen=True)
class Stored:
    """The images of a .npy file, uint8 (n, H, W, C), of which only those asked for are read."""

    path: str
    remedy = ""

    @cached_property
    def values(self) -> UInt8[np.ndarray, "n H W C"]:
        """The array, mapped from the file. Raises UserError where it is damaged."""
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy and the system raise many kinds
            raise UserError(
                f"{self.path}: cannot be read ({error}); delete it to redo its stage"
            ) from error

    def __len__(self) -> int:
        return len(self.values)

    def __getstate__(self) -> dict[str, str]:
        return {"path": self.path}  # a worker process opens the file itself

    def name(self, index: int) -> str:
        return f"{self.path}, image {index}"

    def open(self, index: int) -> Image.Image:
        return to_pillow(np.array(self.values[index]))


def to_pillow(pixels: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """Returns pixels as a grey or an RGB image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def to_bytes(values: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Returns floats in [0, 1] as bytes; what lies outside is clipped."""
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
