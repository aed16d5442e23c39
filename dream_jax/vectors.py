"""Unit vectors and cosines."""

import jax.numpy as jnp
from jaxtyping import Array, Float

# Squared length up to which a vector counts as zero.
SMALLEST = 1e-24


def unit(vectors: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Scales vectors to length 1; a vector of zeros stays one, with a gradient of 0.

    Args:
      vectors: whose components lie along `axis`.
    """
    squares = jnp.sum(vectors**2, axis=axis, keepdims=True)
    return vectors / jnp.sqrt(jnp.maximum(squares, SMALLEST))


def cosine_logits(
    vectors: Float[Array, "n d"], centres: Float[Array, "classes d"], temperature: float
) -> Float[Array, "n classes"]:
    """Returns the cosines of unit vectors, divided by a temperature.

    Eq. 2 of Dream-OOD with `unit(h(x))` and `unit(T(y))`, eq. 8 of NPOS with its prototypes.
    """
    return jnp.matmul(vectors, centres.T, precision="highest") / temperature
