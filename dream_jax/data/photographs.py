"""`textures` and `faces`: OOD sets from the photographs inside scikit-image's wheel.

The files are read from the package folder, because `skimage.data` would download a missing one.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dream_jax.data.framing import resize, set_rng, with_channels
from dream_jax.data.registry import DataOptions, ImageSet, ood_set
from dream_jax.errors import DataUnavailable

# Without pictures of print (the subject of `letters`) and `clock_motion.png`, which is one blur.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
FACES = "lfw_subset.npy"
FACE_COUNT = 100

# Crop sides in units of the image size. Larger ones of the smaller photographs would be much alike.
SCALES = (1, 2, 4)
MIN_CONTRAST = 0.03


def _path(file: str) -> Path | None:
    package = importlib.util.find_spec("skimage")  # does not import it
    path = package and Path(package.submodule_search_locations[0], "data", file)
    return path if path and path.exists() else None


def _files_check(*files: str) -> Callable[[DataOptions], None]:
    def check(options: DataOptions) -> None:
        missing = [file for file in files if _path(file) is None]
        if missing:
            raise DataUnavailable(
                f"scikit-image's data/{missing[0]} is missing; "
                "get it with `pip install --force-reinstall scikit-image`"
            )

    return check


@ood_set("textures", check=_files_check(*PHOTOGRAPHS))
def textures(options: DataOptions) -> ImageSet:
    """Square crops of 15 photographs at three scales, every photograph as often as the others.

    Crops without contrast (black sky, blurred background) are drawn again, since an empty image
    shows no texture.
    """
    rng = set_rng("textures", options.seed)
    mode = "L" if options.channels == 1 else "RGB"
    photographs = [Image.open(_path(file)).convert(mode) for file in PHOTOGRAPHS]
    crops = [
        _crop(photographs[i % len(photographs)], options.image_size, rng)
        for i in range(options.count)
    ]
    shape = (options.count, options.image_size, options.image_size, options.channels)
    return ImageSet("textures", np.stack(crops).reshape(shape))


def _crop(photograph: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """One crop with contrast, float32 (size, size) or (size, size, 3) in [0, 1]."""
    while True:
        side = min(size * rng.choice(SCALES), *photograph.size)
        left, top = (int(rng.integers(extent - side + 1)) for extent in photograph.size)
        box = (left, top, left + side, top + side)
        crop = photograph.resize((size, size), Image.Resampling.BILINEAR, box=box)
        values = np.asarray(crop, dtype=np.float32) / 255
        if values.std(axis=(0, 1)).mean() >= MIN_CONTRAST:
            return values


@ood_set("faces", check=_files_check(FACES))
def faces(options: DataOptions) -> ImageSet:
    """The 100 faces of scikit-image's subset of LFW (Huang et al., 2007), 25x25, resized.

    There are no more than 100. The file's other half, patches of background, is left out.
    """
    images = np.load(_path(FACES))[: min(FACE_COUNT, options.count)]
    images = np.clip(resize(images, options.image_size), 0, 1)
    return ImageSet("faces", with_channels(images, options.channels))
