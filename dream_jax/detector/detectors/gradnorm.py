"""GradNorm: the length of the gradient by which the softmax would become uniform."""

import jax
import jax.numpy as jnp

from dream_jax.detector.detectors.base import Detector
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, number


def gradnorm_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """‖∂ KL(u ‖ softmax(f/T)) / ∂W‖₁ for the last layer's weights W and the uniform u.

    The gradient is the outer product of the features and (p - u) / T, so that no backward pass is
    needed: its norm is the product of their norms (section 5 of the paper).
    """
    temperature = options["temperature"]
    p = jax.nn.softmax(inputs.logits / temperature, axis=-1)
    outputs = jnp.sum(jnp.abs(p - 1 / p.shape[-1]), axis=-1) / temperature
    return outputs * jnp.sum(jnp.abs(inputs.features), axis=-1)


GRADNORM = Detector(
    name="gradnorm",
    title="GradNorm",
    paper="Huang et al., On the Importance of Gradients for Detecting Distributional Shifts in the "
    "Wild, NeurIPS 2021",
    needs=frozenset({"features", "logits"}),
    score=gradnorm_score,
    options={"temperature": number(1.0, 1e-3, 1e6)},
)
