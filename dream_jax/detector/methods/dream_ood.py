"""④ Dream-OOD: level-set estimation with imagined outliers (Du et al., NeurIPS 2023, eq. 7)."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Examples, Own, Shape, Training, classification_terms
from dream_jax.detector.options import Options, number, whole
from dream_jax.detector.scores import energy_score
from dream_jax.training.terms import Term, cross_entropy


def init_phi(key: jax.Array, hidden: int) -> dict:
    """φ from an energy to two logits: linear, or an MLP if `hidden` is above 0.

    Weights and biases are uniform in ±1/√inputs, as in the original's linear layers; but the signs
    of the last layer's weights are set so that a higher energy starts as more ID. Left to chance,
    every other φ starts the other way round, and training then gives the outliers the high scores.
    """
    sizes = [1, hidden, 2] if hidden else [1, 2]
    layers = {}
    slope = jnp.ones(1)  # sign of the derivative of a layer's inputs by the energy
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        weight_key, bias_key = jax.random.split(jax.random.fold_in(key, index))
        uniform = partial(jax.random.uniform, minval=-(inputs**-0.5), maxval=inputs**-0.5)
        kernel = uniform(weight_key, (inputs, outputs))
        if outputs == 2:
            kernel = jnp.abs(kernel) * jnp.outer(slope, jnp.array([-1.0, 1.0]))
        slope = jnp.sign(kernel[0])
        layers[f"layer{index}"] = {"kernel": kernel, "bias": uniform(bias_key, (outputs,))}
    return layers


def phi(layers: dict, energy: jax.Array) -> jax.Array:
    """φ(E): (n,) energies → (n, 2) logits, of which 1 is ID."""
    x = energy[:, None]
    for index in range(len(layers)):
        layer = layers[f"layer{index}"]
        x = (jax.nn.relu(x) if index else x) @ layer["kernel"] + layer["bias"]
    return x


def level_set_loss(layers: dict, energy: jax.Array, is_id: jax.Array) -> jax.Array:
    """Cross-entropy of φ(E(x)) with label 1 for ID and 0 for outliers, per row: (n,)."""
    return cross_entropy(phi(layers, energy), is_id.astype(jnp.int32))


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
    return Own(init_phi(key, options["phi_hidden"]), {})


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    loss = level_set_loss(own.params, energy_score(shown.logits), shown.is_id)
    level_set = Term(loss, shown.mask, options["weight"])
    ce = classification_terms(shown.logits, shown.labels, shown.mask * shown.is_id)
    return ce | {"level_set": level_set}, own.state


TRAINING = Training(
    name="dream_ood",
    title="Dream-OOD",
    paper="Du et al., Dream the Impossible, NeurIPS 2023",
    terms=_terms,
    detector="energy",
    extra="outliers",
    options={
        "weight": number(2.5, 0.0, 1e3),  # of the level-set loss; CIFAR-100's, ImageNet-100: 1
        "phi_hidden": whole(0, 0),  # 0: φ is linear; ImageNet-100: 512
        "zoom": number(1.0, 1.0, 100.0),  # outliers are shown enlarged by up to this factor
        **last_layer.OPTIONS,
    },
    init=_init,
)
