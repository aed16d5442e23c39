"""`textures`: crops of photographs that scikit-image carries, an OOD set."""

import numpy as np

from dream_jax.data.framing import set_rng
from dream_jax.data.image_sets import DataOptions, ImageSet, OodSet
from dream_jax.data.images import Images
from dream_jax.data.modes import to_mode
from dream_jax.data.photographs import files_check, path_of, random_crop, skimage
from dream_jax.data.reader import open_image

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


def textures(options: DataOptions) -> ImageSet:
    """Returns square crops of 15 photographs at three scales, equally many of each.

    Crops without contrast (black sky, blurred background) are drawn again, since an empty image
    shows no texture.
    """
    rng = set_rng("textures", options.seed)
    photographs = [
        to_mode(open_image(path_of(file)), options.channels) for file in skimage(*PHOTOGRAPHS)
    ]
    crops = [
        random_crop(photographs[i % len(photographs)], options.image_size, rng)
        for i in range(options.count)
    ]
    shape = (options.count, options.image_size, options.image_size, options.channels)
    return ImageSet("textures", Images.of(np.stack(crops).reshape(shape)))


SET = OodSet("textures", textures, files_check(*skimage(*PHOTOGRAPHS)))
