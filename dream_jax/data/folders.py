"""Sets of images in folders: ID sets by class (`imagefolder`), OOD sets of any shape."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.data.framing import set_rng
from dream_jax.data.images import Files, image_files, load_images
from dream_jax.data.labels import select_classes
from dream_jax.data.registry import DataOptions, ImageSet, id_set
from dream_jax.errors import DataUnavailable, UserError

TEST_NAMES = ("test", "val")


def _splits(options: DataOptions) -> tuple[Path, Path]:
    """The folders of the training and the test images.

    Raises:
      UserError: data.folder is not given.
      DataUnavailable: one of them is not there.
    """
    if not options.folder:
        raise UserError("data.folder is ''; with data.id = imagefolder it must be a folder")
    root = Path(options.folder).expanduser()
    train = root / "train"
    test = next((root / name for name in TEST_NAMES if (root / name).is_dir()), None)
    if not train.is_dir() or test is None:
        missing = "train" if not train.is_dir() else " or ".join(TEST_NAMES)
        raise DataUnavailable(
            f"data.folder {options.folder}: there is no folder {missing} in it; it must hold "
            "train/<class>/* and test/<class>/* (or val/<class>/*), as png, jpg or jpeg"
        )
    return train, test


def _check(options: DataOptions) -> None:
    _splits(options)


@id_set("imagefolder", check=_check)
def imagefolder(options: DataOptions) -> tuple[ImageSet, ImageSet]:
    """The images in `data.folder`: train/<class>/ and test/<class>/ (or val/<class>/).

    A class is a folder with images anywhere below it; classes are in the order of the folders'
    names. Their names are those of the folders with spaces for underscores, or as
    `data.class_names` gives them; if that is not empty, it also selects the classes.

    Raises:
      UserError: a class lacks images, or one of them is unreadable (see `load_images`).
    """
    train, test = _splits(options)
    folders = class_folders(train)
    chosen, names = select_classes(folders, options.class_names, f"data.folder {train}")
    folders = [folders[index] for index in chosen]
    unknown = sorted(set(class_folders(test)) - set(folders)) if not options.class_names else []
    if unknown:
        raise UserError(f"data.folder {test / unknown[0]}: there is no such class in {train}")
    return _split(train, folders, names, options), _split(test, folders, names, options)


def class_folders(split: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))


def _split(
    split: Path, folders: list[str], names: tuple[str, ...], options: DataOptions
) -> ImageSet:
    classes = [(folder, label) for label, folder in enumerate(folders)]
    return ImageSet("imagefolder", *load_classes(split, classes, options), names)


def load_classes(
    root: Path, classes: Sequence[tuple[str, int]], options: DataOptions
) -> tuple[Any, np.ndarray]:
    """The images in folders of classes, and their labels: (n, H, W, C) and int32 (n,).

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
    """A random part of the images anywhere below a folder, as an OOD set.

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
