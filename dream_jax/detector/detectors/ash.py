"""ASH: the energy of features of which the small ones are cut; S, P and B treat the rest unalike.

The paper shapes the activations before the pooling of some networks and after that of others; here
they are the penultimate features. Shares are those of its ResNet-50 for ImageNet.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, number
from dream_jax.detector.scores import energy_score
from dream_jax.rules import Option


def largest(
    features: Float[Array, "n d"], share: float
) -> tuple[Float[Array, "n kept"], Int[Array, "n kept"]]:
    """Returns the features that are left of each row, with their places.

    Args:
      features: penultimate features.
      share: of the d features that are cut, in [0, 1); at least one is kept.
    """
    d = features.shape[-1]
    return jax.lax.top_k(features, max(1, d - round(d * share)))


def sharpening(features: Float[Array, "n d"], share: float) -> Float[Array, "n 1"]:
    """Returns exp(s₁/s₂), the sum of a row over that of its largest features.

    Features must not be negative. A row of zeros has no ratio; its factor is 1.
    """
    before = jnp.sum(features, axis=-1, keepdims=True)
    after = jnp.sum(largest(features, share)[0], axis=-1, keepdims=True)
    return jnp.exp(before / jnp.where(after > 0, after, 1.0))


def _only(features: jax.Array, index: jax.Array, values: jax.Array) -> jax.Array:
    """Returns rows of zeros, but for some values."""
    rows = jnp.arange(features.shape[0])[:, None]
    return jnp.zeros_like(features).at[rows, index].set(values)


def prune(features: Float[Array, "n d"], share: float) -> Float[Array, "n d"]:
    """ASH-P: sets a share of each row, its smallest, to 0."""
    values, index = largest(features, share)
    return _only(features, index, values)


def binarise(features: Float[Array, "n d"], share: float) -> Float[Array, "n d"]:
    """ASH-B: sets a share of each row to 0, and the others to one value that keeps its sum."""
    values, index = largest(features, share)
    level = jnp.sum(features, axis=-1, keepdims=True) / values.shape[-1]
    return _only(features, index, jnp.broadcast_to(level, values.shape))


def shape_activations(features: Float[Array, "n d"], share: float) -> Float[Array, "n d"]:
    """ASH-S: sets a share of each row to 0 and scales the others by exp(s₁/s₂).

    s₁ and s₂ are the row's sums before and after. Features must not be negative.
    """
    return prune(features, share) * sharpening(features, share)


def fit_ash(data: FitData, options: Options) -> dict[str, Any]:
    return {"head": data.linear_head}


def _detector(
    name: str, title: str, shape: Callable[[jax.Array, float], jax.Array], share: Option
) -> Detector:
    def score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
        return energy_score(state["head"](shape(inputs.features, options["share"])))

    return Detector(
        name=name,
        title=title,
        paper="Djurisic et al., Extremely Simple Activation Shaping for Out-of-Distribution "
        "Detection, ICLR 2023",
        needs=frozenset({"features", "head"}),
        fit=fit_ash,
        score=score,
        options={"share": share},
    )


# exp(s₁/s₂) is at most exp(1/(1 - share)): above 0.98 it could leave float32.
ASH_S = _detector("ash_s", "ASH-S", shape_activations, number(0.9, 0.0, 0.98))
ASH_P = _detector("ash_p", "ASH-P", prune, number(0.6, 0.0, 0.999))
ASH_B = _detector("ash_b", "ASH-B", binarise, number(0.65, 0.0, 0.999))
