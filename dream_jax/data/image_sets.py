"""What image sets are: images with labels, how they are asked for, and how a set is declared."""

import importlib.util
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from dream_jax.data.images import Images
from dream_jax.errors import DataUnavailable, UserError
from dream_jax.settings import DataSettings

# What an OOD set is for; `roles.check_roles` keeps the uses apart. "test": reported; "tuning":
# settings are chosen on it; "auxiliary": real outliers to train on; "any": what the configuration
# makes of it, as of any TFDS set or folder.
Role = Literal["test", "tuning", "auxiliary", "any"]
# The settings of `data` that name image lists, for the ID set `imagelist`.
LISTS = ("train_list", "test_list")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their labels.

    Attributes:
      name: the name it is asked for by.
      images: of the set.
      labels: indices into `class_names`; empty for an OOD set.
      class_names: one name per class; empty for an OOD set.
    """

    name: str
    images: Images
    labels: Int[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0, np.int32))
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
      tfds_dir: folder of prepared TFDS sets; "" means TFDS_DATA_DIR, else ~/tensorflow_datasets.
      count: images per OOD set, fewer where the source has fewer.
      folder: of the ID sets `imagefolder` and `imagelist`.
      train_list, test_list: of the ID set `imagelist`.
      classes: pairs of a folder's name or TFDS label and its class name; if there are any, they
        select the classes.
      unreadable: what an image that cannot be read does: "stop" or "skip".
      hold_bytes: sets up to this size are held in memory; larger ones are read from their files.

    Raises:
      UserError: a size or count is below 1, or channels or `unreadable` are none of the above.
    """

    image_size: int = 32
    channels: int = 1
    seed: int = 0
    tfds_dir: str = ""
    count: int = 1000
    folder: str = ""
    train_list: str = ""
    test_list: str = ""
    classes: tuple[tuple[str, str], ...] = ()
    unreadable: str = "stop"
    hold_bytes: int = 2**30

    def __post_init__(self) -> None:
        for name in ("image_size", "count"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; it must be at least 1")
        if self.channels not in (1, 3):
            raise UserError(f"data.channels is {self.channels}; allowed: 1, 3")
        if self.unreadable not in ("stop", "skip"):
            raise UserError(f"data.unreadable is {self.unreadable!r}; allowed: stop, skip")

    @classmethod
    def of(cls, data: DataSettings, count: int) -> "DataOptions":
        """Returns the options of a configuration, whose seed the images do not depend on."""
        return cls(
            image_size=data.image_size,
            channels=data.channels,
            tfds_dir=data.tfds_dir,
            count=count,
            folder=data.folder,
            train_list=data.train_list,
            test_list=data.test_list,
            classes=tuple(data.class_names.items()),
            unreadable=data.unreadable,
            hold_bytes=data.hold_bytes,
        )

    @property
    def class_names(self) -> Mapping[str, str]:
        """Folder's name (see `names.class_label`) or TFDS label → class name."""
        return {unicodedata.normalize("NFC", label): name for label, name in self.classes}

    @property
    def reading(self) -> dict:
        """What `images.load_images` is asked for."""
        return {
            "size": self.image_size,
            "channels": self.channels,
            "hold_bytes": self.hold_bytes,
            "unreadable": self.unreadable,
        }


def _nothing_to_check(options: DataOptions) -> None:
    """Accepts any options."""


def _named_alone(options: DataOptions) -> dict[str, Any]:
    """Returns no fingerprint: the images of the set are always those of its name."""
    return {}


@dataclass(frozen=True)
class IdSet:
    """The declaration of an ID set.

    Attributes:
      name: by which configurations ask for it.
      load: gives its training and its test images.
      check: raises DataUnavailable if it cannot be loaded; quick, and called before each load.
      fingerprint: gives what tells the set from others of its name, by which a run knows its data
        again; quick, as it is taken at every start. JSON can hold it. Raises DataUnavailable.
      ignores: the settings of `data` that say nothing to it, and must be empty.
    """

    name: str
    load: Callable[[DataOptions], tuple[ImageSet, ImageSet]]
    check: Callable[[DataOptions], None] = _nothing_to_check
    fingerprint: Callable[[DataOptions], dict[str, Any]] = _named_alone
    ignores: tuple[str, ...] = ()


@dataclass(frozen=True)
class OodSet:
    """The declaration of an OOD set.

    Attributes:
      name: by which configurations ask for it.
      load: gives up to `count` images; the same options give the same images.
      check, fingerprint: as of an `IdSet`.
      role: what it is for.
    """

    name: str
    load: Callable[[DataOptions], ImageSet]
    check: Callable[[DataOptions], None] = _nothing_to_check
    role: Role = "test"
    fingerprint: Callable[[DataOptions], dict[str, Any]] = _named_alone


def package_check(module: str, package: str) -> Callable[[DataOptions], None]:
    """Returns a `check` for data that comes inside a Python package; does not import it."""

    def check(options: DataOptions) -> None:
        if importlib.util.find_spec(module) is None:
            raise DataUnavailable(
                f"the Python package {package} is missing; get it with `pip install {package}`"
            )

    return check
