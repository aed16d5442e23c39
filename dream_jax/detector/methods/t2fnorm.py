"""T2FNorm: features of length 1 in training alone (Regmi et al., CVPR workshops 2024).

In training the last layer sees the direction of the features, divided by a temperature; in testing
it sees the features themselves, divided by the same. Features of outliers are shorter, which then
counts. Without the division of the published code the last layer would have to grow instead.
"""

import jax

from dream_jax.detector import last_layer
from dream_jax.detector.inputs import Outputs
from dream_jax.detector.methods.base import (
    Examples,
    Network,
    Own,
    Training,
    classification_terms,
)
from dream_jax.detector.options import Options, number
from dream_jax.training.terms import Term
from dream_jax.vectors import unit


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    logits = shown.head(unit(shown.features) / options["temperature"])
    return classification_terms(logits, shown.labels, shown.mask * shown.is_id), own.state


def _forward(network: Network, own: Own, images: jax.Array, options: Options) -> Outputs:
    """Returns what the last layer makes of the divided features, and these."""
    outputs = network.apply(images)
    features = outputs.features / options["temperature"]
    return outputs._replace(logits=network.head(features), features=features)


TRAINING = Training(
    name="t2fnorm",
    title="T2FNorm",
    paper="Regmi et al., T2FNorm: Train-time Feature Normalization for OOD Detection in Image "
    "Classification, CVPR workshops 2024",
    terms=_terms,
    detector="msp",
    options={
        "temperature": number(0.1, 1e-4, 1e3),  # the published code's
        **last_layer.OPTIONS,
    },
    forward=_forward,
    in_all=False,
)
