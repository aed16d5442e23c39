"""Gram: how far correlations of channels leave the range that they had in training."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dream_jax import rules
from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options
from dream_jax.errors import UserError
from dream_jax.rules import Option

HELD_OUT = 10  # every tenth image of a class sets the scales; the others set the ranges
SMALLEST = 1e-6  # added to the ends of a range that deviations are divided by

Values = Callable[[Inputs], dict[str, jax.Array]]  # inputs → (n, powers, C) by layer


def correlations(maps: Float[Array, "n H W C"], powers: int) -> Float[Array, "n powers C"]:
    """Returns the row sums of (Fᵖ Fᵖᵀ)^(1/p) for p = 1, 2, ..., where F (C, H W) are the maps.

    The published code takes the row sums too, where the paper has all pairs of channels. The sum of
    a row is its channel times the sum of all, and needs no matrix.
    """
    n, height, width, channels = maps.shape
    matrix = maps.reshape(n, height * width, channels).astype(jnp.float32)
    largest = jnp.max(jnp.abs(matrix), axis=(1, 2), keepdims=True)
    scaled = matrix / jnp.where(largest > 0, largest, 1.0)  # whose powers stay in float32

    def next_power(raised: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        sums = jnp.sum(raised * jnp.sum(raised, axis=2, keepdims=True), axis=1)
        return raised * scaled, sums

    sums = jnp.swapaxes(jax.lax.scan(next_power, scaled, None, powers)[1], 0, 1)
    roots = 1 / jnp.arange(1, powers + 1, dtype=jnp.float32)[:, None]
    return jnp.sign(sums) * jnp.abs(sums) ** roots * largest**2


def deviations(
    values: Float[Array, "n powers C"], low: jax.Array, high: jax.Array
) -> Float[Array, " n"]:
    """Returns how far values lie outside [low, high], as shares of the nearer end, summed."""
    below = jnp.maximum(low - values, 0) / jnp.abs(low + SMALLEST)
    above = jnp.maximum(values - high, 0) / jnp.abs(high + SMALLEST)
    return jnp.sum(below + above, axis=(1, 2))


def held_out(labels: np.ndarray) -> np.ndarray:
    """Returns whether each image is one of the last of `HELD_OUT` of its class, in their order."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    position = np.empty(len(labels), np.int64)
    position[order] = np.arange(len(labels)) - starts
    return position % HELD_OUT == HELD_OUT - 1


def ranges(data: FitData, of: Values, kept: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Returns by layer the smallest and the largest value of each class: (classes, powers, C)."""
    done, found = 0, {}
    for part in data.evaluate(of):
        rows = slice(done, done + len(next(iter(part.values()))))
        for name, values in part.items():
            shape = (data.classes, *values.shape[1:])
            if name not in found:
                found[name] = {"low": np.full(shape, np.inf), "high": np.full(shape, -np.inf)}
            labels, low, high = data.labels[rows], found[name]["low"], found[name]["high"]
            for c in np.unique(labels[kept[rows]]):
                own = values[kept[rows] & (labels == c)]
                low[c] = np.minimum(low[c], own.min(axis=0))
                high[c] = np.maximum(high[c], own.max(axis=0))
        done = rows.stop
    return found


def _values(layers: Mapping[str, jax.Array], powers: int) -> dict[str, jax.Array]:
    return {name: correlations(maps, powers) for name, maps in layers.items()}


def fit_gram(data: FitData, options: Options) -> dict[str, Any]:
    """Returns the ranges of each class, and the mean deviation of held-out images by layer.

    Two passes over the images. A layer in which no held-out image deviates is not scaled.

    Raises:
      UserError: a class has no training image.
    """
    counts = np.bincount(data.labels, minlength=data.classes)
    if not counts.all():
        raise UserError(
            f"detector gram: class {int(counts.argmin())} has no training image; every class must "
            f"have one"
        )
    out = held_out(data.labels)

    def of(inputs: Inputs) -> dict[str, jax.Array]:
        return _values(inputs.layers, options["powers"])

    found = ranges(data, of, ~out)
    scales = dict.fromkeys(found, 1.0)
    rows = np.flatnonzero(out)
    if len(rows):
        sums, done = dict.fromkeys(found, 0.0), 0
        for part in data.evaluate(of, rows):
            labels = data.labels[rows[done : done + len(next(iter(part.values())))]]
            done += len(labels)
            for name, values in part.items():
                low, high = (found[name][end][labels] for end in ("low", "high"))
                sums[name] += float(np.sum(deviations(values, low, high)))
        scales = {name: total / len(rows) if total else 1.0 for name, total in sums.items()}
    return {name: own | {"scale": np.array(scales[name])} for name, own in found.items()}


def gram_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """Minus the sum of the layers' deviations by their scales, over the largest probability.

    Ranges are those of the predicted class. Layers are the stages of a ResNet; the published code
    takes all convolutions and activations.
    """
    predicted = jnp.argmax(inputs.logits, axis=-1)
    confidence = jnp.max(jax.nn.softmax(inputs.logits, axis=-1), axis=-1)
    total = jnp.zeros_like(confidence)
    for name, values in _values(inputs.layers, options["powers"]).items():
        own = state[name]
        outside = deviations(values, own["low"][predicted], own["high"][predicted])
        total = total + outside / own["scale"]
    return -total / confidence


GRAM = Detector(
    name="gram",
    title="Gram",
    paper="Sastry and Oore, Detecting Out-of-Distribution Examples with Gram Matrices, ICML 2020",
    needs=frozenset({"layers", "logits", "labels"}),
    fit=fit_gram,
    score=gram_score,
    options={"powers": Option(10, rules.whole(1, 20))},  # the paper's; OpenOOD has 5
)
