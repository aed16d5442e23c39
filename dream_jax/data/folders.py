"""Images in folders: a folder per class with labels, or any folder as an OOD set."""

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.data.framing import set_rng
from dream_jax.data.image_sets import DataOptions, ImageSet
from dream_jax.data.images import Images, load_images
from dream_jax.data.names import printable
from dream_jax.data.reader import SUFFIXES
from dream_jax.data.sources import Files
from dream_jax.data.walk import (
    ABOVE_CLASSES,
    BROKEN,
    OTHER_FORMATS,
    UPWARDS,
    Walk,
    described,
    entries,
    is_folder,
    is_within,
    unreadable_folder,
)
from dream_jax.errors import DataUnavailable, UserError
from dream_jax.fingerprint import of_files

ALLOWED = f"{', '.join(suffix[1:] for suffix in SUFFIXES[:-1])} or {SUFFIXES[-1][1:]}"


def class_folders(split: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones.

    Links to a folder that they are in are left out.

    Raises:
      UserError: the folder cannot be read.
    """
    return _top(split)[0]


def _top(split: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Returns the folders of classes, and what is left out, by the reason for it."""
    classes: list[str] = []
    left_out: dict[str, list[str]] = {}
    for entry in entries(split):
        try:
            folder = entry.is_dir()
        except OSError as error:
            raise unreadable_folder(Path(entry.path), error) from error
        if not folder:
            if not os.path.exists(entry.path):
                left_out.setdefault(BROKEN, []).append(entry.name)
            elif entry.name.lower().endswith(SUFFIXES + OTHER_FORMATS):
                left_out.setdefault(ABOVE_CLASSES, []).append(entry.name)
        elif entry.is_symlink() and is_within(os.path.realpath(split), os.path.realpath(entry)):
            left_out.setdefault(UPWARDS, []).append(entry.name)
        else:
            classes.append(entry.name)
    return classes, left_out


def load_classes(
    root: Path, classes: Sequence[tuple[str, int]], options: DataOptions
) -> tuple[Images, np.ndarray]:
    """Loads the images in folders of classes, and their labels, int32 (n,).

    A line says what is left out.

    Args:
      classes: (folder in `root`, label) of each class; images may lie anywhere below the folder.

    Raises:
      UserError: a class lacks images, or one of them is unreadable (see `load_images`).
    """
    walk = Walk(root)
    found = walk.below([folder for folder, _ in classes])
    for (folder, _), names in zip(classes, found, strict=True):
        if not names:
            raise _no_images(str(root / folder), "", walk)
    walk.left_out |= _top(root)[1]
    _say_left_out(str(root), walk)
    files = [name for names in found for name in names]
    labels = np.repeat([label for _, label in classes], [len(names) for names in found])
    images, kept = load_images(Files(str(root), files), np.arange(len(files)), **options.reading)
    return images, labels.astype(np.int32)[kept]


def check_folder(folder: str) -> None:
    """Checks that a folder given as an OOD set or a shifted set is there and can be listed.

    Raises:
      DataUnavailable: it is not there.
      UserError: it cannot be read.
    """
    path = Path(folder).expanduser()
    if not is_folder(path):
        raise DataUnavailable(
            f"there is no folder {printable(folder)}, which is given as a set of images"
        )
    entries(path)


def load_folder(name: str, folder: str, options: DataOptions) -> ImageSet:
    """Loads a random part of the images anywhere below a folder, as an OOD set.

    A line says what is left out.

    Raises:
      UserError: there are none, or one is unreadable (see `load_images`).
    """
    files = found_images(folder, ", given as a set of images")
    rng = set_rng(name, options.seed)
    rows = rng.choice(len(files), min(options.count, len(files)), replace=False)
    images, _ = load_images(Files(str(Path(folder).expanduser()), files), rows, **options.reading)
    return ImageSet(name, images)


def found_images(folder: str, given: str = "") -> list[str]:
    """Returns the images anywhere below a folder, relative to it and sorted; see `image_files`.

    A line says what is left out.

    Args:
      given: what the message says of the folder if it holds none.

    Raises:
      UserError: there are none, or a folder cannot be read.
    """
    walk = Walk(Path(folder).expanduser())
    (files,) = walk.below(["."])
    if not files:
        raise _no_images(folder, given, walk)
    _say_left_out(folder, walk)
    return files


def fingerprint(folder: str) -> dict[str, Any]:
    """Returns the fingerprint of the images anywhere below a folder; see `IdSet.fingerprint`.

    Raises:
      DataUnavailable: there is no such folder.
    """
    check_folder(folder)
    path = Path(folder).expanduser()
    return of_files(path, image_files(path))


def image_files(folder: Path) -> list[str]:
    """Returns the images anywhere below a folder, relative to it and sorted.

    Images are files with one of `reader.SUFFIXES`, in any case. See `Walk` for links, and
    `entries` for hidden names.

    Raises:
      UserError: a folder cannot be read.
    """
    (files,) = Walk(folder).below(["."])
    return files


def _no_images(folder: str, given: str, walk: Walk) -> UserError:
    left_out = f"; left out: {described(walk.left_out)}" if walk.left_out else ""
    return UserError(f"{printable(folder)}{given}: holds no {ALLOWED} images{left_out}")


def _say_left_out(folder: str, walk: Walk) -> None:
    if walk.left_out:
        _say(f"{printable(folder)}: left out {described(walk.left_out)}")


@functools.cache
def _say(line: str) -> None:
    """Prints a line, once in a process: a set is loaded again where a stage asks for it again."""
    print(line, file=sys.stderr)
