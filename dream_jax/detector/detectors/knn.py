"""KNN: the distance to the k-th nearest training feature, all as unit vectors."""

from functools import partial

import jax
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.neighbours import bank, check_neighbours
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, whole
from dream_jax.knn import knn_score
from dream_jax.vectors import unit


def fit_knn(data: FitData, options: Options) -> np.ndarray:
    check_neighbours(options, len(data.labels), "knn")
    return bank(data)


def _score(state: jax.Array, inputs: Inputs, options: Options) -> jax.Array:
    return knn_score(unit(inputs.features), state, options["k"])


KNN = Detector(
    name="knn",
    title="KNN",
    paper="Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022",
    needs=frozenset({"features"}),
    fit=fit_knn,
    score=_score,
    options={"k": whole(50, 1)},  # the paper's for CIFAR-10; 200 CIFAR-100, 1000 ImageNet
    check=partial(check_neighbours, detector="knn"),
)
