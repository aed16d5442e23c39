"""How good a generator's pictures are, seen by a classifier that was trained on real images."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dream_jax.generator.interface import Generator, Sampling
from dream_jax.keys import stage_key


class Named(NamedTuple):
    """Pictures that were asked for by the names of classes.

    Attributes:
      images: in [0, 1].
      labels: the class of each.
    """

    images: Float[np.ndarray, "n H W C"]
    labels: Int[np.ndarray, " n"]


def by_name(
    generator: Generator,
    prompt: str,
    names: Sequence[str],
    count: int,
    sampling: Sampling,
    seed: int = 0,
) -> Named:
    """Samples pictures of prompts, the classes in turn.

    Args:
      prompt: a template with {name}.
      count: of all pictures.
    """
    labels = np.arange(count) % len(names)
    prompts = [prompt.format(name=name) for name in names]
    ids = np.stack([generator.prompt_ids(generator.name_ids(text)) for text in prompts])
    keys = jax.random.split(stage_key(seed, "quality"), count)
    images = np.concatenate(list(generator.decode(ids[labels], None, keys, sampling)))
    return Named(images, labels)


def legibility(
    logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
) -> dict[int, float]:
    """Returns for each class the share of its pictures that a classifier reads as asked."""
    right = logits.argmax(-1) == labels
    return {int(label): float(right[labels == label].mean()) for label in np.unique(labels)}


def frechet_distance(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"]) -> float:
    """Returns the Fréchet distance between Gaussians fitted to two sets of features.

    |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½). It falls with the number of features, so that only
    distances between equally many are comparable.

    References:
      Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982;
      Heusel et al., "GANs Trained by a Two Time-Scale Update Rule ...", NeurIPS 2017, equation 6.
    """
    sets = [np.asarray(features, np.float64) for features in (first, second)]
    means = [features.mean(0) for features in sets]
    centred = [f - mean for f, mean in zip(sets, means, strict=True)]
    # With Σ = XᵀX the trace of the root of Σ₁ Σ₂ is the sum of the singular values of X₁ X₂ᵀ; of
    # d × d matrices, the triangular factors of the features stand for X.
    roots = [np.linalg.qr(x, mode="r") / np.sqrt(len(x) - 1) for x in centred]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum(np.sum(root**2) for root in roots)
    return float(np.sum((means[0] - means[1]) ** 2) + spread - 2 * shared)


def nearest(
    images: Float[np.ndarray, "n H W C"], others: Float[np.ndarray, "m H W C"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns the image nearest to each in its pixels, and the root mean square difference to it.

    A picture that a generator memorised lies much nearer to a training image than real test images
    do.
    """

    @jax.jit
    def closest(image: Array, flat: Array) -> tuple[Array, Array]:
        distances = jax.numpy.mean((flat - image) ** 2, -1)
        found = jax.numpy.argmin(distances)
        return found, jax.numpy.sqrt(distances[found])

    flat = jax.numpy.asarray(others.reshape(len(others), -1))
    found = [closest(image.ravel(), flat) for image in images]
    return np.asarray([int(index) for index, _ in found]), np.asarray([float(d) for _, d in found])
