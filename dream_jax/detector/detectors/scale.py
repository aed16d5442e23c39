"""SCALE: the energy of features that are scaled by how much their largest ones stand out.

Unlike ASH, no feature is cut.
"""

import jax
from jaxtyping import Array, Float

from dream_jax.detector.detectors.ash import fit_ash, sharpening
from dream_jax.detector.detectors.base import Detector
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, number
from dream_jax.detector.scores import energy_score


def scale(features: Float[Array, "n d"], share: float) -> Float[Array, "n d"]:
    """Returns features times exp(s₁/s₂), their sum over that of what a cut would leave (eq. 4)."""
    return features * sharpening(features, share)


def _score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    return energy_score(state["head"](scale(inputs.features, options["share"])))


SCALE = Detector(
    name="scale",
    title="SCALE",
    paper="Xu et al., Scaling for Training Time and Post-hoc Out-of-distribution Detection "
    "Enhancement, ICLR 2024",
    needs=frozenset({"features", "head"}),
    fit=fit_ash,
    score=_score,
    options={"share": number(0.85, 0.0, 0.98)},  # see ASH-S
)
