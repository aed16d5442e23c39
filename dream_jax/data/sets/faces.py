"""`faces`: faces of LFW that scikit-image carries, an OOD set."""

import numpy as np

from dream_jax.data.framing import resize, with_channels
from dream_jax.data.image_sets import DataOptions, ImageSet, OodSet
from dream_jax.data.images import Images
from dream_jax.data.photographs import files_check, path_of, skimage

FACES = "lfw_subset.npy"
FACE_COUNT = 100


def faces(options: DataOptions) -> ImageSet:
    """Returns the 100 faces of scikit-image's subset of LFW (Huang et al., 2007), 25x25, resized.

    There are no more than 100. The file's other half, patches of background, is left out.
    """
    images = np.load(path_of(*skimage(FACES)))[: min(FACE_COUNT, options.count)]
    images = np.clip(resize(images, options.image_size), 0, 1)
    return ImageSet("faces", Images.of(with_channels(images, options.channels)))


SET = OodSet("faces", faces, files_check(*skimage(FACES)))
