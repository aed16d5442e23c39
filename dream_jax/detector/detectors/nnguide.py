"""NNGuide: the energy, weighted by the similarity to the nearest confident training features."""

from functools import partial

import jax
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.neighbours import bank, check_neighbours
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, whole
from dream_jax.detector.scores import energy_score
from dream_jax.knn import mean_of_largest
from dream_jax.vectors import unit


def fit_nnguide(data: FitData, options: Options) -> np.ndarray:
    check_neighbours(options, len(data.labels), "nnguide")
    return bank(data, energies=True)


def nnguide_score(state: jax.Array, inputs: Inputs, options: Options) -> jax.Array:
    """Returns the energy times the mean cosine to the k features nearest by cosine × energy."""
    guidance = mean_of_largest(unit(inputs.features), state, options["k"])
    return guidance * energy_score(inputs.logits)


NNGUIDE = Detector(
    name="nnguide",
    title="NNGuide",
    paper="Park et al., Nearest Neighbor Guidance for Out-of-Distribution Detection, ICCV 2023",
    needs=frozenset({"features", "logits"}),
    fit=fit_nnguide,
    score=nnguide_score,
    options={"k": whole(10, 1)},
    check=partial(check_neighbours, detector="nnguide"),
)
