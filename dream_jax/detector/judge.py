"""How much the imagined outliers still look like their class to the plain classifier."""

from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from dream_jax.errors import UserError


class Judgement(NamedTuple):
    """How the plain classifier reads the outlier images, by its softmax confidence.

    Attributes:
      in_class: share given to the class they were imagined from, with high confidence.
      in_any_class: share given to some class with high confidence.
      too_sure, too_unsure: how many are left out on either side, see `judge_outliers`.
      kept: rows of the images that stay after filtering, (n,).
    """

    in_class: float
    in_any_class: float
    too_sure: int
    too_unsure: int
    kept: np.ndarray


HIGH_CONFIDENCE = 0.95


def judge_outliers(
    logits: np.ndarray, labels: np.ndarray, filter_confidence: float, least_confidence: float = 0.0
) -> Judgement:
    """Measures the outliers, and keeps those of which the plain classifier is neither too sure nor
    too unsure.

    Its confidence in an image is the probability of the class that it finds most probable, the
    image's own or another. Images with at least `filter_confidence` are plain members of a class:
    called outliers, they would ruin the training. Those below `least_confidence` are far from all
    classes and teach little about their edges. To train on outliers of middling confidence alone
    is the idea of a submission to ICLR, which we know from its reviews; that the confidence is
    this one is our reading.

    Args:
      logits: (n, classes) of the plain classifier.
      labels: (n,) the classes from which they were imagined.
      filter_confidence: in (0, 1]; 1 leaves out none.
      least_confidence: in [0, 1), below the other; 0 leaves out none.

    Raises:
      UserError: none would be kept.
    """
    probabilities = softmax(logits, axis=-1)
    own = probabilities[np.arange(len(labels)), labels]
    surest = probabilities.max(-1)
    too_sure = (surest >= filter_confidence) & (filter_confidence < 1)
    too_unsure = surest < least_confidence
    kept = np.flatnonzero(~(too_sure | too_unsure))
    if not len(kept):
        raise UserError(_nothing_left(filter_confidence, least_confidence, too_sure, too_unsure))
    return Judgement(
        float(np.mean(own >= HIGH_CONFIDENCE)),
        float(np.mean(surest >= HIGH_CONFIDENCE)),
        int(np.sum(too_sure)),
        int(np.sum(too_unsure)),
        kept,
    )


def _nothing_left(most: float, least: float, too_sure: np.ndarray, too_unsure: np.ndarray) -> str:
    """Returns the message for settings that leave out all outliers."""
    count = len(too_sure)
    if not too_unsure.any():
        return (
            f"config.classifier.filter_confidence is {most}; it leaves out all {count} outliers: "
            f"raise it, or sampling.scale (with BOOD bood.step)"
        )
    if not too_sure.any():
        return (
            f"config.classifier.filter_least_confidence is {least}; it leaves out all {count} "
            f"outliers: lower it, or sampling.scale (with BOOD bood.step)"
        )
    return (
        f"config.classifier.filter_least_confidence is {least} and filter_confidence is {most}; "
        f"they leave out all {count} outliers, {too_unsure.sum()} and {too_sure.sum()} of them: "
        f"lower the first, or raise the second"
    )
