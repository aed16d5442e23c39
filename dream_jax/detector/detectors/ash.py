"""ASH-S: the energy of features of which the small ones are cut and the others scaled."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, number
from dream_jax.detector.scores import energy_score


def shape_activations(features: Float[Array, "n d"], share: float) -> Float[Array, "n d"]:
    """Sets a share of each row, its smallest, to 0 and scales the others by exp(s₁/s₂).

    s₁ and s₂ are the row's sums before and after. Features must not be negative.

    Args:
      features: penultimate features.
      share: of the d features, in [0, 1); at least one is kept.
    """
    d = features.shape[-1]
    kept = max(1, d - round(d * share))
    values, index = jax.lax.top_k(features, kept)
    before, after = jnp.sum(features, axis=-1), jnp.sum(values, axis=-1)
    # A row of zeros has no ratio, and stays one of zeros.
    ratio = before / jnp.where(after > 0, after, 1.0)
    rows = jnp.arange(features.shape[0])[:, None]
    return jnp.zeros_like(features).at[rows, index].set(values * jnp.exp(ratio)[:, None])


def fit_ash(data: FitData, options: Options) -> dict[str, Any]:
    return {"head": data.linear_head}


def _score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    return energy_score(state["head"](shape_activations(inputs.features, options["share"])))


ASH_S = Detector(
    name="ash_s",
    title="ASH-S",
    paper="Djurisic et al., Extremely Simple Activation Shaping for Out-of-Distribution Detection, "
    "ICLR 2023",
    needs=frozenset({"features", "head"}),
    fit=fit_ash,
    score=_score,
    # exp(s₁/s₂) is at most exp(1/(1 - share)): above 0.98 it could leave float32.
    options={"share": number(0.9, 0.0, 0.98)},
)
