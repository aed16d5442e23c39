"""Pictures that Python packages carry, and square crops of them.

The files are read from the packages' folders, because `skimage.data` would download a missing one.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dream_jax.data.image_sets import DataOptions
from dream_jax.errors import DataUnavailable

PACKAGES = {"sklearn": "scikit-learn", "skimage": "scikit-image", "matplotlib": "matplotlib"}

# Crop sides in units of the image size. Larger ones of the smaller photographs would be much alike.
SCALES = (1, 2, 4)
MIN_CONTRAST = 0.03


def path_of(file: str) -> Path:
    """Returns the path of a file of a package, "package/...", whether it exists or not."""
    module, _, rest = file.partition("/")
    package = importlib.util.find_spec(module)  # does not import it
    folders = (package and package.submodule_search_locations) or [module]
    return Path(folders[0], rest)


def skimage(*names: str) -> list[str]:
    """Returns files of scikit-image's folder of pictures as `path_of` takes them."""
    return [f"skimage/data/{name}" for name in names]


def files_check(*files: str) -> Callable[[DataOptions], None]:
    """Returns a set's `check` that these files of packages are there."""

    def check(options: DataOptions) -> None:
        missing = [file for file in files if not path_of(file).exists()]
        if missing:
            module, _, rest = missing[0].partition("/")
            package = PACKAGES[module]
            raise DataUnavailable(
                f"{package}'s {rest} is missing; "
                f"get it with `pip install --force-reinstall {package}`"
            )

    return check


def random_crop(photograph: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a crop with contrast: float32 (size, size) or (size, size, 3) in [0, 1]."""
    while True:
        side = min(size * int(rng.choice(SCALES)), *photograph.size)
        left, top = (int(rng.integers(extent - side + 1)) for extent in photograph.size)
        box = (left, top, left + side, top + side)
        crop = photograph.resize((size, size), Image.Resampling.BILINEAR, box=box)
        values = np.asarray(crop, dtype=np.float32) / 255
        if values.std(axis=(0, 1)).mean() >= MIN_CONTRAST:
            return values
