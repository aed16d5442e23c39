"""The one reader of image files: which formats, how large, and how many at a time.

Pillow is told the formats when it opens a file. Left to itself, it tries all that it knows, and for
PostScript under an image's name it would start an interpreter.
"""

import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from dream_jax.data.names import printable
from dream_jax.git_lfs import ADVICE, POINTER

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Pixels that the threads of a process decode at the same time, and so the most that an image may
# have. One takes up to 14 bytes while it is decoded and converted: less than 1 GiB together.
MOST_PIXELS = 2**26
# Pixels of WebP count twice: the decoder holds two canvases, and the file two times.
COUNTS = {"WEBP": 2}
MOST_SIDE = 2**20  # pixels; Pillow keeps an address for each row, and weights for each pixel
# Pillow allocates pixels in blocks of this many bytes. Above 32 MiB, glibc gives them back to the
# system when they are freed; smaller ones, each thread would keep, up to 1 GiB.
Image.core.set_block_size(2**26)
# What files that are no images begin with, and what they are.
OTHERS = {
    POINTER: f"is a Git LFS pointer; {ADVICE}",
    b"%!PS": "is PostScript",
    b"\xc5\xd0\xd3\xc6": "is PostScript",
    b"%PDF": "is a PDF",
    b"8BPS": "is a Photoshop file",
    b"<?xml": "is XML, perhaps an SVG drawing",
    b"<svg": "is an SVG drawing",
    b"<!doctype html": "is a page of the web",
    b"<html": "is a page of the web",
}
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}

# Pillow warns of large images, which are refused here, and of what is odd in a readable file; of
# what it cannot read it logs what the exception then says as well.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)


class NotReadable(Exception):
    """An image cannot be read; the message says why, and not which."""


def open_image(file: str | os.PathLike[str] | bytes) -> Image.Image:
    """Opens an image, whose pixels need not be decoded.

    JPEGs of more than `MOST_PIXELS` are opened at a half, a quarter or an eighth of their size, to
    which their decoder scales them; progressive ones, which it must hold whole, are refused.

    Args:
      file: its path, or its content.

    Raises:
      NotReadable: it is no regular file, of no format that is read, or too large.
      Exception: Pillow and the system raise many kinds.
    """
    if not isinstance(file, bytes):
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
            raise NotReadable("is not a regular file")
        if not status.st_size:
            raise NotReadable("is an empty file")
    try:
        image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise NotReadable(_kind(file)) from error
    except Image.DecompressionBombError as error:  # above twice Pillow's own limit
        raise NotReadable(f"has more than the {MOST_PIXELS:,} pixels allowed") from error
    if counted(image) <= MOST_PIXELS and max(image.size) <= MOST_SIDE:
        return image
    if not image.info.get("progressive"):
        width, height = image.size
        for part in (2, 4, 8):
            if counted(image) > MOST_PIXELS:
                image.draft(None, (width // part, height // part))
    if counted(image) > MOST_PIXELS or max(image.size) > MOST_SIDE:
        width, height = image.size
        most = MOST_PIXELS // COUNTS.get(image.format or "", 1)
        image.close()
        raise NotReadable(
            f"has {width:,} x {height:,} pixels; allowed: {most:,}, and {MOST_SIDE:,} a side"
        )
    return image


def counted(image: Image.Image) -> int:
    """Returns the pixels of an image, as far as they count towards `MOST_PIXELS`."""
    return image.width * image.height * COUNTS.get(image.format or "", 1)


def _kind(file: str | os.PathLike[str] | bytes) -> str:
    """Returns what is wrong with an image of none of the formats."""
    start = file[:64] if isinstance(file, bytes) else b""
    if not isinstance(file, bytes):
        with open(file, "rb") as opened:
            start = opened.read(64)
    for beginning, kind in OTHERS.items():
        if start.lstrip().lower().startswith(beginning.lower()):
            return kind
    names = ", ".join(FORMATS[:-1])
    brand = BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else None
    if brand:
        return f"is {brand}, not {names} or {FORMATS[-1]}"
    return f"is not {names} or {FORMATS[-1]}, or is damaged"


def reason(error: Exception) -> str:
    """Returns why an image cannot be read, in one line without its path."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error) if isinstance(error, NotReadable) else f"{type(error).__name__}: {error}"
    return printable(" ".join(text.split())[:200])


class Decoding:
    """The pixels that the threads of a process decode at the same time."""

    def __init__(self, most: int = MOST_PIXELS):
        self._most = most
        self._pixels = 0
        self._changed = threading.Condition()

    @contextmanager
    def __call__(self, image: Image.Image) -> Iterator[None]:
        """Waits until there is room for an image, keeps it, and closes the image at the end.

        Nothing else may be read meanwhile, or two threads could wait for each other.
        """
        pixels = min(counted(image), self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._pixels + pixels <= self._most)
            self._pixels += pixels
        try:
            yield
        finally:
            image.close()  # frees its pixels, before others take their room
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()


decoding = Decoding()
