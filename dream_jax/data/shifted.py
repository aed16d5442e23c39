"""Test sets of the ID classes with another look, on which a classifier's accuracy is measured.

A name is

- a corruption of `corruptions.CORRUPTIONS`: the ID test images, corrupted at five strengths;
- a labelled set in TFDS: `cifar10_corrupted/fog_3`, or `cifar10_corrupted/fog` for all strengths,
  or `cifar10_corrupted` for all of the benchmark's fifteen corruptions;
- `name=folder`, with a folder per class, as `imagenet_a=data/imagenet-a`;
- `name=list.txt@folder`, an image list whose labels are the numbers of the ID classes.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dream_jax.data import folders, lists, places, tfds
from dream_jax.data.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from dream_jax.data.image_sets import DataOptions, ImageSet
from dream_jax.data.images import Images
from dream_jax.data.names import class_label
from dream_jax.data.photographs import path_of
from dream_jax.errors import UserError
from dream_jax.rules import place_parts

GRADED = re.compile(r"(.+)_([1-5])")
# Corruptions of CIFAR-10-C and ImageNet-C that are not among the fifteen of the benchmark.
EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")
# The 1,000 wnids in the order of ImageNet's class indices.
WNIDS = "tensorflow_datasets/datasets/imagenet2012/labels.txt"


class Shifted(NamedTuple):
    """One shifted test set.

    Attributes:
      family: what its strengths have in common, such as "blur" or "cifar10_corrupted/fog".
      strength: 1 to 5; 0 for a set without strengths.
      images: with labels and the class names of the ID set.
    """

    family: str
    strength: int
    images: ImageSet


def parts(name: str, options: DataOptions) -> list[tuple[str, int]]:
    """Families and strengths of what a name stands for, in the order of `load_shifted`.

    Raises:
      UserError: the name stands for nothing, on this machine or elsewhere.
    """
    title, is_folder, folder = name.partition("=")
    if is_folder and title and folder:
        return [(title, 0)]
    if name in CORRUPTIONS:
        return [(name, strength) for strength in STRENGTHS]
    if tfds.is_tfds_name(name):
        dataset, _, config = name.partition("/")
        configs = tfds.configurations(dataset, options)
        graded = [match.groups() for match in map(GRADED.fullmatch, configs) if match]
        chosen = [
            (f"{dataset}/{family}", int(strength))
            for family, strength in sorted(graded)
            if config in (family, f"{family}_{strength}") or (not config and family not in EXTRA)
        ]
        if chosen:
            return chosen
        if tfds.known(name, options):
            return [(name, 0)]
    raise UserError(
        f"there is no shifted set {name!r}; allowed: {', '.join(CORRUPTIONS)}, a name in TFDS, "
        "name=folder, name=list.txt@folder"
    )


def check_shifted(name: str, options: DataOptions) -> None:
    """Returns if the sets of a name can be loaded, without reading their images.

    TFDS sets that are not prepared are, if this machine can do it.

    Raises:
      UserError: there is no such set.
      DataUnavailable: its data is not on this machine; the message says how to get it.
    """
    found = parts(name, options)
    if place_parts(name)[0]:
        places.check(name.partition("=")[2])
    elif "=" in name:
        _folder_of_classes(name)
    elif name not in CORRUPTIONS:
        for family, strength in found:
            tfds.prepare(_set_name(family, strength), options)


def load_shifted(name: str, id_test: ImageSet, options: DataOptions) -> Iterator[Shifted]:
    """The sets of a name, one after the other, each loaded when it is asked for.

    Images of classes that the ID set lacks are left out.

    Args:
      id_test: the ID set's test images, with labels.
      options: those that `id_test` was loaded with.

    Raises:
      UserError: there is no such set, an image is unreadable, or none is of an ID class.
      DataUnavailable: its data is not on this machine.
    """
    for family, strength in parts(name, options):
        title = _set_name(family, strength)
        if name in CORRUPTIONS:
            images = corrupted(id_test.images, family, strength, options.seed)
            labels = id_test.labels
        elif place_parts(name)[0]:
            images, labels = _load_list(name, id_test, options)
        elif "=" in name:
            images, labels = _load_folder(name, id_test, options)
        else:
            images, labels = tfds.load_labelled(
                title, options, partial(_tfds_labels, title=title, id_test=id_test, options=options)
            )
        yield Shifted(family, strength, ImageSet(title, images, labels, id_test.class_names))


def fingerprint(name: str, options: DataOptions) -> dict[str, Any]:
    """Returns what tells the sets of a name from others of it; see `IdSet.fingerprint`."""
    if "=" in name:
        return places.fingerprint(name.partition("=")[2])
    if name in CORRUPTIONS:
        return {}
    titles = [_set_name(*part) for part in parts(name, options)]
    return {title: tfds.fingerprint(title, options) for title in titles}


def _set_name(family: str, strength: int) -> str:
    return f"{family}_{strength}" if strength else family


def _folder_of_classes(name: str) -> Path:
    folder = name.partition("=")[2]
    folders.check_folder(folder)
    root = Path(folder).expanduser()
    if not folders.class_folders(root):
        raise UserError(f"the shifted set {name} has no folders of classes")
    return root


def _load_folder(name: str, id_test: ImageSet, options: DataOptions) -> tuple[Images, np.ndarray]:
    root = _folder_of_classes(name)
    classes = folders.class_folders(root)
    named = _wnids_of_indices(list(map(class_label, classes)), id_test, options)
    labels = _id_labels(named, id_test, options, f"the shifted set {name}")
    used = [(folder, label) for folder, label in zip(classes, labels, strict=True) if label >= 0]
    return folders.load_classes(root, used, options)


def _load_list(name: str, id_test: ImageSet, options: DataOptions) -> tuple[Images, np.ndarray]:
    """Loads the images of a list that are of ID classes, and their labels.

    Its labels are those of the lists of the ID set, or, where that is given by no lists, places in
    the order of its classes.
    """
    file, folder = place_parts(name.partition("=")[2])
    lists.check(file, folder)
    numbers = lists.read_list(file).labels
    count = len(id_test.class_names)
    if options.train_list:
        labels = lists.classes_of(options).labels(numbers)
    elif options.classes:
        raise UserError(
            f"the shifted set {name} has numbers of classes, of which data.class_names selects "
            f"some; that needs data.id = imagelist"
        )
    else:
        labels = np.where(numbers < count, numbers, -1).astype(np.int32)
    rows = np.flatnonzero(labels >= 0)
    if not rows.size:
        raise UserError(
            f"the shifted set {name} has no class of the ID set; its labels are "
            f"{numbers.min()} to {numbers.max()}"
        )
    images, kept = lists.open_images(file, folder, rows, options)
    return images, labels[rows][kept]


def _wnids_of_indices(classes: Sequence[str], id_test: ImageSet, options: DataOptions) -> list[str]:
    """Folders' names, or the wnids for which they stand if they are ImageNet's class indices.

    The archives of ImageNet-V2 (Recht et al., 2019) have such folders, in the order of the sorted
    wnids, as TFDS reads them too. Indices are looked for only where the ID set has wnids, as names
    of its classes or of their folders.
    """
    wnids = path_of(WNIDS).read_text("utf-8").split()
    indices = all(name.isdecimal() and int(name) < len(wnids) for name in classes)
    if not indices or set(wnids).isdisjoint({*options.class_names, *id_test.class_names}):
        return list(classes)
    return [wnids[int(name)] for name in classes]


def _class_name(label: str, options: DataOptions) -> str:
    return options.class_names.get(label, label.replace("_", " "))


def _id_labels(
    names: Sequence[str], id_test: ImageSet, options: DataOptions, where: str
) -> np.ndarray:
    """The ID set's labels of classes named as folders or TFDS labels are; -1 where it has none."""
    label_of = {name: label for label, name in enumerate(id_test.class_names)}
    labels = [label_of.get(_class_name(name, options), -1) for name in names]
    if max(labels) < 0:
        raise UserError(
            f"{where} has no class of the ID set; it has {len(names)} classes, the first "
            f"{', '.join(names[:3])}, and the ID set has {', '.join(id_test.class_names[:3])}, ..."
        )
    return np.asarray(labels, np.int32)


def _tfds_labels(
    names: Sequence[str], title: str, id_test: ImageSet, options: DataOptions
) -> np.ndarray:
    """As `_id_labels`; labels without names, as of `cifar10_corrupted`, are the ID set's own."""
    where = f"the TFDS set {title}"
    unnamed = list(names) == [str(index) for index in range(len(names))]
    if unnamed:
        own = tfds.label_names(id_test.name, options)
        if len(own) != len(names):
            raise UserError(
                f"{where} has {len(names)} classes without names, and the ID set {id_test.name} "
                f"has {len(own)} labels; choose another shifted set"
            )
        names = own
    return _id_labels(names, id_test, options, where)
