"""fDBD: the mean distance of a feature to the boundaries of its class, next to that to the mean."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import mean_feature
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options
from dream_jax.vectors import SHORTEST


def fit_fdbd(data: FitData, options: Options) -> dict[str, np.ndarray]:
    """Returns the mean feature, and 1 / |w_a - w_b| of each pair of classes; 0 where they agree."""
    kernel = np.asarray(data.linear_head.kernel, np.float64)
    lengths = np.linalg.norm(kernel[:, :, None] - kernel[:, None, :], axis=0)
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return {"mean": mean_feature(data), "inverse": inverse}


def fdbd_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """The mean over the other classes c of (f_a - f_c) / |w_a - w_c|, over |z - μ|.

    f are the logits, a is the predicted class, μ the mean training feature. For logits that are
    linear in z, the quotient is the distance to where class c takes over.
    """
    logits = inputs.logits
    predicted = jnp.argmax(logits, axis=-1)
    gaps = jnp.max(logits, axis=-1, keepdims=True) - logits
    mean = jnp.sum(gaps * state["inverse"][predicted], axis=-1) / max(1, logits.shape[-1] - 1)
    length = jnp.linalg.norm(inputs.features - state["mean"], axis=-1)
    return mean / jnp.maximum(length, SHORTEST)


FDBD = Detector(
    name="fdbd",
    title="fDBD",
    paper="Liu and Qin, Fast Decision Boundary based Out-of-Distribution Detector, ICML 2024",
    needs=frozenset({"features", "logits", "head"}),
    fit=fit_fdbd,
    score=fdbd_score,
)
