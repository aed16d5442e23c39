"""Scores of the logits alone, which need no fitting: MSP, MaxLogit, Energy and GEN."""

import jax
import jax.numpy as jnp

from dream_jax.detector.detectors.base import Detector
from dream_jax.detector.options import number, whole
from dream_jax.detector.scores import energy_score, max_softmax

# Beside 1, float32 resolves 6e-8: nearer to 0 or 1 the power in GEN would score rounding.
_NEAREST = 1e-7


def generalized_entropy(logits: jax.Array, gamma: float, top: int) -> jax.Array:
    """The mean of pᵞ(1 - p)ᵞ over the `top` largest probabilities, or all: (n, c) → (n,).

    Liu et al. take the sum, which orders the same. Probabilities are taken as at least 1e-7 away
    from 0 and 1.
    """
    probabilities = jax.nn.softmax(logits, axis=-1)
    probabilities = jax.lax.top_k(probabilities, min(top, logits.shape[-1]))[0]
    probabilities = jnp.clip(probabilities, _NEAREST, 1 - _NEAREST)
    return jnp.mean((probabilities * (1 - probabilities)) ** gamma, axis=-1)


MSP = Detector(
    name="msp",
    title="MSP",
    paper="Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution "
    "Examples in Neural Networks, ICLR 2017",
    needs=frozenset({"logits"}),
    score=lambda state, inputs, options: max_softmax(inputs.logits),
)
MAX_LOGIT = Detector(
    name="max_logit",
    title="MaxLogit",
    paper="Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, "
    "ICML 2022",
    needs=frozenset({"logits"}),
    score=lambda state, inputs, options: jnp.max(inputs.logits, axis=-1),
)
ENERGY = Detector(
    name="energy",
    title="Energy",
    paper="Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020",
    needs=frozenset({"logits"}),
    score=lambda state, inputs, options: (
        options["temperature"] * energy_score(inputs.logits / options["temperature"])
    ),
    options={"temperature": number(1.0, 1e-3, 1e6)},
)
GEN = Detector(
    name="gen",
    title="GEN",
    paper="Liu et al., GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection, "
    "CVPR 2023",
    needs=frozenset({"logits"}),
    score=lambda state, inputs, options: -generalized_entropy(inputs.logits, **options),
    options={"gamma": number(0.1, 1e-3, 1.0), "top": whole(100, 1)},
)
