"""`imagefolder`: an ID set of one's own images, a folder per class."""

from pathlib import Path
from typing import Any

from dream_jax.data.folders import ALLOWED, class_folders, image_files, load_classes
from dream_jax.data.image_sets import LISTS, DataOptions, IdSet, ImageSet
from dream_jax.data.labels import select_classes
from dream_jax.data.names import class_label
from dream_jax.data.walk import is_folder
from dream_jax.errors import DataUnavailable, UserError
from dream_jax.fingerprint import of_files

TEST_NAMES = ("test", "val")


def _splits(options: DataOptions) -> tuple[Path, Path]:
    """Returns the folders of the training and the test images.

    Raises:
      UserError: data.folder is not given.
      DataUnavailable: one of them is not there.
    """
    if not options.folder:
        raise UserError("data.folder is ''; with data.id = imagefolder it must be a folder")
    root = Path(options.folder).expanduser()
    train = root / "train"
    test = next((root / name for name in TEST_NAMES if is_folder(root / name)), None)
    if not is_folder(train) or test is None:
        missing = "train" if not is_folder(train) else " or ".join(TEST_NAMES)
        raise DataUnavailable(
            f"data.folder {options.folder}: there is no folder {missing} in it; it must hold "
            f"train/<class>/* and test/<class>/* (or val/<class>/*), as {ALLOWED}"
        )
    return train, test


def _check(options: DataOptions) -> None:
    _splits(options)


def imagefolder(options: DataOptions) -> tuple[ImageSet, ImageSet]:
    """Loads the images in `data.folder`: train/<class>/ and test/<class>/ (or val/<class>/).

    A class is a folder with images anywhere below it; classes are in the order of the folders'
    names. Their names are those of the folders with spaces for underscores, or as
    `data.class_names` gives them; if that is not empty, it also selects the classes.

    Raises:
      UserError: a class lacks images, or one of them is unreadable (see `load_images`).
    """
    train, test = _splits(options)
    own, names = _classes(train, test, options)
    return _split(train, own[0], names, options), _split(test, own[1], names, options)


def _classes(
    train: Path, test: Path, options: DataOptions
) -> tuple[tuple[list[str], list[str]], tuple[str, ...]]:
    """Returns each split's folders of the classes, and the names of these; see `imagefolder`."""
    training, testing = _labelled(train), _labelled(test)
    chosen, names = select_classes(list(training), options.class_names, f"data.folder {train}")
    labels = [list(training)[index] for index in chosen]
    unknown = sorted(set(testing) - set(labels)) if not options.class_names else []
    if unknown:
        raise UserError(f"data.folder {test / unknown[0]}: there is no such class in {train}")
    missing = [label for label in labels if label not in testing]
    if missing:
        raise UserError(f"data.folder {train / missing[0]}: there is no such class in {test}")
    return ([training[label] for label in labels], [testing[label] for label in labels]), names


def _labelled(split: Path) -> dict[str, str]:
    """Returns the label of each class in a split, and its folder; in the order of the folders.

    Raises:
      UserError: two folders have one label.
    """
    found: dict[str, str] = {}
    for folder in class_folders(split):
        if found.setdefault(class_label(folder), folder) != folder:
            raise UserError(
                f"data.folder {split}: two folders are called {class_label(folder)!r}, with its "
                "characters composed in one and taken apart in the other; put them together"
            )
    return found


def fingerprint(options: DataOptions) -> dict[str, Any]:
    """Returns the classes and the files of both splits; see `IdSet.fingerprint`."""
    train, test = _splits(options)
    own, names = _classes(train, test, options)
    found: dict[str, Any] = {"classes": list(names)}
    for title, split, folders in (("training", train, own[0]), ("test", test, own[1])):
        files = [f"{folder}/{name}" for folder in folders for name in image_files(split / folder)]
        found |= {f"{title} {key}": value for key, value in of_files(split, files).items()}
    return found


def _split(
    split: Path, folders: list[str], names: tuple[str, ...], options: DataOptions
) -> ImageSet:
    classes = [(folder, label) for label, folder in enumerate(folders)]
    return ImageSet("imagefolder", *load_classes(split, classes, options), names)


SET = IdSet("imagefolder", imagefolder, _check, fingerprint=fingerprint, ignores=LISTS)
