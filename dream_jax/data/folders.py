"""Images in folders: a folder per class with labels, or any folder as an OOD set."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.data.framing import set_rng
from dream_jax.data.image_sets import DataOptions, ImageSet
from dream_jax.data.images import Images, load_images
from dream_jax.data.sources import Files
from dream_jax.errors import DataUnavailable, UserError
from dream_jax.fingerprint import of_files


def class_folders(split: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones."""
    return sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))


def load_classes(
    root: Path, classes: Sequence[tuple[str, int]], options: DataOptions
) -> tuple[Images, np.ndarray]:
    """Loads the images in folders of classes, and their labels, int32 (n,).

    Args:
      classes: (folder in `root`, label) of each class; images may lie anywhere below the folder.

    Raises:
      UserError: a class lacks images, or one of them is unreadable (see `load_images`).
    """
    files, labels = [], []
    for folder, label in classes:
        found = image_files(root / folder)
        if not found:
            raise UserError(f"{root / folder}: no png, jpg or jpeg images")
        files += [f"{folder}/{name}" for name in found]
        labels += [label] * len(found)
    source, labels = Files(str(root), files), np.asarray(labels, np.int32)
    images, kept = load_images(source, np.arange(len(files)), **options.reading)
    return images, labels[kept]


def check_folder(folder: str) -> None:
    """Raises DataUnavailable if a folder given as an OOD set or a shifted set is not there."""
    if not Path(folder).expanduser().is_dir():
        raise DataUnavailable(f"there is no folder {folder}, which is given as a set of images")


def load_folder(name: str, folder: str, options: DataOptions) -> ImageSet:
    """Loads a random part of the images anywhere below a folder, as an OOD set.

    Raises:
      UserError: there are none, or one is unreadable (see `load_images`).
    """
    path = Path(folder).expanduser()
    files = image_files(path)
    if not files:
        raise UserError(f"{folder}, given as an OOD set, holds no png, jpg or jpeg images")
    rng = set_rng(name, options.seed)
    rows = rng.choice(len(files), min(options.count, len(files)), replace=False)
    images, _ = load_images(Files(str(path), files), rows, **options.reading)
    return ImageSet(name, images)


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

    Images are files with the suffix png, jpg or jpeg, in any case. Names that begin with a dot are
    left out, because some systems keep notes under an image's name with a dot before it.
    """
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith((".png", ".jpg", ".jpeg")) and not name.startswith("."):
                found.append(os.path.relpath(os.path.join(parent, name), folder))
    return sorted(found)
