"""Energies after the features were changed: ReAct cuts the large ones, ASH-S the small ones."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import quantile
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import number
from dream_jax.detector.scores import energy_score


def fit_react(data: FitData, options: Mapping[str, Any]) -> dict[str, Any]:
    """The threshold: an exact quantile of all features of all fitting data."""
    threshold = quantile(lambda: (features for features, _ in data.parts()), options["quantile"])
    return {"threshold": threshold, "head": data.head}


def _react(state: dict, inputs: Inputs, options: Mapping[str, Any]) -> jax.Array:
    return energy_score(state["head"](jnp.minimum(inputs.features, state["threshold"])))


def shape_activations(features: jax.Array, share: float) -> jax.Array:
    """ASH-S: sets a share of each row, its smallest, to 0 and scales the others by exp(s₁/s₂).

    s₁ and s₂ are the row's sums before and after. Features must not be negative.

    Args:
      features: (n, d).
      share: of the d features, in [0, 1); at least one is kept.
    """
    d = features.shape[-1]
    kept = max(1, d - round(d * share))
    values, index = jax.lax.top_k(features, kept)
    before, after = jnp.sum(features, axis=-1), jnp.sum(values, axis=-1)
    # A row of zeros has no ratio, and stays one of zeros.
    ratio = before / jnp.where(after > 0, after, 1.0)
    rows = jnp.arange(len(features))[:, None]
    return jnp.zeros_like(features).at[rows, index].set(values * jnp.exp(ratio)[:, None])


def fit_ash(data: FitData, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"head": data.head}


def _ash(state: dict, inputs: Inputs, options: Mapping[str, Any]) -> jax.Array:
    return energy_score(state["head"](shape_activations(inputs.features, options["share"])))


REACT = Detector(
    name="react",
    title="ReAct",
    paper="Sun et al., ReAct: Out-of-distribution Detection With Rectified Activations, "
    "NeurIPS 2021",
    needs=frozenset({"features", "head"}),
    fit=fit_react,
    score=_react,
    options={"quantile": number(0.9, 0.0, 1.0)},
)
ASH_S = Detector(
    name="ash_s",
    title="ASH-S",
    paper="Djurisic et al., Extremely Simple Activation Shaping for Out-of-Distribution Detection, "
    "ICLR 2023",
    needs=frozenset({"features", "head"}),
    fit=fit_ash,
    score=_ash,
    # exp(s₁/s₂) is at most exp(1/(1 - share)): above 0.98 it could leave float32.
    options={"share": number(0.9, 0.0, 0.98)},
)
