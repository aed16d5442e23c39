"""TempScale: the largest softmax probability at the temperature that calibrates the classifier."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options

# Where the classifier makes no mistake on the fitting data, the likelihood grows without end as the
# temperature falls.
LEAST, MOST = 0.05, 20.0
PASSES, CLOSE = 50, 1e-7


def slope(data: FitData, beta: float) -> tuple[float, float]:
    """Returns the first two derivatives of the mean cross-entropy of β f by β."""
    from scipy.special import softmax  # slow to import, and configurations name this detector

    first = second = 0.0
    for part in data.parts():
        p = softmax(beta * part.logits, axis=-1)
        mean = np.sum(p * part.logits, axis=-1)
        first += np.sum(mean - part.logits[np.arange(len(mean)), part.labels])
        second += np.sum(np.sum(p * part.logits**2, axis=-1) - mean**2)
    return first / len(data.labels), second / len(data.labels)


def fit_temp_scale(data: FitData, options: Options) -> dict[str, np.ndarray]:
    """Returns the temperature with the least cross-entropy, by Newton's method between bounds.

    Guo et al. use validation images. There are none, and those that were trained on make the
    classifier look surer of itself than it may be: the temperature is too low rather than too high.
    """
    low, high, beta = 1 / MOST, 1 / LEAST, 1.0  # cross-entropy is convex in β = 1 / T
    if slope(data, high)[0] <= 0:
        return {"temperature": np.array(LEAST)}
    if slope(data, low)[0] >= 0:
        return {"temperature": np.array(MOST)}
    for _ in range(PASSES):
        first, second = slope(data, beta)
        low, high = (low, beta) if first > 0 else (beta, high)
        step = beta - first / second if second > 0 else high
        moved = step if low < step < high else np.sqrt(low * high)
        done = abs(moved - beta) <= CLOSE * beta
        beta = moved
        if done:
            break
    return {"temperature": np.array(1 / beta)}


def temp_scale_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """log p / (1 - p) of the largest probability p: it orders as p, and does not round to 1."""
    logits = inputs.logits / state["temperature"]
    largest = jnp.argmax(logits, axis=-1)[:, None] == jnp.arange(logits.shape[-1])
    others = jax.nn.logsumexp(jnp.where(largest, -jnp.inf, logits), axis=-1)
    return jnp.max(logits, axis=-1) - others


TEMP_SCALE = Detector(
    name="temp_scale",
    title="TempScale",
    paper="Guo et al., On Calibration of Modern Neural Networks, ICML 2017",
    needs=frozenset({"logits", "labels"}),
    fit=fit_temp_scale,
    score=temp_scale_score,
)
