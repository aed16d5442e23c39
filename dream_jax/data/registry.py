"""The image sets by name: in-distribution (ID) sets to train on, OOD sets to be tested against.

Adding a set is adding a function and, for a new file, naming that file in the last import::

    @ood_set("snow")
    def snow(options: DataOptions) -> ImageSet: ...
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dream_jax.errors import DataUnavailable, UserError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images held in memory.

    Attributes:
      name: the name it is registered under.
      images: float32 (n, H, W, C), values in [0, 1].
      labels: int32 (n,), indices into `class_names`; None for an OOD set.
      class_names: one name per class; empty for an OOD set.
    """

    name: str
    images: np.ndarray
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

    Raises:
      UserError: for a size or count below 1, or channels other than 1 and 3.
    """

    image_size: int = 32
    channels: int = 1
    seed: int = 0
    tfds_dir: str | None = None
    count: int = 1000

    def __post_init__(self):
        for field in ("image_size", "count"):
            if getattr(self, field) < 1:
                raise UserError(f"data.{field} is {getattr(self, field)}; it must be at least 1")
        if self.channels not in (1, 3):
            raise UserError(f"data.channels is {self.channels}; allowed: 1, 3")


@dataclass(frozen=True)
class Source:
    """A registered set: how to load it, how to see cheaply whether it is there."""

    load: Callable[[DataOptions], Any]
    check: Callable[[DataOptions], None]
    tuning: bool = False


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
    tuning: bool = False,
):
    """Registers a function `DataOptions -> ImageSet` as an OOD set; `check` as in `id_set`.

    `tuning` marks a set for choosing hyper-parameters. Such sets are never reported, and reported
    sets are never tuned on.
    """

    def register(load):
        OOD_SETS[name] = Source(load, check, tuning)
        return load

    return register


def load_id(name: str, options: DataOptions) -> tuple[ImageSet, ImageSet]:
    """The train and test split of an ID set.

    Raises:
      UserError: if no ID set has that name.
      DataUnavailable: if its data is not on this machine.
    """
    source = _find("ID", ID_SETS, name)
    source.check(options)
    return source.load(options)


def load_ood(name: str, options: DataOptions) -> ImageSet:
    """An OOD set of up to `options.count` images; the same options give the same images.

    Raises:
      UserError: if no OOD set has that name.
      DataUnavailable: if its data is not on this machine.
    """
    source = _find("OOD", OOD_SETS, name)
    source.check(options)
    return source.load(options)


def check_available(name: str, options: DataOptions) -> None:
    """Returns if the ID or OOD set can be loaded, without reading its images.

    Raises:
      UserError: if no set has that name.
      DataUnavailable: if its data is not on this machine; the message says how to get it.
    """
    _find("image", ID_SETS | OOD_SETS, name).check(options)


def package_check(module: str, package: str) -> Callable[[DataOptions], None]:
    """A `check` for data that comes inside a Python package, without importing it."""

    def check(options: DataOptions) -> None:
        if importlib.util.find_spec(module) is None:
            raise DataUnavailable(
                f"the Python package {package} is missing; get it with `pip install {package}`"
            )

    return check


def _find(kind: str, sets: dict[str, Source], name: str) -> Source:
    if name not in sets:
        raise UserError(f"there is no {kind} set {name!r}; allowed: {', '.join(sorted(sets))}")
    return sets[name]


# Last, because these files register themselves with the decorators above.
from dream_jax.data import digits, letters, noise, photographs, prepared  # noqa: E402, F401
