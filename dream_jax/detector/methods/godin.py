"""GODIN: logits as quotients h(x)/g(x); its score by h is the detector `deconf`.

Hsu et al., Generalized ODIN, CVPR 2020. The network's own linear head takes no part: h and g are
functions of the features before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

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
from dream_jax.detector.options import Options, choice
from dream_jax.settings import OptimizerSettings
from dream_jax.training.terms import Term
from dream_jax.vectors import unit

if TYPE_CHECKING:
    import optax


def inner(h: dict, features: jax.Array) -> jax.Array:
    """DeConf-I: h_i(x) = w_i·f(x) + b_i, (n, d) → (n, classes)."""
    return jnp.matmul(features, h["kernel"], precision="highest") + h["bias"]


def euclidean(h: dict, features: jax.Array) -> jax.Array:
    """DeConf-E: h_i(x) = -|f(x) - w_i|², (n, d) → (n, classes)."""
    squares = jnp.sum(features**2, -1, keepdims=True) + jnp.sum(h["kernel"] ** 2, 0)
    return 2 * jnp.matmul(features, h["kernel"], precision="highest") - squares


def cosine(h: dict, features: jax.Array) -> jax.Array:
    """DeConf-C: h_i(x) = w_i·f(x) / (|w_i| |f(x)|), (n, d) → (n, classes)."""
    return jnp.matmul(unit(features), unit(h["kernel"], axis=0), precision="highest")


SIMILARITIES = {"inner": inner, "euclidean": euclidean, "cosine": cosine}


def numerators(h: dict, features: jax.Array) -> jax.Array:
    """h(x): (n, d) → (n, classes), by the similarity that is the one key of `h`.

    Its name stays with the weights, so that a checkpoint of another similarity is refused.
    """
    ((name, weights),) = h.items()
    return SIMILARITIES[name](weights, features)


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
    from dream_jax.models.divisor import Divisor  # Flax: slow to import

    h_key, g_key = jax.random.split(key)
    h = {"kernel": jax.nn.initializers.he_normal()(h_key, (shape.features, shape.classes))}
    if options["similarity"] == "inner":
        h["bias"] = jnp.zeros(shape.classes)
    g = Divisor().init(g_key, jnp.zeros((1, shape.features)), train=True, mask=jnp.ones(1))
    return Own({"h": {options["similarity"]: h}, "g": g["params"]}, g["batch_stats"])


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    from dream_jax.models.divisor import Divisor

    g, changed = Divisor().apply(
        {"params": own.params["g"], "batch_stats": own.state},
        shown.features,
        train=True,
        mask=shown.mask,
        mutable=["batch_stats"],
    )
    logits = numerators(own.params["h"], shown.features) / cast(jax.Array, g)[:, None]
    terms = classification_terms(logits, shown.labels, shown.mask * shown.is_id)
    return terms, changed["batch_stats"]


def _outputs(own: Own, outputs: Outputs, options: Options) -> Outputs:
    """Returns the quotients as logits, with their numerators."""
    from dream_jax.models.divisor import Divisor

    g = {"params": own.params["g"], "batch_stats": own.state}
    divisor = cast(jax.Array, Divisor().apply(g, outputs.features, train=False))
    h = numerators(own.params["h"], outputs.features)
    return outputs._replace(logits=h / divisor[:, None], numerators=h)


def _optimizer(
    optimizer: optax.GradientTransformation,
    settings: OptimizerSettings,
    steps: int,
    options: Options,
) -> optax.GradientTransformation:
    """The network's, but without weight decay of h: its weights are like centres of the classes,
    which nothing should draw to the origin."""
    import optax  # slow to import, and a finished run trains nothing

    from dream_jax.training.optimizers import sgd

    without_decay = replace(settings, weight_decay=0.0)
    return optax.multi_transform(
        {"decayed": optimizer, "free": sgd(without_decay, steps)},
        {"network": "decayed", "method": {"h": "free", "g": "decayed"}},
    )


TRAINING = Training(
    name="godin",
    title="GODIN",
    paper="Hsu et al., Generalized ODIN, CVPR 2020",
    terms=_terms,
    detector="deconf",
    options={"similarity": choice("cosine", tuple(SIMILARITIES))},  # DeConf-C, the paper's best
    init=_init,
    outputs=_outputs,
    linear=False,
    optimizer=_optimizer,
)
