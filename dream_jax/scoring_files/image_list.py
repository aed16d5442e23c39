"""Which files are scored: the images of folders, and files by their names."""

import glob
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from dream_jax.data.folders import ALLOWED, found_images
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.images import Images, load_images
from dream_jax.data.names import printable
from dream_jax.data.reader import open_image
from dream_jax.data.sources import Files
from dream_jax.data.walk import is_folder, is_image_name, is_within
from dream_jax.errors import UserError
from dream_jax.settings import DataSettings

LOOKED_AT = 100
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")


def list_images(given: Sequence[str]) -> list[str]:
    """Returns the paths of all images, those of a folder sorted, in the order of what is given.

    Args:
      given: folders, whose images may lie anywhere below them; image files; patterns such as
        "photos/*.jpg", where there is no file of that name.

    Raises:
      UserError: names what is not there, is no image by its name, or is given twice; or a folder
        without images.
    """
    if not given or "" in given:  # the empty path would be the folder where the program runs
        raise UserError("--images is not given; it must be a folder of images, or image files")
    paths = [path for pattern in given for path in _matches(pattern)]
    folders = [path for path in paths if is_folder(Path(path))]
    for path in paths:
        if path not in folders:
            _check_file(path)
    _refuse_twice(paths, folders)
    images: list[str] = []
    for path in paths:
        below = found_images(path) if path in folders else None
        images += [path] if below is None else [os.path.join(path, name) for name in below]
    return images


def read_images(given: Sequence[str], data: DataSettings) -> tuple[Images, list[str]]:
    """Reads images as the images of a run are read, in memory if they fit.

    Args:
      given: see `list_images`.
      data: the settings of the run: size, channels, and what an unreadable image does.

    Returns:
      The images that can be read, and their paths.

    Raises:
      UserError: see `list_images` and `load_images`.
    """
    paths = list_images(given)
    reading = DataOptions.of(data, count=1).reading
    images, kept = load_images(Files("", paths), np.arange(len(paths)), **reading)
    return images, [path for path, own in zip(paths, kept, strict=True) if own]


def colour_note(images: Sequence[str], channels: int) -> str:
    """Returns a line if a network that sees grey is given colours, by the first images; else "".

    They are read as a training with `data.channels=1` reads them.
    """
    looked_at = images[:LOOKED_AT] if channels == 1 else ()
    colours = 0
    for path in looked_at:
        with suppress(Exception), open_image(path) as image:  # reading it says why
            colours += image.mode not in GREY_MODES
    if not colours:
        return ""
    return (
        f"note: {colours} of the first {len(looked_at)} images have 3 channels or more; the "
        f"network sees 1, and they are read in grey, as its training would"
    )


def names_digest(images: Sequence[str]) -> str:
    """Returns what tells a list of paths from another."""
    digest = hashlib.sha256()
    for path in images:
        digest.update(os.fsencode(path) + b"\0")
    return digest.hexdigest()


def files_digest(images: Sequence[str]) -> str:
    """Returns what tells files from those that lay there before: their sizes and times.

    Reads no image, so that it is quick for a million of them.
    """
    digest = hashlib.sha256()
    for path in images:
        try:
            status = os.stat(path)
            digest.update(f"{status.st_size} {status.st_mtime_ns}\0".encode())
        except OSError:  # reading it says why
            digest.update(b"unreadable\0")
    return digest.hexdigest()


def _matches(pattern: str) -> list[str]:
    """Returns the paths that an argument stands for."""
    path = os.path.expanduser(pattern)
    if os.path.lexists(path) or not glob.has_magic(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        raise UserError(f"--images is {printable(pattern)}; there is no such file")
    return found


def _check_file(path: str) -> None:
    """Raises UserError unless a path is that of an image."""
    if not os.path.isfile(path):
        fault = "is neither a file nor a folder" if os.path.lexists(path) else "is not there"
        raise UserError(
            f"--images: {printable(path)} {fault}; it must be a folder of images, or an image file"
        )
    if not is_image_name(path):
        raise UserError(
            f"--images: {printable(path)} is no image by its name; allowed: {ALLOWED} files, and "
            f"folders of them"
        )


def _refuse_twice(paths: Sequence[str], folders: Sequence[str]) -> None:
    """Raises UserError if a path is given twice, or lies in a folder that is given."""
    known: dict[str, str] = {}  # real path → as it was given
    for path in paths:
        if (other := known.setdefault(os.path.realpath(path), path)) != path:
            raise _twice(other, path)
    if len(known) < len(paths):
        raise _twice(next(path for path in paths if paths.count(path) > 1), "itself")
    for folder in map(os.path.realpath, folders):
        for real, path in known.items():
            if real != folder and is_within(real, folder):
                raise _twice(known[folder], path)


def _twice(one: str, other: str) -> UserError:
    return UserError(
        f"--images has {printable(one)} and {printable(other)}, which have images in common; give "
        f"each image once"
    )
