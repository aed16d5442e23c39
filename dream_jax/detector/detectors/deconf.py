"""DeConf: the largest numerator h_i(x) of GODIN, after a step whose size ID images alone chose.

The score of Hsu et al., Generalized ODIN, CVPR 2020 (section 3.2). For a network whose logits are
no quotients, its logits take the place of the numerators.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Inputs, numerators_of
from dream_jax.detector.options import Options, whole

# What ε is chosen from, in the input space of normalised images.
EPSILONS = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)


def perturbed_scores(inputs: Inputs, epsilons: Float[Array, " k"]) -> Float[Array, "n k"]:
    """Returns S(x̂) for each step size, where S(x) = max_i h_i(x).

    x̂ = x - ε sign(-∇S(x)): each pixel is moved by ε so that S rises. As for ODIN, ε counts
    in the input space of normalised images, and x̂ is not clipped.
    """

    def score(images: jax.Array) -> jax.Array:
        return jnp.max(numerators_of(inputs.forward(images)), axis=-1)

    direction = jnp.sign(jax.grad(lambda images: jnp.sum(score(images)))(inputs.images))

    def moved(epsilon: jax.Array) -> jax.Array:
        return score(inputs.images + epsilon / inputs.image_scale * direction)

    return jax.lax.map(moved, epsilons).T


def fit_deconf(data: FitData, options: Options) -> dict[str, np.ndarray]:
    """Returns the ε with the largest mean score of ID training images, spread over all of them."""
    n = len(data.labels)
    count = min(n, options["images"])
    rows = np.arange(count) * n // count
    parts = data.evaluate(lambda inputs: perturbed_scores(inputs, jnp.array(EPSILONS)), rows)
    best = int(np.argmax(sum(np.sum(part, axis=0, dtype=np.float64) for part in parts)))
    return {"epsilon": np.array(EPSILONS[best : best + 1])}


def _score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    return perturbed_scores(inputs, state["epsilon"])[:, 0]


DECONF = Detector(
    name="deconf",
    title="DeConf",
    paper="Hsu et al., Generalized ODIN, CVPR 2020",
    needs=frozenset({"gradients"}),
    fit=fit_deconf,
    score=_score,
    options={"images": whole(5000, 1)},  # each costs about ten forward passes
    made_for="godin",
)
