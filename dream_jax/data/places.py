"""Sets that are given by their place: a folder of images, or an image list with their folder."""

import os
from itertools import islice
from pathlib import Path
from typing import Any

from dream_jax.data import folders, lists
from dream_jax.data.image_sets import DataOptions, ImageSet
from dream_jax.rules import place_parts

MOST_LINKS = 100


def check(place: str) -> None:
    """Checks that what a place names is there and can be listed.

    Raises:
      DataUnavailable: it is not there.
      UserError: it cannot be read.
    """
    file, folder = place_parts(place)
    if file:
        lists.check(file, folder)
    else:
        folders.check_folder(folder)


def load(title: str, place: str, options: DataOptions) -> ImageSet:
    """Loads up to `options.count` images of a place as an OOD set.

    Raises:
      DataUnavailable: it is not there.
      UserError: there are none, or one is unreadable (see `load_images`).
    """
    check(place)
    file, folder = place_parts(place)
    if file:
        return lists.load(title, file, folder, options)
    return folders.load_folder(title, folder, options)


def fingerprint(place: str) -> dict[str, Any]:
    """Returns the fingerprint of the images of a place; see `IdSet.fingerprint`.

    Raises:
      DataUnavailable: it is not there.
    """
    file, folder = place_parts(place)
    return lists.fingerprint(file, folder) if file else folders.fingerprint(folder)


def resolved(place: str) -> tuple[Path, ...]:
    """Returns where a place is, whatever its spelling."""
    return tuple(Path(os.path.expanduser(part)).resolve() for part in place_parts(place) if part)


def share_images(one: str, other: str) -> bool:
    """Returns whether two places have images in common, as far as they are on this machine.

    Folders do if one is, or lies in, the other; of lists the images are compared.
    """
    files = [lists.files(*parts) if parts[0] else None for parts in map(place_parts, (one, other))]
    first, second = files
    if first is not None and second is not None:
        return bool(first & second)
    if first is None and second is None:
        return any(
            _within(a, b) or _within(b, a) for a in _roots(Path(one)) for b in _roots(Path(other))
        )
    folder, listed = (one, second) if first is None else (other, first)
    below = os.path.join(os.path.realpath(os.path.expanduser(folder)), "")
    return any(file.startswith(below) for file in listed or ())


def _roots(folder: Path) -> list[Path]:
    """Returns a folder, and what links in it lead to: some of many, which tell enough."""
    folder = folder.expanduser()
    found = [folder.resolve()]
    if os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK):
        with os.scandir(folder) as entries:
            links = islice((entry.path for entry in entries if entry.is_symlink()), MOST_LINKS)
            found += [Path(os.path.realpath(link)) for link in links]
    return found


def _within(inner: Path, outer: Path) -> bool:
    """Returns whether a folder is or lies in another, also where that is mounted twice."""
    if inner.is_relative_to(outer):
        return True
    return os.path.exists(outer) and any(
        os.path.exists(path) and os.path.samefile(path, outer) for path in (inner, *inner.parents)
    )
