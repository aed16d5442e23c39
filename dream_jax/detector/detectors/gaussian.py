"""Distances to class-wise Gaussians with one covariance: Mahalanobis and its relative form."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import scatter, whitening
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options

# All is in float32 at scoring: features are centred first, and a whitened space keeps the
# distances free of the large and small numbers of an inverse covariance.


def _within(fitted, factor: np.ndarray) -> dict[str, np.ndarray]:
    means = (fitted.class_means - fitted.mean) @ factor
    return {"mean": fitted.mean, "factor": factor, "means": means}


def fit_mahalanobis(data: FitData, options: Options) -> dict[str, np.ndarray]:
    fitted = scatter(data, "mahalanobis")
    return _within(fitted, whitening(fitted.within))


def fit_relative(data: FitData, options: Options) -> dict[str, np.ndarray]:
    fitted = scatter(data, "rmd")
    background = whitening(fitted.total)
    return _within(fitted, whitening(fitted.within)) | {"background": background}


def _squared_lengths(centred: jax.Array, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
    white = jnp.matmul(centred, factor, precision="highest")
    return white, jnp.sum(white**2, axis=-1)


def _class_distance(state: dict, features: jax.Array) -> jax.Array:
    """min over classes of (z - μ_c)ᵀ Σ⁻¹ (z - μ_c): (n, d) → (n,)."""
    white, lengths = _squared_lengths(features - state["mean"], state["factor"])
    products = jnp.matmul(white, state["means"].T, precision="highest")
    to_class = jnp.sum(state["means"] ** 2, axis=-1) - 2 * products
    return lengths + jnp.min(to_class, axis=-1)


def mahalanobis_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """Minus the squared Mahalanobis distance to the nearest class mean (eq. 2 of Lee et al.).

    Of the penultimate features, without the perturbation and the ensemble of layers that the
    paper adds.
    """
    return -_class_distance(state, inputs.features)


def relative_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """The same, less the distance to one Gaussian of all classes."""
    _, background = _squared_lengths(inputs.features - state["mean"], state["background"])
    return background - _class_distance(state, inputs.features)


MAHALANOBIS = Detector(
    name="mahalanobis",
    title="Mahalanobis",
    paper="Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and "
    "Adversarial Attacks, NeurIPS 2018",
    needs=frozenset({"features", "labels"}),
    fit=fit_mahalanobis,
    score=mahalanobis_score,
)
RMD = Detector(
    name="rmd",
    title="RMD",
    paper="Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021",
    needs=frozenset({"features", "labels"}),
    fit=fit_relative,
    score=relative_score,
)
