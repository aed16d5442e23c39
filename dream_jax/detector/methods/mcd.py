"""MCD: two classifiers that disagree on outliers (Yu and Aizawa, ICCV 2019).

Two last layers on the same features learn the classes of ID images. Towards the end of the training
a further loss drives the entropies of their softmaxes apart on real outliers, by up to a margin. An
image is scored by how little the two softmaxes differ, the sum of the absolute differences.
"""

import jax
import jax.numpy as jnp

from dream_jax.detector import last_layer
from dream_jax.detector.inputs import Head, Outputs
from dream_jax.detector.methods.base import (
    Examples,
    Own,
    Shape,
    Training,
    classification_terms,
)
from dream_jax.detector.options import Options, number
from dream_jax.training.devices import gather_rows
from dream_jax.training.terms import Term


def entropy(logits: jax.Array) -> jax.Array:
    """Returns the entropy of the softmax in nats: (n, classes) → (n,)."""
    return -jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits), axis=-1)


def discrepancy(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns how far two softmaxes are apart, in [0, 2]: logits (n, classes) twice → (n,)."""
    return jnp.sum(jnp.abs(jax.nn.softmax(first) - jax.nn.softmax(second)), axis=-1)


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
    # As the network's last layer, from another key: two that are equal would stay equal.
    kernel = jax.nn.initializers.lecun_normal()(key, (shape.features, shape.classes))
    return Own({"kernel": kernel, "bias": jnp.zeros(shape.classes)}, {})


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    known = shown.mask * shown.is_id
    second = Head(**own.params)(shown.features)
    terms = classification_terms(shown.logits, shown.labels, known)
    terms["second_ce"] = classification_terms(second, shown.labels, known)["ce"]
    # The margin is one of the mean over the outliers of all devices.
    apart, mask = gather_rows(
        (entropy(shown.logits) - entropy(second), shown.mask * (1 - shown.is_id))
    )
    mean = jnp.sum(apart * mask) / jnp.maximum(jnp.sum(mask), 1)
    begun = jnp.where(shown.progress >= options["start"], 1.0, 0.0)[None]
    missing = jax.nn.relu(options["margin"] - mean)[None]
    return terms | {"margin": Term(missing, begun, options["weight"])}, own.state


def _outputs(own: Own, outputs: Outputs, options: Options) -> Outputs:
    """Adds how well the two classifiers agree as the certainty, in [-2, 0]."""
    second = Head(**own.params)(outputs.features)
    return outputs._replace(certainty=-discrepancy(outputs.logits, second))


TRAINING = Training(
    name="mcd",
    title="MCD",
    paper="Yu and Aizawa, Unsupervised Out-of-Distribution Detection by Maximum Classifier "
    "Discrepancy, ICCV 2019",
    terms=_terms,
    detector="phi",
    extra="auxiliary",
    options={
        "margin": number(1.2, 0.0, 1e3),  # of the entropies' difference, in nats
        "weight": number(1.0, 0.0, 1e3),  # of the margin's loss
        "start": number(0.9, 0.0, 1.0),  # share of the training before it; OpenOOD: 90 of 100
        **last_layer.OPTIONS,
    },
    init=_init,
    outputs=_outputs,
    in_all=False,
)
