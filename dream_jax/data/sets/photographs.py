"""`textures`, `faces` and `scenes`: OOD sets from pictures that Python packages carry.

The files are read from the packages' folders, because `skimage.data` would download a missing one.
"""

import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dream_jax.data.framing import resize, set_rng, to_mode, with_channels
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

# Pictures to train on. They show nothing that a picture above shows: left out are scikit-image's
# motorcycle_right.png (the scene of motorcycle_left.png from one step aside), its detail of a
# retina, its pictures of print, and matplotlib's portrait of Grace Hopper (faces are tested on).
SCENES = (
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
    "skimage/data/color.png",
    "skimage/data/horse.png",
    "matplotlib/mpl-data/sample_data/jacksboro_fault_dem.npz",  # elevations
    "matplotlib/mpl-data/sample_data/s1045.ima.gz",  # a scan of a head
)
SCAN_SHAPE = (256, 256)
PACKAGES = {"sklearn": "scikit-learn", "skimage": "scikit-image", "matplotlib": "matplotlib"}

# Crop sides in units of the image size. Larger ones of the smaller photographs would be much alike.
SCALES = (1, 2, 4)
MIN_CONTRAST = 0.03


def _path(file: str) -> Path | None:
    """A file of an installed package, "package/..."; None if it is not there."""
    module, _, rest = file.partition("/")
    package = importlib.util.find_spec(module)  # does not import it
    path = package and Path(package.submodule_search_locations[0], rest)
    return path if path and path.exists() else None


def _skimage(*names: str) -> list[str]:
    return [f"skimage/data/{name}" for name in names]


def _files_check(*files: str) -> Callable[[DataOptions], None]:
    def check(options: DataOptions) -> None:
        missing = [file for file in files if _path(file) is None]
        if missing:
            module, _, rest = missing[0].partition("/")
            package = PACKAGES[module]
            raise DataUnavailable(
                f"{package}'s {rest} is missing; "
                f"get it with `pip install --force-reinstall {package}`"
            )

    return check


@ood_set("textures", check=_files_check(*_skimage(*PHOTOGRAPHS)))
def textures(options: DataOptions) -> ImageSet:
    """Square crops of 15 photographs at three scales, every photograph as often as the others.

    Crops without contrast (black sky, blurred background) are drawn again, since an empty image
    shows no texture.
    """
    rng = set_rng("textures", options.seed)
    mode = "L" if options.channels == 1 else "RGB"
    photographs = [Image.open(_path(file)).convert(mode) for file in _skimage(*PHOTOGRAPHS)]
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


@ood_set("faces", check=_files_check(*_skimage(FACES)))
def faces(options: DataOptions) -> ImageSet:
    """The 100 faces of scikit-image's subset of LFW (Huang et al., 2007), 25x25, resized.

    There are no more than 100. The file's other half, patches of background, is left out.
    """
    images = np.load(_path(*_skimage(FACES)))[: min(FACE_COUNT, options.count)]
    images = np.clip(resize(images, options.image_size), 0, 1)
    return ImageSet("faces", with_channels(images, options.channels))


@ood_set("scenes", check=_files_check(*SCENES), role="auxiliary")
def scenes(options: DataOptions) -> ImageSet:
    """Square crops of six pictures, made as those of `textures`, turned and flipped at random.

    To train on: no picture is one of `textures` or `faces`.
    """
    rng = set_rng("scenes", options.seed)
    pictures = [to_mode(_picture(_path(file)), options.channels) for file in SCENES]
    crops = []
    for i in range(options.count):
        crop = _crop(pictures[i % len(pictures)], options.image_size, rng)
        turned = np.rot90(crop, rng.integers(4))
        crops.append(turned[:, ::-1] if rng.random() < 0.5 else turned)
    shape = (options.count, options.image_size, options.image_size, options.channels)
    return ImageSet("scenes", np.stack(crops).reshape(shape))


def _picture(path: Path) -> Image.Image:
    """An image file, or a measured field as a grey picture over its full range."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            values = file["elevation"].astype(np.float32)
    elif path.suffix == ".gz":
        values = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint16).reshape(SCAN_SHAPE)
        values = values.astype(np.float32)
    else:
        return Image.open(path)
    values = (values - values.min()) / np.ptp(values)
    return Image.fromarray(np.round(255 * values).astype(np.uint8))
