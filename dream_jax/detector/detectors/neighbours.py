"""Scores by the nearest stored training features: KNN and NNGuide.

Both keep all fitting features, unit vectors in float32, and compare with every one, exactly.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import whole
from dream_jax.detector.scores import energy_score
from dream_jax.errors import UserError
from dream_jax.knn import knn_score, mean_of_largest

# A feature of length 0 stays 0, with a cosine of 0 to all others.
_SHORTEST = 1e-12


def _unit(features: jax.Array) -> jax.Array:
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.maximum(length, _SHORTEST)


def check_neighbours(k: int, images: int, detector: str) -> None:
    """Raises UserError if there are fewer training images than neighbours asked for."""
    if k > images:
        raise UserError(
            f"detector {detector}: k is {k}; it must be at most {images}, the number of training "
            f"images"
        )


def _bank(data: FitData, k: int, detector: str, energies: bool) -> np.ndarray:
    """(n, d) float32: unit features, times their energies if asked for."""
    from scipy.special import logsumexp  # slow to import, and configurations name this detector

    check_neighbours(k, len(data.labels), detector)
    bank = np.empty(data.features.shape, np.float32)
    done = 0
    for features, _ in data.parts():
        length = np.linalg.norm(features, axis=-1, keepdims=True)
        rows = features / np.maximum(length, _SHORTEST)
        if energies:
            rows = rows * logsumexp(data.logits(features), axis=-1, keepdims=True)
        bank[done : done + len(rows)] = rows
        done += len(rows)
    return bank


def fit_knn(data: FitData, options: Mapping[str, Any]) -> np.ndarray:
    return _bank(data, options["k"], "knn", energies=False)


def _knn(state: jax.Array, inputs: Inputs, options: Mapping[str, Any]) -> jax.Array:
    return knn_score(_unit(inputs.features), state, options["k"])


def fit_nnguide(data: FitData, options: Mapping[str, Any]) -> np.ndarray:
    return _bank(data, options["k"], "nnguide", energies=True)


def nnguide_score(state: jax.Array, inputs: Inputs, options: Mapping[str, Any]) -> jax.Array:
    """The energy, times the mean cosine to the k features nearest by cosine × energy."""
    guidance = mean_of_largest(_unit(inputs.features), state, options["k"])
    return guidance * energy_score(inputs.logits)


KNN = Detector(
    name="knn",
    title="KNN",
    paper="Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022",
    needs=frozenset({"features"}),
    fit=fit_knn,
    score=_knn,
    options={"k": whole(50, 1)},  # the paper's for CIFAR-10; 200 CIFAR-100, 1000 ImageNet
)
NNGUIDE = Detector(
    name="nnguide",
    title="NNGuide",
    paper="Park et al., Nearest Neighbor Guidance for Out-of-Distribution Detection, ICCV 2023",
    needs=frozenset({"features", "logits"}),
    fit=fit_nnguide,
    score=nnguide_score,
    options={"k": whole(10, 1)},
)
