"""Corruptions of images at five strengths, in the manner of ImageNet-C.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. Kinds and strengths here are this project's: 1 is mild, and at 5 a person
still reads most digits.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from dream_jax.data.images import Images
from dream_jax.data.sources import to_bytes, to_pillow

# Where lengths in pixels are given, they are for images of this height and scale with it.
HEIGHT = 32


def noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of a standard deviation, independent per pixel and channel."""
    from skimage.util import random_noise

    return random_noise(image, "gaussian", rng=rng, var=deviation**2, clip=False)


def blur(image: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of a standard deviation in pixels at `HEIGHT`."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, pixels * len(image) / HEIGHT, axes=(0, 1))


def shear(image: np.ndarray, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Rows shifted by `slope` pixels per row about the centre, to a random side; edges repeated."""
    from skimage.transform import AffineTransform, warp

    slope *= rng.choice((-1, 1))
    middle = (len(image) - 1) / 2
    inverse = AffineTransform(matrix=[[1, slope, -slope * middle], [0, 1, 0], [0, 0, 1]])
    return warp(image, inverse, order=1, mode="edge")


def occlusion(image: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """Covers a random place with a grey square, whose side is given in pixels at `HEIGHT`."""
    side = round(pixels * len(image) / HEIGHT)
    top, left = (rng.integers(extent - side + 1) for extent in image.shape[:2])
    covered = image.copy()
    covered[top : top + side, left : left + side] = 0.5
    return covered


def contrast(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of each channel's deviations from its mean."""
    mean = image.mean((0, 1), keepdims=True)
    return mean + share * (image - mean)


# Corruption → its function, and what it is given at the strengths 1 to 5.
CORRUPTIONS: dict[str, tuple[Callable[..., np.ndarray], tuple[float, ...]]] = {
    "noise": (noise, (0.1, 0.2, 0.3, 0.45, 0.6)),
    "blur": (blur, (0.5, 1.0, 1.5, 2.0, 2.5)),
    "shear": (shear, (0.15, 0.3, 0.45, 0.6, 0.8)),
    "occlusion": (occlusion, (5, 7, 9, 11, 13)),
    "contrast": (contrast, (0.6, 0.45, 0.3, 0.2, 0.1)),
}
STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(
    image: Float[np.ndarray, "H W C"], name: str, strength: int, seed: int, index: int
) -> Float[np.ndarray, "H W C"]:
    """Corrupts an image.

    What is random depends on the seed, the corruption, the strength and the image's index only.

    Args:
      image: in [0, 1], as is the result.
      name: of `CORRUPTIONS`.
      strength: 1 to 5.
      index: of the image in its set.
    """
    function, amounts = CORRUPTIONS[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), strength, index])
    changed = function(image.astype(np.float32), amounts[strength - 1], rng)
    return changed.clip(0, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Images that are corrupted when they are opened, as a source of `Images`.

    Attributes:
      images: those that are corrupted.
      kind, strength, seed: see `corrupt`, of which `kind` is the name.
    """

    images: Images
    kind: str
    strength: int
    seed: int = 0
    remedy = ""

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"{self.kind} of image {index}"

    def open(self, index: int) -> Image.Image:
        image = corrupt(self.images[index], self.kind, self.strength, self.seed, int(index))
        return to_pillow(to_bytes(image))


def corrupted(images: Images, kind: str, strength: int, seed: int = 0) -> Images:
    """Returns images corrupted, in memory if they are; see `corrupt`."""
    source = Corrupted(images, kind, strength, seed)
    found = Images(source, np.arange(len(images)), images.size, images.channels, crop=False)
    return found.hold(found.nbytes) if images.in_memory else found
