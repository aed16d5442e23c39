"""`imagelist`: an ID set given by a list of training and one of test images, as OpenOOD's are."""

from typing import Any

import numpy as np

from dream_jax.data import lists
from dream_jax.data.image_sets import DataOptions, IdSet, ImageSet
from dream_jax.data.names import printable
from dream_jax.errors import UserError


def _check(options: DataOptions) -> None:
    """Checks that both lists and the folder are there, and that the lists fit each other."""
    for field, file in (("train_list", options.train_list), ("test_list", options.test_list)):
        if not file or not options.folder:
            missing = field if options.folder else "folder"
            raise UserError(f"data.{missing} is ''; with data.id = imagelist it must be given")
        lists.check(file, options.folder)
    both = set(lists.read_list(options.train_list).names) & set(
        lists.read_list(options.test_list).names
    )
    if both:
        raise UserError(
            f"data.train_list and data.test_list both have {printable(min(both))} ({len(both)} "
            f"such); an image must be in one of them only"
        )


def imagelist(options: DataOptions) -> tuple[ImageSet, ImageSet]:
    """Loads the images of `data.train_list` and `data.test_list`, which lie in `data.folder`.

    Images are in the order of the lists. See `lists.classes_of` for the classes.

    Raises:
      UserError: a list has a label of no class, or lacks one, or an image is unreadable.
    """
    _check(options)
    classes = lists.classes_of(options)
    train = _split("train_list", options.train_list, classes, options)
    return train, _split("test_list", options.test_list, classes, options)


def _split(field: str, file: str, classes: lists.Classes, options: DataOptions) -> ImageSet:
    _check_once(f"data.{field} {printable(file)}", lists.read_list(file))
    numbers = lists.read_list(file).labels
    labels = classes.labels(numbers)
    if not options.class_names and labels.min() < 0:
        number = int(numbers[np.argmin(labels)])
        raise UserError(
            f"data.{field} {printable(file)}: has the label {number}; those of data.train_list are "
            f"{classes.numbers[0]} to {classes.numbers[-1]}"
        )
    missing = np.setdiff1d(np.arange(len(classes.names)), labels)
    if missing.size:
        raise UserError(
            f"data.{field} {printable(file)}: has no image of class "
            f"{classes.names[missing[0]]!r}, label {classes.numbers[missing[0]]}"
        )
    rows = np.flatnonzero(labels >= 0)
    images, kept = lists.open_images(file, options.folder, rows, options)
    return ImageSet("imagelist", images, labels[rows][kept], classes.names)


def _check_once(where: str, found: lists.ImageList) -> None:
    """Raises UserError if an image is there with two labels."""
    label_of: dict[str, int] = {}
    for name, label in zip(found.names, found.labels.tolist(), strict=True):
        if label_of.setdefault(name, label) != label:
            raise UserError(
                f"{where}: {printable(name)} has the labels {label_of[name]} and {label}; an image "
                f"must be of one class"
            )


def fingerprint(options: DataOptions) -> dict[str, Any]:
    """Returns the classes, both lists and their images; see `IdSet.fingerprint`."""
    _check(options)
    found: dict[str, Any] = {"classes": list(lists.classes_of(options).names)}
    for title, file in (("training", options.train_list), ("test", options.test_list)):
        own = lists.fingerprint(file, options.folder)
        found |= {f"{title} {key}": value for key, value in own.items()}
    return found


SET = IdSet("imagelist", imagelist, _check, fingerprint=fingerprint)
