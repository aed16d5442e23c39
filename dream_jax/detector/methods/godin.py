"""GODIN: logits as quotients h(x)/g(x), and an input perturbation chosen on ID images alone.

Hsu et al., Generalized ODIN, CVPR 2020. The network's own linear head takes no part: h and g are
functions of the features before it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dream_jax.detector.inputs import Inputs
from dream_jax.detector.methods.base import (
    Evaluate,
    Method,
    Options,
    Own,
    Rows,
    Shape,
    classification_terms,
)
from dream_jax.detector.options import choice
from dream_jax.models.norm import BatchNorm
from dream_jax.training.loop import Term
from dream_jax.training.optimizers import sgd

# What ε is chosen from, in the input space of normalised images.
EPSILONS = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)


def inner(h: dict, features: jax.Array) -> jax.Array:
    """DeConf-I: h_i(x) = w_i·f(x) + b_i, (n, d) → (n, classes)."""
    return jnp.matmul(features, h["kernel"], precision="highest") + h["bias"]


def euclidean(h: dict, features: jax.Array) -> jax.Array:
    """DeConf-E: h_i(x) = -|f(x) - w_i|², (n, d) → (n, classes)."""
    squares = jnp.sum(features**2, -1, keepdims=True) + jnp.sum(h["kernel"] ** 2, 0)
    return 2 * jnp.matmul(features, h["kernel"], precision="highest") - squares


def cosine(h: dict, features: jax.Array) -> jax.Array:
    """DeConf-C: h_i(x) = w_i·f(x) / (|w_i| |f(x)|), (n, d) → (n, classes)."""
    return jnp.matmul(_unit(features, -1), _unit(h["kernel"], 0), precision="highest")


def _unit(vectors: jax.Array, axis: int) -> jax.Array:
    """Vectors of length 1; zeros stay zeros, with a finite gradient."""
    squares = jnp.sum(vectors**2, axis, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))


SIMILARITIES = {"inner": inner, "euclidean": euclidean, "cosine": cosine}


def numerators(h: dict, features: jax.Array) -> jax.Array:
    """h(x): (n, d) → (n, classes), by the similarity that is the one key of `h`.

    Its name stays with the weights, so that a checkpoint of another similarity is refused.
    """
    ((name, weights),) = h.items()
    return SIMILARITIES[name](weights, features)


class Divisor(nn.Module):
    """g(x) = sigmoid(BN(w·f(x) + b)), in (0, 1): (n, d) → (n,)."""

    @nn.compact
    def __call__(self, features: jax.Array, train: bool, mask: jax.Array | None = None):
        return nn.sigmoid(BatchNorm()(nn.Dense(1)(features), train, mask))[:, 0]


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
    h_key, g_key = jax.random.split(key)
    h = {"kernel": nn.initializers.he_normal()(h_key, (shape.features, shape.classes))}
    if options["similarity"] == "inner":
        h["bias"] = jnp.zeros(shape.classes)
    g = Divisor().init(g_key, jnp.zeros((1, shape.features)), train=True, mask=jnp.ones(1))
    return Own({"h": {options["similarity"]: h}, "g": g["params"]}, g["batch_stats"])


def _terms(own: Own, rows: Rows, options: Options) -> tuple[dict[str, Term], dict]:
    g, changed = Divisor().apply(
        {"params": own.params["g"], "batch_stats": own.state},
        rows.features,
        train=True,
        mask=rows.mask,
        mutable=["batch_stats"],
    )
    logits = numerators(own.params["h"], rows.features) / g[:, None]
    terms = classification_terms(logits, rows.labels, rows.mask * rows.is_id)
    return terms, changed["batch_stats"]


def _outputs(own: Own, logits: jax.Array, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    g = {"params": own.params["g"], "batch_stats": own.state}
    divisor = Divisor().apply(g, features, train=False)
    return numerators(own.params["h"], features) / divisor[:, None], features


def _optimizer(
    optimizer: optax.GradientTransformation, settings: ConfigDict, steps: int, options: Options
) -> optax.GradientTransformation:
    """The network's, but without weight decay of h: its weights are like centres of the classes,
    which nothing should draw to the origin."""
    without_decay = settings.copy_and_resolve_references()
    without_decay.weight_decay = 0.0
    return optax.multi_transform(
        {"decayed": optimizer, "free": sgd(without_decay, steps)},
        {"network": "decayed", "method": {"h": "free", "g": "decayed"}},
    )


def perturbed_scores(h: dict, inputs: Inputs, epsilons: jax.Array) -> jax.Array:
    """S(x̂) for each of k step sizes: (n, k), where S(x) = max_i h_i(x), higher is more ID.

    x̂ = x - ε sign(-∇S(x)): each pixel is moved by ε so that S rises. As for ODIN, ε counts
    in the input space of normalised images, and x̂ is not clipped.
    """

    def score(images):
        _, features = inputs.forward(images)
        return jnp.max(numerators(h, features), axis=-1)

    direction = jnp.sign(jax.grad(lambda images: jnp.sum(score(images)))(inputs.images))

    def moved(epsilon):
        return score(inputs.images + epsilon / inputs.image_scale * direction)

    return jax.lax.map(moved, epsilons).T


def _fit(own: Own, evaluate: Evaluate, options: Options) -> dict:
    """The weights of h, and the ε with the largest mean score of ID training images."""
    h = own.params["h"]
    scores = evaluate(lambda inputs: perturbed_scores(h, inputs, jnp.array(EPSILONS)))
    best = int(np.argmax(np.mean(scores, axis=0, dtype=np.float64)))
    return {"h": h, "epsilon": np.array(EPSILONS[best : best + 1])}


def _score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    return perturbed_scores(state["h"], inputs, state["epsilon"])[:, 0]


METHOD = Method(
    name="godin",
    title="GODIN",
    paper="Hsu et al., Generalized ODIN, CVPR 2020",
    terms=_terms,
    score=_score,
    options={"similarity": choice("cosine", tuple(SIMILARITIES))},  # DeConf-C, the paper's best
    init=_init,
    outputs=_outputs,
    fit=_fit,
    optimizer=_optimizer,
)
