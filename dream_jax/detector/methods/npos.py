"""NPOS: outliers at the edge of the data, without a model of it (Tao et al., ICLR 2023).

Classes are compact clusters around prototypes on a hypersphere. Outliers are drawn around the
features that are farthest from their class, and the farthest of those are kept; a loss on the
features tells them from the batch. As in the published code for training from scratch, prototypes
and classification use a projection of the features, and outliers and score the features themselves,
all as unit vectors.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector import queues
from dream_jax.detector.inputs import Outputs
from dream_jax.detector.methods.base import (
    Examples,
    Own,
    Shape,
    Training,
    classification_terms,
)
from dream_jax.detector.options import Options, number, whole
from dream_jax.errors import UserError
from dream_jax.knn import kth_sq_distance
from dream_jax.settings import OptimizerSettings
from dream_jax.training.devices import gather_rows, share_out
from dream_jax.training.terms import Term
from dream_jax.vectors import cosine_logits, unit

if TYPE_CHECKING:
    import optax


def init_mlp(key: jax.Array, sizes: tuple[int, int, int]) -> dict:
    """Two linear layers, all uniform in ±1/√inputs, as in the original."""
    layers = {}
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        draw = jax.random.uniform(
            jax.random.fold_in(key, index), (inputs + 1, outputs), minval=-1.0, maxval=1.0
        )
        draw = draw * inputs**-0.5
        layers[f"layer{index}"] = {"kernel": draw[:-1], "bias": draw[-1]}
    return layers


def mlp(layers: dict, x: jax.Array) -> jax.Array:
    """(n, inputs) → (n, outputs), with a ReLU between the two layers."""
    for index in range(2):
        layer = layers[f"layer{index}"]
        x = jnp.matmul(x, layer["kernel"], precision="highest") + layer["bias"]
        x = x if index else jax.nn.relu(x)
    return x


def move_prototypes(
    prototypes: jax.Array, projected: jax.Array, labels: jax.Array, mask: jax.Array, momentum: float
) -> jax.Array:
    """Prototypes after the rows of a batch have moved them one after the other.

    Each row z of a class moves its prototype μ to m μ + (1 - m) z. The original scales μ to length
    1 after each row, here it is scaled after the batch: so the result is a weighted sum.

    Args:
      prototypes: (classes, p) unit vectors, or zeros before there are any.
      projected: (n, p) unit vectors.
      labels: (n,).
      mask: (n,), 0 on rows that move nothing.

    Returns:
      (classes, p) unit vectors.
    """
    own = jax.nn.one_hot(labels, len(prototypes)) * mask[:, None]  # (n, classes)
    count = jnp.sum(own, axis=0)
    later = count - jnp.cumsum(own, axis=0)  # rows of the class that come after
    weights = own * (1 - momentum) * momentum**later
    moved = jnp.matmul(weights.T, projected, precision="highest")
    return unit(momentum ** count[:, None] * prototypes + moved)


def dispersion(prototypes: jax.Array, temperature: float) -> jax.Array:
    """How near each prototype is to the others, log mean exp(cos / τ): (classes, p) → (classes,).

    From CIDER (Ming et al., ICLR 2023), which the published code builds on.
    """
    cosines = cosine_logits(prototypes, prototypes, temperature)
    others = ~jnp.eye(len(prototypes), dtype=bool)
    return jax.nn.logsumexp(cosines, axis=1, where=others) - jnp.log(len(prototypes) - 1)


def synthesise(key: jax.Array, features: jax.Array, options: Options) -> jax.Array:
    """Outliers of one class (section 3.1).

    Of the `boundary` features with the largest distance to their k-th nearest one, `picks` are
    drawn; around each, candidates are drawn from a Gaussian and brought to the sphere, and the
    `keep` with the largest distance to their k-th nearest feature are outliers.

    Args:
      features: (n, d) unit vectors of the class.

    Returns:
      (picks · keep, d) unit vectors, those of a pick together, the farthest first.
    """
    pick_key, noise_key = jax.random.split(key)
    distance = kth_sq_distance(features, features, options["k"])
    edge = jax.lax.top_k(distance, options["boundary"])[1]
    picks = features[jax.random.choice(pick_key, edge, (options["picks"],), replace=False)]
    shape = (options["candidates"], features.shape[1])
    noise = options["scale"] * jax.random.normal(noise_key, shape)  # of all picks, as in the code

    def around(pick):
        candidates = unit(pick + noise)
        distance = kth_sq_distance(candidates, features, options["k"])
        return candidates[jax.lax.top_k(distance, options["keep"])[1]]

    return jax.lax.map(around, picks).reshape(-1, shape[1])


def open_loss(phi: jax.Array, is_id: jax.Array) -> jax.Array:
    """-log σ(φ) of ID rows, -log(1 - σ(φ)) of outliers: (n,) and (n,) → (n,) (eq. 6)."""
    return jax.nn.softplus(jnp.where(is_id > 0, -phi, phi))


def _check(options: Options, image: tuple[int, int, int], labels: np.ndarray, epochs: int) -> None:
    for small, large in (
        ("k", "queue"),
        ("boundary", "queue"),
        ("picks", "boundary"),
        ("keep", "candidates"),
    ):
        if options[small] > options[large]:
            raise UserError(
                f"method npos: {small} is {options[small]}; it must be at most {large} = "
                f"{options[large]}"
            )
    queues.check_fill("npos", options["queue"], labels, epochs)


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
    projection_key, phi_key = jax.random.split(key)
    d, p = shape.features, options["projection"]
    params = {
        "projection": init_mlp(projection_key, (d, d, p)),
        "phi": init_mlp(phi_key, (d, options["phi_hidden"], 1)),
    }
    prototypes = jnp.zeros((shape.classes, p))
    queue = queues.empty(shape.classes, options["queue"], d)
    return Own(params, {"prototypes": prototypes, "queue": queue})


def _optimizer(
    network: optax.GradientTransformation, settings: OptimizerSettings, steps: int, options: Options
) -> optax.GradientTransformation:
    """The network's, with a learning rate of φ that is `phi_rate` times as large."""
    import optax  # slow to import, and a finished run trains nothing

    def of_phi(params) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: [p.key for p in path[:2]] == ["method", "phi"], params
        )

    return optax.chain(network, optax.masked(optax.scale(options["phi_rate"]), of_phi))


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    id_mask = shown.mask * shown.is_id
    features = unit(shown.features)
    projected = unit(mlp(own.params["projection"], shown.features))
    all_features, all_projected, labels, mask = gather_rows(
        (jax.lax.stop_gradient(features), projected, shown.labels, id_mask)
    )
    prototypes = move_prototypes(
        own.state["prototypes"], all_projected, labels, mask, options["momentum"]
    )
    apart = dispersion(prototypes, options["temperature"])  # moves the network by the batch's rows
    prototypes = jax.lax.stop_gradient(prototypes)
    logits = cosine_logits(projected, prototypes, options["temperature"])

    queue = queues.push(own.state["queue"], all_features, labels, mask)
    begun = queues.all_full(queue) & (shown.progress >= options["start"])
    # Each device draws the outliers of its share of the classes.
    classes, real = share_out(len(queue.seen))
    each, d = options["picks"] * options["keep"], features.shape[1]

    def draw():
        def of_class(number):
            return synthesise(jax.random.fold_in(shown.key, number), queue.rows[number], options)

        return jax.lax.map(of_class, classes)

    outliers = jax.lax.cond(begun, draw, lambda: jnp.zeros((len(classes), each, d)))
    both = jnp.concatenate([features, outliers.reshape(-1, d)])
    is_id = jnp.concatenate([shown.is_id, jnp.zeros(len(classes) * each)])
    open_mask = jnp.concatenate([id_mask, jnp.repeat(real, each)]) * begun
    loss = open_loss(mlp(own.params["phi"], both)[:, 0], is_id)
    terms = classification_terms(logits, shown.labels, id_mask) | {
        "dispersion": Term(apart, jnp.ones(len(apart)), options["dispersion"]),
        "open": Term(loss, open_mask, options["weight"]),
    }
    return terms, {"prototypes": prototypes, "queue": queue}


