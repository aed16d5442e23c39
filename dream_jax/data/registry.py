"""The image sets by name: in-distribution (ID) sets to train on, OOD sets to be tested against.

A name is that of a set registered here, or else of a set in TensorFlow Datasets (`cifar10`,
`cifar10_corrupted/gaussian_noise_1`). OOD sets may also be folders of images, `name=folder`.

Adding a set is adding a function and, for a new file, naming that file in the last import::

    @ood_set("snow")
    def snow(options: DataOptions) -> ImageSet: ...
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dream_jax.errors import DataUnavailable, UserError

UNREADABLE = ("stop", "skip")
# What an OOD set is for; `roles.check_roles` keeps the uses apart. "test": reported; "tuning":
# hyper-parameters are chosen on it; "auxiliary": real outliers that a network is trained on; "any":
# what the settings make of it, as of any TFDS set or folder.
ROLES = ("test", "tuning", "auxiliary", "any")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their labels.

    Attributes:
      name: the name it is asked for by.
      images: float32 (n, H, W, C), values in [0, 1]: an array, or `StreamedImages`, which gives the
        rows asked for.
      labels: int32 (n,), indices into `class_names`; None for an OOD set.
      class_names: one name per class; empty for an OOD set.
    """

    name: str
    images: Any
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class DataOptions:
    """What every set is asked for.

    Attributes:
      image_size: height and width in pixels.
      channels: 1 (grey) or 3 (RGB; a set that is grey by nature repeats its channel).
      seed: of the draws that make up an OOD set. It is not the seed of a training run: runs that
        are compared must meet the same test images. ID splits never depend on it.
      tfds_dir: folder of prepared TFDS sets; None means TFDS_DATA_DIR, else ~/tensorflow_datasets.
      count: images per OOD set, fewer where the source has fewer.
      folder: of the ID set `imagefolder`.
      class_names: folder name or TFDS label → class name; if not empty, it selects the classes.
      unreadable: "stop" or "skip": what an image that cannot be read does.
      hold_bytes: sets up to this size, as float32, are held in memory; larger ones are read from
        their files as they are needed.

    Raises:
      UserError: for a size or count below 1, channels other than 1 and 3, or another `unreadable`.
    """

    image_size: int = 32
    channels: int = 1
    seed: int = 0
    tfds_dir: str | None = None
    count: int = 1000
    folder: str | None = None
    class_names: Mapping[str, str] = field(default_factory=dict)
    unreadable: str = "stop"
    hold_bytes: int = 2**30

    def __post_init__(self):
        for name in ("image_size", "count"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; it must be at least 1")
        if self.channels not in (1, 3):
            raise UserError(f"data.channels is {self.channels}; allowed: 1, 3")
        if self.unreadable not in UNREADABLE:
            raise UserError(
                f"data.unreadable is {self.unreadable!r}; allowed: {', '.join(UNREADABLE)}"
            )

    @property
    def reading(self) -> dict[str, Any]:
        """What `streamed.load_images` is asked for."""
        return {
            "size": self.image_size,
            "channels": self.channels,
            "hold_bytes": self.hold_bytes,
            "unreadable": self.unreadable,
        }


@dataclass(frozen=True)
class Source:
    """A registered set: how to load it, how to see cheaply whether it is there, its role."""

    load: Callable[[DataOptions], Any]
    check: Callable[[DataOptions], None]
    role: str = "test"


ID_SETS: dict[str, Source] = {}
OOD_SETS: dict[str, Source] = {}


def _nothing_to_check(options: DataOptions) -> None:
    pass


def id_set(name: str, check: Callable[[DataOptions], None] = _nothing_to_check):
    """Registers a function `DataOptions -> (train ImageSet, test ImageSet)` as an ID set.

    `check(options)` raises DataUnavailable if the set cannot be loaded; it runs before each load.
    """

    def register(load):
        ID_SETS[name] = Source(load, check)
        return load

    return register


def ood_set(
    name: str,
    check: Callable[[DataOptions], None] = _nothing_to_check,
    role: str = "test",
):
    """Registers a function `DataOptions -> ImageSet` as an OOD set; `check` as in `id_set`.

    Args:
      role: one of `ROLES`.
    """

    def register(load):
        OOD_SETS[name] = Source(load, check, role)
        return load

    return register


def load_id(name: str, options: DataOptions) -> tuple[ImageSet, ImageSet]:
    """The train and test split of an ID set.

    Raises:
      UserError: if no ID set has that name, or an image is unreadable.
      DataUnavailable: if its data is not on this machine.
    """
    check_name(name, options, "ID")
    if name in ID_SETS:
        ID_SETS[name].check(options)
        return ID_SETS[name].load(options)
    return tfds_sets.load_id(name, options)


def load_ood(name: str, options: DataOptions) -> ImageSet:
    """An OOD set of up to `options.count` images; the same options give the same images.

    Args:
      name: of a registered set or a TFDS set, or "name=folder".

    Raises:
      UserError: if no OOD set has that name, or an image is unreadable.
      DataUnavailable: if its data is not on this machine.
    """
    check_name(name, options, "OOD")
    title, is_folder, folder = name.partition("=")
    if is_folder:
        folders.check_folder(folder)
        return folders.load_folder(title, folder, options)
    if name in OOD_SETS:
        OOD_SETS[name].check(options)
        return OOD_SETS[name].load(options)
    return tfds_sets.load_ood(name, options)


def check_available(name: str, options: DataOptions) -> None:
    """Returns if the ID or OOD set can be loaded, without reading its images.

    A TFDS set that is not prepared is, if this machine can do it.

    Raises:
      UserError: if no set has that name.
      DataUnavailable: if its data is not on this machine; the message says how to get it.
    """
    check_name(name, options, "image")
    _, is_folder, folder = name.partition("=")
    registered = ID_SETS | OOD_SETS
    if is_folder:
        folders.check_folder(folder)
    elif name in registered:
        registered[name].check(options)
    else:
        tfds_sets.prepare(name, options)


def check_name(name: str, options: DataOptions, kind: str) -> None:
    """Raises UserError unless there is a set of that name; whether it is here is not looked at.

    Args:
      kind: "ID", "OOD" or "image" for both.
    """
    registered = {"ID": ID_SETS, "OOD": OOD_SETS, "image": ID_SETS | OOD_SETS}[kind]
    title, is_folder, folder = name.partition("=")
    if is_folder and kind != "ID" and title and folder:
        return
    if is_folder or (name not in registered and not tfds_sets.known(name, options)):
        forms = "a name in TFDS" + (", name=folder" if kind != "ID" else "")
        raise UserError(
            f"there is no {kind} set {name!r}; allowed: {', '.join(sorted(registered))}, {forms}"
        )


def set_title(name: str) -> str:
    """What results call an OOD set: its name without the folder."""
    return name.partition("=")[0]


def package_check(module: str, package: str) -> Callable[[DataOptions], None]:
    """A `check` for data that comes inside a Python package, without importing it."""

    def check(options: DataOptions) -> None:
        if importlib.util.find_spec(module) is None:
            raise DataUnavailable(
                f"the Python package {package} is missing; get it with `pip install {package}`"
            )

    return check


# Last, because these files register themselves with the decorators above.
from dream_jax.data import folders  # noqa: E402
from dream_jax.data import tfds as tfds_sets  # noqa: E402
from dream_jax.data.sets import digits, letters, noise, photographs  # noqa: E402, F401
