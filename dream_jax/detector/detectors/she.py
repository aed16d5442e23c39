"""SHE: how much the features agree with the stored pattern of the predicted class."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import class_means
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options


def fit_she(data: FitData, options: Options) -> np.ndarray:
    """(classes, d): per class, the mean feature of the images that are classified correctly.

    Raises:
      UserError: of some class none is.
    """

    def correct():
        for part in data.parts():
            right = part.logits.argmax(-1) == part.labels
            yield part.features[right], part.labels[right]

    kind = "training image that is classified correctly"
    return class_means(correct(), data.classes, "she", kind)[0]


def _score(state: jax.Array, inputs: Inputs, options: Options) -> jax.Array:
    patterns = state[jnp.argmax(inputs.logits, axis=-1)]
    return jnp.sum(inputs.features * patterns, axis=-1)


SHE = Detector(
    name="she",
    title="SHE",
    paper="Zhang et al., Out-of-Distribution Detection based on In-Distribution Data Patterns "
    "Memorization with Modern Hopfield Energy, ICLR 2023",
    needs=frozenset({"features", "logits", "labels"}),
    fit=fit_she,
    score=_score,
)