def _outputs(own: Own, outputs: Outputs, options: Options) -> Outputs:
    """Returns cosines to the prototypes as logits, of temperature 1, and unit features."""
    projected = unit(mlp(own.params["projection"], outputs.features))
    logits = cosine_logits(projected, own.state["prototypes"], 1.0)
    return outputs._replace(logits=logits, features=unit(outputs.features))


TRAINING = Training(
    name="npos",
    title="NPOS",
    paper="Tao et al., Non-parametric Outlier Synthesis, ICLR 2023",
    terms=_terms,
    detector="knn",
    detector_options={"k": 300},
    options={  # defaults of the published code for CIFAR-10, trained from scratch
        "weight": number(0.1, 0.0, 1e3),  # of the open loss
        "start": number(0.4, 0.0, 1.0),  # share of the training before it, epochs 200 of 500
        "queue": whole(1000, 1),  # features per class
        "k": whole(300, 1),  # the neighbour whose distance counts; ImageNet-100: 400
        "boundary": whole(200, 1),  # features of a class that are farthest from the others ...
        "picks": whole(2, 1),  # ... and how many of them a step draws
        "candidates": whole(600, 1),  # around each pick; ImageNet-100: 1000 ...
        "keep": whole(200, 1),  # ... and how many of them are kept; ImageNet-100: 300
        "scale": number(0.1, 0.0, 1e3),  # standard deviation of the noise around a pick
        "phi_hidden": whole(128, 1),  # width of φ
        "phi_rate": number(0.1, 0.0, 1e3),  # learning rate of φ over the network's
        "projection": whole(128, 1),  # size of the projected features
        "temperature": number(0.1, 1e-3, 1e3),
        "momentum": number(0.95, 0.0, 1.0),  # of the prototypes; CIFAR-100: 0.5
        "dispersion": number(0.5, 0.0, 1e3),  # weight of the loss that drives prototypes apart
    },
    init=_init,
    outputs=_outputs,
    linear=False,
    check=_check,
    optimizer=_optimizer,
)
