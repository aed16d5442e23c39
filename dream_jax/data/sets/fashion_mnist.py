"""`fashion_mnist`: garments, an OOD set that TFDS prepares."""

import numpy as np

from dream_jax.data import tfds
from dream_jax.data.framing import frame_28
from dream_jax.data.image_sets import DataOptions, ImageSet, OodSet
from dream_jax.data.images import Images

NAME = "fashion_mnist"


def check(options: DataOptions) -> None:
    tfds.prepare(NAME, options)


def fashion_mnist(options: DataOptions) -> ImageSet:
    """Returns a fixed random part of Fashion-MNIST's test split (Xiao et al., 2017).

    Framed as the digits are: 28x28 grey, padded with zeros to 32x32; at most 10,000 images.

    Raises:
      DataUnavailable: TFDS has not prepared it, or cannot read what it prepared.
    """
    source, indices = tfds.ood_rows(NAME, options)
    with tfds.reading(NAME, tfds.prepared_folder(NAME, options)):
        pixels = np.stack([np.asarray(source.open(index)) for index in indices])
    return ImageSet(NAME, Images.of(frame_28(pixels, options.image_size, options.channels)))


SET = OodSet(NAME, fashion_mnist, check, role="any")
