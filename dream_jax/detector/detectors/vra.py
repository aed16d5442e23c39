"""VRA: the energy of features of which small values are cut and large ones limited."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import column_quantiles
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, number
from dream_jax.detector.scores import energy_score
from dream_jax.errors import UserError


def check_vra(options: Options, images: int) -> None:
    """Raises UserError if the quantiles are the wrong way round."""
    if options["low"] > options["high"]:
        raise UserError(
            f"detector vra: low is {options['low']} and high is {options['high']}; low must be at "
            f"most high"
        )


def fit_vra(data: FitData, options: Options) -> dict:
    """Returns the two exact quantiles of each feature, as the published code does."""
    check_vra(options, len(data.labels))
    low, high = column_quantiles(data.features, (options["low"], options["high"]))
    return {"low": low, "high": high, "head": data.linear_head}


def rectify(
    features: jax.Array, low: jax.Array | np.ndarray, high: jax.Array | np.ndarray, shift: float
) -> jax.Array:
    """Sets values below `low` to 0 and those above `high` to it; adds `shift` to the others."""
    kept = jnp.where(features > high, high, features + shift)
    return jnp.where(features < low, 0.0, kept)


def _score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    shaped = rectify(inputs.features, state["low"], state["high"], options["shift"])
    return energy_score(state["head"](shaped))


VRA = Detector(
    name="vra",
    title="VRA",
    paper="Xu et al., VRA: Variational Rectified Activation for Out-of-distribution Detection, "
    "NeurIPS 2023",
    needs=frozenset({"features", "head"}),
    fit=fit_vra,
    score=_score,
    # The published code's for CIFAR-10; 0.6 and 0.95 for CIFAR-100. A shift makes it VRA+, with 0.6
    # and a high quantile of 0.95 for both.
    options={
        "low": number(0.6, 0.0, 1.0),
        "high": number(0.9, 0.0, 1.0),
        "shift": number(0.0, 0.0, 1e6),
    },
    check=check_vra,
)
