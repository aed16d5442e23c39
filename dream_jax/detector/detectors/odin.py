"""ODIN: a step of the image towards its class, then the softmax at a high temperature."""

from typing import Any

import jax
import jax.numpy as jnp

from dream_jax.detector.detectors.base import Detector
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, number
from dream_jax.detector.scores import max_softmax


def perturb(inputs: Inputs, epsilon: float, temperature: float) -> jax.Array:
    """The images, moved by ±ε so that the largest softmax probability rises (eq. 2 of the paper).

    ε counts in the input space of normalised images, which is `inputs.image_scale` times that of
    `inputs.images`: with images in [0, 1] that the network brings to [-1, 1], a pixel moves by ε/2.
    The result is not clipped, as in the original.
    """

    def total(images):
        scaled = inputs.forward(images).logits / temperature
        return jnp.sum(jnp.max(jax.nn.log_softmax(scaled, axis=-1), axis=-1))

    return inputs.images + epsilon / inputs.image_scale * jnp.sign(jax.grad(total)(inputs.images))


def _score(state: Any, inputs: Inputs, options: Options) -> jax.Array:
    logits = inputs.forward(perturb(inputs, **options)).logits
    return max_softmax(logits, options["temperature"])


ODIN = Detector(
    name="odin",
    title="ODIN",
    paper="Liang et al., Enhancing the Reliability of Out-of-distribution Image Detection in "
    "Neural Networks, ICLR 2018",
    needs=frozenset({"gradients"}),
    score=_score,
    options={"epsilon": number(0.0014, 0.0, 1.0), "temperature": number(1000.0, 1e-3, 1e6)},
)
