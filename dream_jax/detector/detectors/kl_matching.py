"""KL matching: how near the softmax is to a typical softmax of some class."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options


def fit_kl_matching(data: FitData, options: Options) -> np.ndarray:
    """(classes, classes): row c has the logarithm of the mean softmax of what is given to class c.

    The paper takes the predicted class, not the label. The row of a class to which nothing is
    given is far from every softmax.
    """
    from scipy.special import softmax  # slow to import, and configurations name this detector

    sums, counts = np.zeros((data.classes, data.classes)), np.zeros(data.classes)
    for part in data.parts():
        probabilities = softmax(part.logits, axis=-1)
        given = (probabilities.argmax(-1) == np.arange(data.classes)[:, None]).astype(np.float64)
        sums += given @ probabilities
        counts += given.sum(-1)
    typical = sums / np.maximum(counts, 1)[:, None]
    return np.log(np.maximum(typical, np.finfo(np.float64).tiny))


def kl_matching_score(state: jax.Array, inputs: Inputs, options: Options) -> jax.Array:
    """Minus the smallest KL(p ‖ typical softmax) over the classes."""
    log_p = jax.nn.log_softmax(inputs.logits, axis=-1)
    p = jnp.exp(log_p)
    cross_entropy = -jnp.matmul(p, state.T, precision="highest")
    return jnp.sum(-p * log_p, axis=-1) - jnp.min(cross_entropy, axis=-1)


KL_MATCHING = Detector(
    name="kl_matching",
    title="KL matching",
    paper="Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, "
    "ICML 2022",
    needs=frozenset({"logits"}),
    fit=fit_kl_matching,
    score=kl_matching_score,
)
