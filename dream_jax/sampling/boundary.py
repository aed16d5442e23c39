"""The boundary set of a class, and its core."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dream_jax.knn import kth_sq_distance


def boundary_set(
    features: Float[Array, "n d"], k: int, m: int, count: int | Int[Array, ""] | None = None
) -> Int[Array, " m"]:
    """Finds the features on the boundary of their class: those with the largest d_k.

    Dream-OOD, section 3.1.

    Args:
      features: unit vectors of the class.
      k: 1-based rank of the neighbour; every feature counts itself first.
      m: size of the boundary set, at most n.
      count: if given, only the first `count` features are real.

    Returns:
      The indices of the boundary set, largest d_k first.
    """
    return _farthest(features, kth_sq_distance(features, features, k, count), m, count)


def core_set(
    features: Float[Array, "n d"], k: int, m: int, count: int | Int[Array, ""] | None = None
) -> Int[Array, " m"]:
    """Finds the features in the core of their class: those with the smallest d_k, smallest first.

    Args:
      features, k, m, count: as for `boundary_set`.
    """
    return _farthest(features, -kth_sq_distance(features, features, k, count), m, count)


def _farthest(
    features: Float[Array, "n d"],
    values: Float[Array, " n"],
    m: int,
    count: int | Int[Array, ""] | None,
) -> Int[Array, " m"]:
    real = jnp.arange(len(features)) < (len(features) if count is None else count)
    return jax.lax.top_k(jnp.where(real, values, -jnp.inf), m)[1]
