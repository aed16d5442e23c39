"""Scores of images by the cosines of CLIP's embeddings with those of texts; higher is more ID.

MCM is of Ming et al., "Delving into Out-of-Distribution Detection with Vision-Language
Representations", NeurIPS 2022; GL-MCM of Miyai et al., "GL-MCM: Global and Local Maximum Concept
Matching for Zero-Shot Out-of-Distribution Detection", IJCV 2025; NegLabel of Jiang et al.,
"Negative Label Guided OOD Detection with Pretrained Vision-Language Models", ICLR 2024.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def mcm(cosines: Float[Array, "... classes"], temperature: float) -> Float[Array, "..."]:
    """Returns the largest softmax of an image's cosines with the texts of the classes.

    Args:
      temperature: which divides the cosines; the paper's is 1.
    """
    return jnp.max(jax.nn.softmax(cosines / temperature, axis=-1), axis=-1)


def gl_mcm(
    cosines: Float[Array, "n classes"],
    local: Float[Array, "n places classes"],
    temperature: float,
    weight: float,
) -> Float[Array, " n"]:
    """Returns the MCM of images, and `weight` times the largest MCM of a place of each."""
    return mcm(cosines, temperature) + weight * jnp.max(mcm(local, temperature), axis=-1)


def neg_label(
    cosines: Float[Array, "n classes"],
    negative: Float[Array, "n words"],
    temperature: float,
    groups: int,
) -> Float[Array, " n"]:
    """Returns the share of the classes in the softmax over classes and negative words.

    It is the mean of that over groups of the words, which one after the other take every
    `groups`-th word; what remains of the words is left out.

    Args:
      temperature: which divides the cosines; the paper's is 0.01.
      groups: at most as many as there are words.
    """
    whole = negative.shape[1] // groups * groups
    of_groups = negative[:, :whole].reshape(len(negative), -1, groups)
    known = jax.nn.logsumexp(cosines / temperature, axis=1)[:, None]
    unknown = jax.nn.logsumexp(of_groups / temperature, axis=1)
    return jnp.mean(jax.nn.sigmoid(known - unknown), axis=1)


def choose_negatives(
    classes: Float[np.ndarray, "c d"],
    words: Float[np.ndarray, "w d"],
    share: float,
    quantile: float,
) -> np.ndarray:
    """Returns the rows of the words that are farthest from all classes (NegMining).

    A word's nearness is a quantile of its cosines with the classes, not their largest, which would
    hang on one of them.

    Args:
      classes, words: unit vectors of texts.
      share: of the words that is chosen, at least one; the published code's is 0.15.
      quantile: of the cosines; the published code's is 0.95.

    Returns:
      The farthest first.
    """
    cosines = np.asarray(words, np.float64) @ np.asarray(classes, np.float64).T
    nearness = np.quantile(cosines, quantile, axis=1)
    return np.argsort(nearness, kind="stable")[: max(1, int(len(words) * share))]
