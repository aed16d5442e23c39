"""How much the imagined outliers still look like their class to the plain classifier."""

from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from dream_jax.errors import UserError


class Judgement(NamedTuple):
    """Fractions of all outlier images, by the plain classifier's softmax confidence.

    Attributes:
      in_class: given to the class they were imagined from, with high confidence.
      in_any_class: given to some class with high confidence.
      kept: rows of the images that stay after filtering, (n,).
    """

    in_class: float
    in_any_class: float
    kept: np.ndarray


HIGH_CONFIDENCE = 0.95


def judge_outliers(logits: np.ndarray, labels: np.ndarray, filter_confidence: float) -> Judgement:
    """Measures the outliers, and leaves out the plain members of a class.

    Left out are the images to which the plain classifier gives some class, their own or another,
    with at least `filter_confidence`: called outliers, they would ruin the training.

    Args:
      logits: (n, classes) of the plain classifier.
      labels: (n,) the classes from which they were imagined.
      filter_confidence: in (0, 1]; 1 keeps all.

    Raises:
      UserError: none would be kept.
    """
    probabilities = softmax(logits, axis=-1)
    own = probabilities[np.arange(len(labels)), labels]
    surest = probabilities.max(-1)
    kept = np.arange(len(own))
    if filter_confidence < 1:
        kept = np.flatnonzero(surest < filter_confidence)
    if not len(kept):
        raise UserError(
            f"config.classifier.filter_confidence is {filter_confidence}; it leaves out all "
            f"{len(own)} outliers: raise it, or sampling.scale"
        )
    return Judgement(
        float(np.mean(own >= HIGH_CONFIDENCE)),
        float(np.mean(surest >= HIGH_CONFIDENCE)),
        kept,
    )
