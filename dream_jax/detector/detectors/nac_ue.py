"""NAC-UE: how often training images left each neuron in the state in which an image leaves it.

The state of a neuron is sigmoid(α z ∂D/∂z): its activation z, summed over the positions of a map,
times the gradient of D = KL(u ‖ softmax) for the uniform u, summed likewise. A histogram of the
states of training images says which are covered.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, choice, number, whole
from dream_jax.rules import Option
from dream_jax.rules import whole as whole_rule

FEATURES = "features"
BASE = 1000.0  # of the logarithm by which bins get narrower towards 1/2


class Layer(NamedTuple):
    """The settings of a layer.

    Attributes:
      least: O, how many training images cover a bin wholly.
      bins: M.
      steepness: α.
    """

    least: int
    bins: int
    steepness: float


# Of inner layers, from the published code for a ResNet-18 and CIFAR-10. They are not settings: with
# other sizes of maps choose `layers="penultimate"`, or live with them.
INNER = {
    "stage1": Layer(100, 500, 0.001),
    "stage2": Layer(5, 50, 0.001),
    "stage3": Layer(100, 500, 1000.0),
}


def layers_of(options: Options, names: list[str]) -> dict[str, Layer]:
    """Returns the layers that are used: the features, and all stages but the last, if asked for."""
    own = Layer(options["least"], options["bins"], options["steepness"])
    inner = names[:-1] if options["layers"] == "all" else []
    return {name: INNER[name] for name in inner} | {FEATURES: own}


def edges(bins: int) -> Float[np.ndarray, " inner"]:
    """Returns the edges between bins in (0, 1), denser towards 1/2, where most states lie."""
    half = np.log(np.linspace(1, np.sqrt(BASE), bins // 2 + 1)) / np.log(BASE)
    return np.concatenate([half[1:], 1 - half[1:-1][::-1]])


def _divergence(logits: Float[Array, "n classes"]) -> Float[Array, ""]:
    """The sum over images of KL(u ‖ softmax), less a constant."""
    return -jnp.sum(jnp.mean(jax.nn.log_softmax(logits, axis=-1), axis=-1))


def products(
    inputs: Inputs, names: Mapping[str, Layer], head: Mapping | None
) -> dict[str, Float[Array, "n neurons"]]:
    """Returns z ∂D/∂z of each layer's neurons.

    Args:
      head: the kernel of the last layer, where the gradient of the features is enough.
    """
    if head is not None:
        p = jax.nn.softmax(inputs.logits, axis=-1)
        slope = jnp.matmul(p - 1 / p.shape[-1], head["kernel"].T, precision="highest")
        return {FEATURES: inputs.features * slope}
    values = {name: inputs.features if name == FEATURES else inputs.layers[name] for name in names}
    zeros = {name: jnp.zeros(x.shape, jnp.float32) for name, x in values.items()}
    slopes = jax.grad(lambda added: _divergence(inputs.rerun(added).logits))(zeros)

    def pooled(x: jax.Array) -> jax.Array:
        return jnp.sum(x.astype(jnp.float32), axis=tuple(range(1, x.ndim - 1)))

    return {name: pooled(values[name]) * pooled(slopes[name]) for name in names}


def bin_of(product: jax.Array, layer: Layer) -> jax.Array:
    """Returns the number of the bin in which the state lies."""
    state = jax.nn.sigmoid(layer.steepness * product)
    return jnp.searchsorted(jnp.asarray(edges(layer.bins), jnp.float32), state, side="right")


def balanced(labels: np.ndarray, classes: int, images: int) -> np.ndarray:
    """Returns the rows of the first images of each class, as many of each, `images` in all."""
    own = max(1, images // classes)
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:own] for c in range(classes)]))


def fit_nac_ue(data: FitData, options: Options) -> dict:
    """Returns by layer how far each bin of each neuron is covered: (neurons, bins), in [0, 1]."""
    head = _head(data, options)
    rows = balanced(data.labels, data.classes, options["images"])
    counts: dict[str, np.ndarray] = {}
    used: dict[str, Layer] = {}

    def numbers(inputs: Inputs) -> dict[str, jax.Array]:  # once, when it is traced
        used.update(layers_of(options, [*(inputs.layers or ())]))
        made = products(inputs, used, head)
        return {name: bin_of(made[name], layer) for name, layer in used.items()}

    for part in data.evaluate(numbers, rows):
        for name, found in part.items():
            shape = (found.shape[1], used[name].bins)
            own = counts.setdefault(name, np.zeros(shape, np.int64))
            np.add.at(own, (np.arange(shape[0])[None], found), 1)
    covered = {name: np.minimum(own / used[name].least, 1) for name, own in counts.items()}
    return {"covered": covered} | ({"head": head} if head else {})


def _head(data: FitData, options: Options) -> dict | None:
    if options["layers"] == "all":
        return None
    return {"kernel": np.asarray(data.linear_head.kernel, np.float32)}


def _more(options: Options) -> frozenset[str]:
    return frozenset({"layers", "rerun"} if options["layers"] == "all" else {"logits", "head"})


def nac_ue_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """The mean over layers and neurons of how far training images cover the neuron's state."""
    used = layers_of(options, [*(inputs.layers or ())])
    made = products(inputs, used, state.get("head"))

    def mean(name: str, layer: Layer) -> jax.Array:
        covered = state["covered"][name]
        neurons = jnp.arange(covered.shape[0])[None]
        return jnp.mean(covered[neurons, bin_of(made[name], layer)], axis=-1)

    return jnp.mean(jnp.stack([mean(name, layer) for name, layer in used.items()]), axis=0)


NAC_UE = Detector(
    name="nac_ue",
    title="NAC-UE",
    paper="Liu et al., Neuron Activation Coverage: Rethinking Out-of-distribution Detection and "
    "Generalization, ICLR 2024",
    needs=frozenset({"features", "labels"}),
    fit=fit_nac_ue,
    score=nac_ue_score,
    # The published code's for the features of a ResNet-18 and CIFAR-10.
    options={
        "layers": choice("all", ("all", "penultimate")),
        "images": whole(1000, 1),  # of the training images, spread over the classes
        "least": whole(50, 1),
        "bins": Option(50, whole_rule(2, 10_000)),
        "steepness": number(100.0, 1e-6, 1e9),
    },
    more=_more,
)
