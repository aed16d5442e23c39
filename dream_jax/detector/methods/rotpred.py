"""RotPred: which way up an image is shown (Hendrycks et al., NeurIPS 2019).

In training every image is shown upright and turned by 90, 180 and 270 degrees, and a second layer
on the features tells the four apart. An image is scored as in the published code: by how far its
softmax is from uniform, less the mean loss of telling its four rotations apart.
"""

import jax
import jax.numpy as jnp

from dream_jax.detector import last_layer
from dream_jax.detector.inputs import Head, Outputs
from dream_jax.detector.methods.base import (
    Batch,
    Examples,
    Network,
    Own,
    Shape,
    Training,
    classification_terms,
)
from dream_jax.detector.methods.gan import uniform_divergence
from dream_jax.detector.options import Options, number
from dream_jax.training.terms import Term, cross_entropy

TURNS = 4


def rotations(images: jax.Array) -> jax.Array:
    """Returns square images and the same turned by 90, 180 and 270 degrees: (4 n, H, W, C)."""
    return jnp.concatenate([jnp.rot90(images, turn, (1, 2)) for turn in range(TURNS)])


def rotation_loss(head: Head, features: jax.Array) -> jax.Array:
    """Returns the cross-entropy of the turns that `rotations` made, from their features (4 n, d).

    The n images of a turn come together; so do their losses, (4 n,).
    """
    turns = jnp.repeat(jnp.arange(TURNS), len(features) // TURNS)
    return cross_entropy(head(features), turns)


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
    kernel = jax.nn.initializers.lecun_normal()(key, (shape.features, TURNS))
    return Own({"kernel": kernel, "bias": jnp.zeros(TURNS)}, {})


def _show(batch: Batch, options: Options) -> tuple[Batch, None]:
    def repeated(rows: jax.Array) -> jax.Array:
        return jnp.concatenate([rows] * TURNS)

    rows = {name: repeated(getattr(batch, name)) for name in ("labels", "is_id", "mask", "keys")}
    return batch._replace(images=rotations(batch.images), **rows), None


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    mask = shown.mask * shown.is_id
    upright = slice(len(mask) // TURNS)
    terms = classification_terms(shown.logits[upright], shown.labels[upright], mask[upright])
    loss = rotation_loss(Head(**own.params), shown.features)
    return terms | {"rotation": Term(loss, mask, options["weight"])}, own.state


def _forward(network: Network, own: Own, images: jax.Array, options: Options) -> Outputs:
    """Returns the outputs of the upright images, with the score of all four as the certainty.

    The upright ones go through the network by themselves, so that a program that uses their logits
    alone computes no others.
    """
    upright, turned = network.apply(images), network.apply(rotations(images)[len(images) :])
    features = jnp.concatenate([upright.features, turned.features])
    loss = rotation_loss(Head(**own.params), features).reshape(TURNS, -1).mean(0)
    return upright._replace(certainty=uniform_divergence(upright.logits) - loss)


TRAINING = Training(
    name="rotpred",
    title="RotPred",
    paper="Hendrycks et al., Using Self-Supervised Learning Can Improve Model Robustness and "
    "Uncertainty, NeurIPS 2019",
    terms=_terms,
    detector="phi",
    options={
        "weight": number(1.0, 0.0, 1e3),  # of the rotations' loss, as the published run for CIFAR
        **last_layer.OPTIONS,
    },
    init=_init,
    show=_show,
    forward=_forward,
    in_all=False,
)
