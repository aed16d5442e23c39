"""ReAct: the energy of features whose large values are cut off."""

from typing import Any

import jax
import jax.numpy as jnp

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import quantile
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, number
from dream_jax.detector.scores import energy_score


def fit_react(data: FitData, options: Options) -> dict[str, Any]:
    """Returns the threshold, an exact quantile of all features of all fitting data."""
    threshold = quantile(lambda: (part.features for part in data.parts()), options["quantile"])
    return {"threshold": threshold, "head": data.linear_head}


def _score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    return energy_score(state["head"](jnp.minimum(inputs.features, state["threshold"])))


REACT = Detector(
    name="react",
    title="ReAct",
    paper="Sun et al., ReAct: Out-of-distribution Detection With Rectified Activations, "
    "NeurIPS 2021",
    needs=frozenset({"features", "head"}),
    fit=fit_react,
    score=_score,
    options={"quantile": number(0.9, 0.0, 1.0)},
)
