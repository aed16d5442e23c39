"""DICE: the energy of a head of which only the weights that contribute most are kept."""

import jax
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import mean_feature
from dream_jax.detector.inputs import Head, Inputs
from dream_jax.detector.options import Options, number
from dream_jax.detector.scores import energy_score


def fit_dice(data: FitData, options: Options) -> Head:
    """The head without the `sparsity` of its weights whose mean contributions are the smallest.

    The contribution of a weight is itself times its feature's mean over the fitting data.
    """
    mean = mean_feature(data)
    kernel = np.asarray(data.linear_head.kernel, np.float64)
    contributions = mean[:, None] * kernel
    threshold = np.quantile(contributions, options["sparsity"])
    return Head(np.where(contributions > threshold, kernel, 0.0), data.linear_head.bias)


def _score(state: Head, inputs: Inputs, options: Options) -> jax.Array:
    return energy_score(state(inputs.features))


DICE = Detector(
    name="dice",
    title="DICE",
    paper="Sun and Li, DICE: Leveraging Sparsification for Out-of-Distribution Detection, "
    "ECCV 2022",
    needs=frozenset({"features", "head"}),
    fit=fit_dice,
    score=_score,
    options={"sparsity": number(0.9, 0.0, 1.0)},  # the paper's for CIFAR; 0.7 for ImageNet
)
