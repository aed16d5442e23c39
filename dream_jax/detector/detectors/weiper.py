"""WeiPer+KLD: how unusually an image's features and perturbed logits are distributed.

The last layer is repeated with noise on its weights. An image is described by two histograms, of
its features and of all its perturbed logits, and compared with the mean histograms of the training
images.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Head, Inputs
from dream_jax.detector.options import Options, number
from dream_jax.rules import Option, whole

NUMBERS = 2**25  # at once, in fitting
# Added to densities before their logarithms: of features, of perturbed logits (published code).
FLOORS = {"features": 0.01, "perturbed": 0.025}


def perturbed_head(head: Head, repeats: int, distance: float) -> Head:
    """Returns copies of a head, side by side: weights w_c + δ |w_c| n for random unit vectors n."""
    kernel, bias = (np.asarray(leaf, np.float64) for leaf in head)
    noise = np.random.default_rng(0).normal(size=(repeats, *kernel.shape))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    kernels = kernel + distance * np.linalg.norm(kernel, axis=0) * noise
    return Head(np.concatenate([*kernels], axis=1), np.tile(bias, repeats))


def densities(
    values: Float[Array, "n m"], low: jax.Array, high: jax.Array, bins: int
) -> Float[Array, "n bins"]:
    """Returns the share of each row's values in each bin; those outside [low, high] have none."""
    width = high - low
    place = (values - low) / jnp.where(width > 0, width, 1.0) * bins
    # The largest value of the fitting data belongs to the last bin.
    number = jnp.where(values == high, bins - 1, jnp.floor(place))
    number = jnp.where((number >= 0) & (number < bins), number, bins).astype(jnp.int32)
    rows = jnp.arange(values.shape[0])[:, None]
    counts = jnp.zeros((values.shape[0], bins), jnp.float32).at[rows, number].add(1, mode="drop")
    return counts / values.shape[1]


def smooth(density: Float[Array, "n bins"], size: int) -> Float[Array, "n bins"]:
    """Returns means over `size` neighbouring bins; the first and the last are continued."""
    before = (size - 1) // 2
    padded = jnp.pad(density, ((0, 0), (before, size - 1 - before)), mode="edge")
    bins = density.shape[1]
    return jnp.mean(jnp.stack([padded[:, shift : shift + bins] for shift in range(size)]), axis=0)


def divergence(
    usual: Float[Array, " bins"], own: Float[Array, "n bins"], floor: float
) -> Float[Array, " n"]:
    """Returns KL(p ‖ q) + KL(q ‖ p) of densities that are raised by `floor` and normalised."""
    p, q = usual + floor, own + floor
    p, q = p / jnp.sum(p), q / jnp.sum(q, axis=-1, keepdims=True)
    return jnp.sum((p - q) * (jnp.log(p) - jnp.log(q)), axis=-1)


def _described(features: jax.Array, head: Head) -> dict[str, jax.Array]:
    return {"features": features, "perturbed": head(features)}


def _rows(data: FitData, width: int) -> Iterator[Float[np.ndarray, "m d"]]:
    """Yields the features in parts whose descriptions fit in memory."""
    size = max(1, NUMBERS // width)
    for part in data.parts():
        for start in range(0, len(part.labels), size):
            yield np.asarray(part.features[start : start + size], np.float32)


def fit_weiper(data: FitData, options: Options) -> dict[str, Any]:
    """Returns the perturbed head, and range and mean density of each description.

    Two passes over the features: ranges, then densities.
    """
    head = perturbed_head(data.linear_head, options["repeats"], options["distance"])
    head = Head(*(np.asarray(leaf, np.float32) for leaf in head))
    extent = jax.jit(
        lambda x: {key: (jnp.min(v), jnp.max(v)) for key, v in _described(x, head).items()}
    )
    ends = [extent(features) for features in _rows(data, len(head.bias))]
    state: dict[str, Any] = {"head": head}
    for key in FLOORS:
        low, high = (np.array([float(end[key][side]) for end in ends]) for side in (0, 1))
        state[key] = {"low": low.min(), "high": high.max()}

    @jax.jit
    def each(features: jax.Array) -> dict[str, jax.Array]:
        described = _described(features, head)
        return {
            key: densities(values, **state[key], bins=options["bins"])
            for key, values in described.items()
        }

    sums: dict[str, Any] = dict.fromkeys(FLOORS, 0.0)
    for features in _rows(data, len(head.bias)):
        for key, found in each(features).items():
            sums[key] = sums[key] + np.sum(np.asarray(found, np.float64), axis=0)
    for key, total in sums.items():
        state[key] = state[key] | {"density": total / len(data.labels)}
    return state


def weiper_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """Minus (divergence of features + λ₁ that of perturbed logits - λ₂ their mean MSP)."""
    described = _described(inputs.features, state["head"])
    apart = {}
    for key, size in (("features", "smoothing"), ("perturbed", "smoothing_perturbed")):
        own = state[key]
        density = densities(described[key], own["low"], own["high"], options["bins"])
        apart[key] = divergence(own["density"], smooth(density, options[size]), FLOORS[key])
    repeats, logits = options["repeats"], described["perturbed"]
    each = logits.reshape(logits.shape[0], repeats, logits.shape[1] // repeats)
    msp = jnp.mean(jnp.max(jax.nn.softmax(each, axis=-1), axis=-1), axis=-1)
    weighted = options["weight_perturbed"] * apart["perturbed"]
    return options["weight_msp"] * msp - apart["features"] - weighted


WEIPER = Detector(
    name="weiper",
    title="WeiPer+KLD",
    paper="Granz et al., WeiPer: OOD Detection using Weight Perturbations of Class Projections, "
    "NeurIPS 2024",
    needs=frozenset({"features", "head"}),
    fit=fit_weiper,
    score=weiper_score,
    options={  # the paper's for CIFAR-10
        "repeats": Option(100, whole(1, 10_000)),  # r, copies of the last layer
        "distance": number(1.8, 0.0, 1e3),  # δ, length of the noise over that of the weights
        "bins": Option(100, whole(2, 10_000)),
        "smoothing": Option(4, whole(1, 10_000)),  # s₁, bins of features that are averaged
        "smoothing_perturbed": Option(15, whole(1, 10_000)),  # s₂, of perturbed logits
        "weight_perturbed": number(2.5, 0.0, 1e6),  # λ₁
        "weight_msp": number(0.1, 0.0, 1e6),  # λ₂
    },
)
