"""NCI: how far a centred feature points along the weights of its class, and how long it is."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import mean_feature
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, number
from dream_jax.vectors import unit


def fit_nci(data: FitData, options: Options) -> dict[str, np.ndarray]:
    return {"mean": mean_feature(data), "weights": np.asarray(data.linear_head.kernel).T}


def nci_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """w_a · (z - μ) / |z - μ| + α ‖z‖₁: a is the predicted class, μ the mean training feature."""
    weights = state["weights"][jnp.argmax(inputs.logits, axis=-1)]
    proximity = jnp.sum(weights * unit(inputs.features - state["mean"]), axis=-1)
    return proximity + options["alpha"] * jnp.sum(jnp.abs(inputs.features), axis=-1)


NCI = Detector(
    name="nci",
    title="NCI",
    paper="Liu and Qin, Detecting Out-of-Distribution through the Lens of Neural Collapse, "
    "CVPR 2025",
    needs=frozenset({"features", "logits", "head"}),
    fit=fit_nci,
    score=nci_score,
    # The paper chooses from 1e-4, 1e-3, 1e-2 and 1e-1; OpenOOD begins with this one.
    options={"alpha": number(1e-4, 0.0, 1e6)},
)
