"""`scenes`: crops of pictures inside packages, real outliers to train on."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from dream_jax.data.framing import set_rng
from dream_jax.data.image_sets import DataOptions, ImageSet, OodSet
from dream_jax.data.images import Images
from dream_jax.data.modes import to_mode
from dream_jax.data.photographs import files_check, path_of, random_crop
from dream_jax.data.reader import open_image

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


def scenes(options: DataOptions) -> ImageSet:
    """Returns square crops of six pictures, made as for `textures`, turned and flipped at random.

    To train on: no picture is one of `textures` or `faces`.
    """
    rng = set_rng("scenes", options.seed)
    pictures = [to_mode(_picture(path_of(file)), options.channels) for file in SCENES]
    crops = []
    for i in range(options.count):
        crop = random_crop(pictures[i % len(pictures)], options.image_size, rng)
        turned = np.rot90(crop, int(rng.integers(4)))
        crops.append(turned[:, ::-1] if rng.random() < 0.5 else turned)
    shape = (options.count, options.image_size, options.image_size, options.channels)
    return ImageSet("scenes", Images.of(np.stack(crops).reshape(shape)))


def _picture(path: Path) -> Image.Image:
    """An image file, or a measured field as a grey picture over its full range."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            values = file["elevation"].astype(np.float32)
    elif path.suffix == ".gz":
        values = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint16).reshape(SCAN_SHAPE)
        values = values.astype(np.float32)
    else:
        return open_image(path)
    values = (values - values.min()) / np.ptp(values)
    return Image.fromarray(np.round(255 * values).astype(np.uint8))


SET = OodSet("scenes", scenes, files_check(*SCENES), role="auxiliary")
