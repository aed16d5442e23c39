"""Residual: how much of a feature lies outside the principal subspace; ViM without the energy."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.vim import residual_space
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, whole


def fit_residual(data: FitData, options: Options) -> dict[str, np.ndarray]:
    origin, residual = residual_space(data, options, "residual")
    return {"origin": origin, "residual": residual}


def residual_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """Minus the length of the residual."""
    residual = jnp.matmul(inputs.features - state["origin"], state["residual"], precision="highest")
    return -jnp.linalg.norm(residual, axis=-1)


RESIDUAL = Detector(
    name="residual",
    title="Residual",
    paper="Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022",
    needs=frozenset({"features", "head"}),
    fit=fit_residual,
    score=residual_score,
    options={"dimension": whole(0, 0)},  # as ViM's
)
