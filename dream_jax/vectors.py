"""Unit vectors and the cosines between vectors."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SHORTEST = 1e-12  # vectors that are shorter count as zeros


def unit(vectors: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Scales vectors to length 1.

    Args:
      vectors: vectors along `axis`, in any shape.
      axis: the axis that holds the components of a vector.

    Returns:
      The unit vectors, in the shape of `vectors`. Zeros, which have no direction, stay zeros, and
      their gradient is zero.
    """
    squares = jnp.sum(jnp.square(vectors), axis=axis, keepdims=True)
    length = jnp.sqrt(jnp.maximum(squares, SHORTEST**2))
    return jnp.where(squares < SHORTEST**2, 0.0, vectors / length)


def unit_on_host(vectors: Float[np.ndarray, "..."], axis: int = -1) -> Float[np.ndarray, "..."]:
    """Scales NumPy vectors of any length above 0 to length 1, in their own precision.

    The largest entry is divided out first, so that no square overflows or vanishes.

    Args:
      vectors: vectors along `axis`, in any shape.
      axis: the axis that holds the components of a vector.

    Returns:
      The unit vectors, in the shape and type of `vectors`. Zeros stay zeros.
    """
    largest = np.abs(vectors).max(axis=axis, keepdims=True)
    scaled = vectors / np.where(largest > 0, largest, 1).astype(vectors.dtype)
    # With an entry of ±1 a vector has at least length 1; zeros are divided by 1.
    length = np.linalg.norm(scaled, axis=axis, keepdims=True)
    return scaled / np.maximum(length, 1)


def walk(
    start: Float[np.ndarray, " d"],
    end: Float[np.ndarray, " d"],
    steps: int,
    reach: float = 1.0,
) -> Float[np.ndarray, "steps d"]:
    """Returns vectors at equal angles on the great circle from one direction to another.

    Args:
      start, end: vectors of any length above 0, not opposite to each other. The lengths between
        change evenly from one's to the other's.
      steps: number of vectors, the first of which is `start`.
      reach: how far to go: 1 stops at `end`, 1.5 goes on by half of the angle, at its length.
    """
    lengths = np.linalg.norm(start), np.linalg.norm(end)
    a, b = (unit_on_host(np.asarray(vector, np.float64)) for vector in (start, end))
    aside = b - (a @ b) * a  # the part of the end at a right angle to the start
    share = np.linspace(0, reach, steps)[:, None]
    angles = share * np.arctan2(np.linalg.norm(aside), a @ b)
    directions = np.cos(angles) * a + np.sin(angles) * unit_on_host(aside)
    return np.asarray(directions * np.interp(share, (0, 1), lengths), np.float32)


def cosine_logits(
    vectors: Float[Array, "n d"], centres: Float[Array, "classes d"], temperature: float
) -> Float[Array, "n classes"]:
    """Divides the cosines of unit vectors by a temperature.

    Dream-OOD, eq. 2, of unit(h(x)) and unit(T(y)); NPOS, eq. 8, of its projections and prototypes.

    Args:
      vectors: unit vectors, or zeros, whose cosines are 0.
      centres: a unit vector of each class.
      temperature: t, above 0.

    Returns:
      cos(vector, centre) / t.
    """
    return jnp.matmul(vectors, centres.T, precision="highest") / temperature
