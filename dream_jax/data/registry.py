"""Looks up image sets by name.

A name is that of a set of this project, else of a set in TensorFlow Datasets (`cifar10`,
`cifar10_corrupted/gaussian_noise_1`). OOD sets may also be folders of images, `name=folder`, or
lists of images, `name=list.txt@folder`.

Each file of `dream_jax/data/sets/` is a set, by the name of the file, with a declaration `SET`.
"""

import functools
import importlib
import pkgutil
from typing import Any

from dream_jax.data import places, sets, tfds
from dream_jax.data.image_sets import DataOptions, IdSet, ImageSet, OodSet
from dream_jax.errors import UserError

_added: dict[str, IdSet | OodSet] = {}


def add(declared: IdSet | OodSet) -> None:
    """Adds a set that is declared outside of the project, for this process."""
    _added[declared.name] = declared


@functools.cache
def _declared() -> dict[str, IdSet | OodSet]:
    names = sorted(module.name for module in pkgutil.iter_modules(sets.__path__))
    return {name: importlib.import_module(f"{sets.__name__}.{name}").SET for name in names}


def id_sets() -> dict[str, IdSet]:
    """Returns the ID sets of the project and those that were added, by name."""
    found = _declared() | _added
    return {name: one for name, one in found.items() if isinstance(one, IdSet)}


def ood_sets() -> dict[str, OodSet]:
    """Returns the OOD sets of the project and those that were added, by name."""
    found = _declared() | _added
    return {name: one for name, one in found.items() if isinstance(one, OodSet)}


def load_id(name: str, options: DataOptions) -> tuple[ImageSet, ImageSet]:
    """Loads the training and the test images of an ID set.

    Raises:
      UserError: no ID set has that name, or an image is unreadable.
      DataUnavailable: its data are not on this machine.
    """
    check_name(name, options, "ID")
    if declared := id_sets().get(name):
        declared.check(options)
        return declared.load(options)
    return tfds.load_id(name, options)


def load_ood(name: str, options: DataOptions) -> ImageSet:
    """Loads an OOD set of up to `options.count` images; the same options give the same images.

    Args:
      name: of a set of the project or of TFDS, "name=folder" or "name=list.txt@folder".

    Raises:
      UserError: no OOD set has that name, or an image is unreadable.
      DataUnavailable: its data are not on this machine.
    """
    check_name(name, options, "OOD")
    title, is_place, place = name.partition("=")
    if is_place:
        return places.load(title, place, options)
    if declared := ood_sets().get(name):
        declared.check(options)
        return declared.load(options)
    return tfds.load_ood(name, options)


def load_for(use: str, name: str, options: DataOptions) -> ImageSet:
    """Loads an OOD set; messages say what it is for: "OOD", "tuning" or "auxiliary"."""
    try:
        return load_ood(name, options)
    except UserError as error:
        raise UserError(f"the {use} set {name!r} cannot be used: {error}") from error


def check_available(name: str, options: DataOptions) -> None:
    """Returns if an ID or OOD set can be loaded; reads no images.

    A TFDS set that is not prepared is prepared, if this machine can do it.

    Raises:
      UserError: no set has that name.
      DataUnavailable: its data are not on this machine; the message says how to get them.
    """
    check_name(name, options, "image")
    _, is_place, place = name.partition("=")
    if is_place:
        places.check(place)
    elif declared := (id_sets() | ood_sets()).get(name):
        declared.check(options)
    else:
        tfds.prepare(name, options)


def fingerprint(name: str, options: DataOptions) -> dict[str, Any]:
    """Returns what tells an ID or OOD set from others of its name; see `IdSet.fingerprint`.

    Raises:
      UserError: a folder of it cannot be read.
      DataUnavailable: its data are not on this machine.
    """
    _, is_place, place = name.partition("=")
    if is_place:
        return places.fingerprint(place)
    if declared := (id_sets() | ood_sets()).get(name):
        return declared.fingerprint(options)
    return tfds.fingerprint(name, options)


def check_name(name: str, options: DataOptions, kind: str) -> None:
    """Raises UserError unless there is a set of that name, on this machine or elsewhere.

    Args:
      kind: "ID", or "image" for both ID and OOD sets, or what an OOD set is for: "OOD", "tuning",
        "auxiliary".
    """
    known: dict[str, IdSet | OodSet] = {}
    known |= id_sets() if kind in ("ID", "image") else {}
    known |= ood_sets() if kind != "ID" else {}
    title, is_place, place = name.partition("=")
    if is_place and kind != "ID" and title and place:
        return
    if is_place or (name not in known and not tfds.known(name, options)):
        forms = "a name in TFDS" + (", name=folder, name=list.txt@folder" if kind != "ID" else "")
        raise UserError(
            f"there is no {kind} set {name!r}; allowed: {', '.join(sorted(known))}, {forms}"
        )


def set_title(name: str) -> str:
    """Returns what results call an OOD set: its name without the folder."""
    return name.partition("=")[0]
