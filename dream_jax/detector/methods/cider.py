"""CIDER: compact classes around prototypes far apart on a sphere (Ming et al., ICLR 2023).

Features are projected to a sphere, where each class has a prototype that follows its images. One
loss draws images to the prototype of their class, another drives the prototypes apart. Prototypes
and classification use the projection; the score is the distance to the k-th nearest feature before
it, as in the published code. That shows each image twice in a step, augmented differently; here it
is shown once, as by all trainings.
"""

import jax
import jax.numpy as jnp

from dream_jax.detector.inputs import Outputs
from dream_jax.detector.methods.base import (
    Examples,
    Own,
    Shape,
    Training,
    classification_terms,
)
from dream_jax.detector.methods.npos import dispersion, init_mlp, mlp, move_prototypes
from dream_jax.detector.options import Options, number, whole
from dream_jax.training.devices import gather_rows
from dream_jax.training.terms import Term
from dream_jax.vectors import cosine_logits, unit


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
    d, p = shape.features, options["projection"]
    return Own(init_mlp(key, (d, d, p)), {"prototypes": jnp.zeros((shape.classes, p))})


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    mask = shown.mask * shown.is_id
    projected = unit(mlp(own.params, shown.features))
    rows, labels, row_mask = gather_rows((projected, shown.labels, mask))
    prototypes = move_prototypes(
        own.state["prototypes"], rows, labels, row_mask, options["momentum"]
    )
    apart = dispersion(prototypes, options["temperature"])  # moves the network by the batch's rows
    prototypes = jax.lax.stop_gradient(prototypes)
    logits = cosine_logits(projected, prototypes, options["temperature"])
    terms = classification_terms(logits, shown.labels, mask)
    terms["ce"] = terms["ce"]._replace(weight=options["compactness"])
    terms["dispersion"] = Term(apart, jnp.ones(len(apart)))
    return terms, {"prototypes": prototypes}


def _outputs(own: Own, outputs: Outputs, options: Options) -> Outputs:
    """Returns cosines to the prototypes as logits, of temperature 1, and unit features."""
    projected = unit(mlp(own.params, outputs.features))
    logits = cosine_logits(projected, own.state["prototypes"], 1.0)
    return outputs._replace(logits=logits, features=unit(outputs.features))


TRAINING = Training(
    name="cider",
    title="CIDER",
    paper="Ming et al., How to Exploit Hyperspherical Embeddings for Out-of-Distribution "
    "Detection?, ICLR 2023",
    terms=_terms,
    detector="knn",
    detector_options={"k": 100},
    options={  # the published code's for CIFAR-10
        "compactness": number(2.0, 0.0, 1e3),  # weight of the loss that draws to the prototypes
        "temperature": number(0.1, 1e-3, 1e3),
        "momentum": number(0.95, 0.0, 1.0),  # of the prototypes; CIFAR-100: 0.5
        "projection": whole(128, 1),  # size of the projected features
    },
    init=_init,
    outputs=_outputs,
    linear=False,
    in_all=False,
)
