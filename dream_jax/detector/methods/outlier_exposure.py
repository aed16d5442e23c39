"""Outlier Exposure: a uniform softmax on real outliers (Hendrycks et al., ICLR 2019)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Examples, Own, Training, classification_terms
from dream_jax.detector.options import Options, number
from dream_jax.training.terms import Term


def outlier_exposure_loss(logits: Float[Array, "n classes"]) -> Float[Array, " n"]:
    """Returns the cross-entropy from the uniform distribution to the softmax of each example."""
    return jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    outliers = shown.mask * (1 - shown.is_id)
    exposure = Term(outlier_exposure_loss(shown.logits), outliers, options["weight"])
    ce = classification_terms(shown.logits, shown.labels, shown.mask * shown.is_id)
    return ce | {"exposure": exposure}, own.state


TRAINING = Training(
    name="outlier_exposure",
    title="Outlier Exposure",
    paper="Hendrycks et al., Deep Anomaly Detection with Outlier Exposure, ICLR 2019",
    terms=_terms,
    detector="msp",
    extra="auxiliary",
    options={
        "weight": number(0.5, 0.0, 1e3),
        "zoom": number(1.0, 1.0, 100.0),
        **last_layer.OPTIONS,
    },
)
