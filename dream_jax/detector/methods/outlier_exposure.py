"""Outlier Exposure: real outliers are to have a uniform softmax (Hendrycks et al., ICLR 2019)."""

import jax
import jax.numpy as jnp

from dream_jax.detector.inputs import Inputs
from dream_jax.detector.methods.base import Method, Options, Own, Rows, classification_terms
from dream_jax.detector.options import number
from dream_jax.detector.scores import max_softmax
from dream_jax.training.loop import Term


def outlier_exposure_loss(logits: jax.Array) -> jax.Array:
    """Cross-entropy from the uniform distribution to the softmax, per row: (n, c) → (n,)."""
    return jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)


def _terms(own: Own, rows: Rows, options: Options) -> tuple[dict[str, Term], dict]:
    outliers = rows.mask * (1 - rows.is_id)
    exposure = Term(outlier_exposure_loss(rows.logits), outliers, options["weight"])
    ce = classification_terms(rows.logits, rows.labels, rows.mask * rows.is_id)
    return ce | {"exposure": exposure}, own.state


def _score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    return max_softmax(inputs.logits)


METHOD = Method(
    name="outlier_exposure",
    title="Outlier Exposure",
    paper="Hendrycks et al., Deep Anomaly Detection with Outlier Exposure, ICLR 2019",
    terms=_terms,
    score=_score,
    extra="auxiliary",
    options={"weight": number(0.5, 0.0, 1e3), "zoom": number(1.0, 1.0, 100.0)},
)
