"""Image lists: text files with a line `path label` for each image, as OpenOOD has them.

A set is given as `name=list.txt@folder`: the list, and the folder that its paths are relative to.
A label is a class of the ID set by its number, or -1.
"""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from dream_jax.data.framing import set_rng
from dream_jax.data.image_sets import DataOptions, ImageSet
from dream_jax.data.images import Images, load_images
from dream_jax.data.labels import select_classes
from dream_jax.data.names import class_label, printable
from dream_jax.data.sources import Files
from dream_jax.data.walk import is_folder
from dream_jax.errors import DataUnavailable, UserError
from dream_jax.fingerprint import of_files

LARGEST = 2**31 - 1  # of the labels
LINE = re.compile(r"(.*\S)\s+(-?[0-9]{1,10})")


@dataclass(frozen=True, eq=False)
class ImageList:
    """The lines of a list.

    Attributes:
      file: the list.
      names: of the images, relative to a folder.
      labels: of each.
    """

    file: str
    names: tuple[str, ...]
    labels: Int[np.ndarray, " n"]


def read_list(file: str) -> ImageList:
    """Reads a list.

    Raises:
      DataUnavailable: there is no such file.
      UserError: it is no list; the message names the line.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataUnavailable(f"there is no image list {printable(file)}")
    status = path.stat()
    return _read(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _read(file: str, modified: int, size: int) -> ImageList:
    """Reads a list; its time and size tell whether it is still the same."""
    try:
        lines = Path(file).read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the image list {printable(file)} cannot be read ({error})") from error
    names, labels = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            name, label = _parsed(line.strip(), f"line {number} of the image list {file}")
            names.append(name)
            labels.append(label)
    if not names:
        raise UserError(f"the image list {printable(file)} has no lines; each is 'path label'")
    return ImageList(file, tuple(names), np.asarray(labels, np.int64))


def _parsed(line: str, where: str) -> tuple[str, int]:
    found = LINE.fullmatch(line)
    label = int(found[2]) if found else LARGEST + 1
    if not found or not -1 <= label <= LARGEST:
        raise UserError(
            f"{printable(where)} is {printable(line)[:120]!r}; it must be 'path label', with a "
            f"whole number of at least -1 as the label"
        )
    name = found[1]
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise UserError(
            f"{printable(where)} names {printable(name)[:120]!r}; paths must be relative to the "
            f"folder of the images, and lie in it"
        )
    return name, label


def check(file: str, folder: str) -> None:
    """Checks that a list and the folder of its images are there, and the list can be read.

    Raises:
      DataUnavailable: one of them is not there.
      UserError: the list cannot be read.
    """
    read_list(file)
    if not is_folder(Path(folder).expanduser()):
        raise DataUnavailable(
            f"there is no folder {printable(folder)}, which has the images of the list "
            f"{printable(file)}"
        )


def load(title: str, file: str, folder: str, options: DataOptions) -> ImageSet:
    """Loads up to `options.count` of the images of a list, in its order, as an OOD set.

    Raises:
      DataUnavailable: the list or the folder is not there.
      UserError: the list is none, or an image is unreadable (see `load_images`).
    """
    check(file, folder)
    count = len(read_list(file).names)
    drawn = set_rng(title, options.seed).choice(count, min(options.count, count), replace=False)
    return ImageSet(title, open_images(file, folder, np.sort(drawn), options)[0])


def open_images(
    file: str, folder: str, rows: Int[np.ndarray, " n"], options: DataOptions
) -> tuple[Images, np.ndarray]:
    """Opens some images of a list; see `load_images`."""
    names = read_list(file).names
    return load_images(Files(str(Path(folder).expanduser()), names), rows, **options.reading)


def fingerprint(file: str, folder: str) -> dict[str, Any]:
    """Returns the fingerprint of a list and of its images; see `IdSet.fingerprint`.

    Images that are missing are left out: what they do is said where the set is loaded.

    Raises:
      DataUnavailable: the list or the folder is not there.
    """
    check(file, folder)
    path, root = Path(file).expanduser(), Path(folder).expanduser()
    there = [name for name in dict.fromkeys(read_list(file).names) if (root / name).is_file()]
    own = {f"list {key}": value for key, value in of_files(path.parent, [path.name]).items()}
    return of_files(root, there) | {key: own[key] for key in ("list contents",)}


def files(file: str, folder: str) -> frozenset[str]:
    """Returns where the images of a list are; none if it is not on this machine."""
    try:
        found = read_list(file)
    except DataUnavailable:
        return frozenset()
    return _files(found, os.path.realpath(os.path.expanduser(folder)))


@lru_cache(maxsize=16)  # each list of a configuration is compared with all others
def _files(found: ImageList, root: str) -> frozenset[str]:
    return frozenset(os.path.normpath(os.path.join(root, name)) for name in found.names)


@dataclass(frozen=True)
class Classes:
    """The classes of an ID set that is given by lists.

    Attributes:
      names: of the classes.
      numbers: of the same in the lists, ascending.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]

    def labels(self, numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the labels of the classes that have these numbers in lists; -1 of others."""
        label_of = {number: label for label, number in enumerate(self.numbers)}
        return np.asarray([label_of.get(number, -1) for number in numbers.tolist()], np.int32)


def classes_of(options: DataOptions) -> Classes:
    """Returns the classes of the list of training images.

    A class is called like the folder of its images, with spaces for underscores, if each class has
    a folder of its own, or else by its number. `data.class_names` gives other names, by the folder
    or by the number, and selects the classes if it is not empty.

    Raises:
      DataUnavailable: there is no such list.
      UserError: it has labels below 0, or lacks a class that is named.
    """
    found = read_list(options.train_list)
    where = f"data.train_list {printable(options.train_list)}"
    if found.labels.min() < 0:
        place = int(np.argmin(found.labels))
        raise UserError(
            f"{where}: {printable(found.names[place])} has the label -1; images of the ID set must "
            f"have that of a class"
        )
    numbers = np.unique(found.labels).tolist()
    given = options.class_names
    by_number = bool(given) and all(label.isdecimal() for label in given)
    labels = [str(number) for number in numbers] if by_number else _folder_labels(found, numbers)
    chosen, names = select_classes(labels, given, where)
    return Classes(names, tuple(numbers[index] for index in chosen))


def _folder_labels(found: ImageList, numbers: list[int]) -> list[str]:
    """Returns the names of the classes' folders, or numbers where these do not tell classes."""
    folders: dict[int, set[str]] = {}
    for name, label in zip(found.names, found.labels.tolist(), strict=True):
        folders.setdefault(label, set()).add(os.path.basename(os.path.dirname(name)))
    labels = [class_label(next(iter(folders[number]))) for number in numbers]
    of_one = all(len(own) == 1 for own in folders.values())
    if of_one and len(set(labels)) == len(labels) and all(labels):
        return labels
    return [str(number) for number in numbers]
