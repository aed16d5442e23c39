"""Summands of a training's loss."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int


class Term(NamedTuple):
    """A summand of the loss: the mean of `values` over the rows that `mask` keeps, times `weight`.

    A weight of 0 makes it a metric that is only shown.
    """

    values: jax.Array
    mask: jax.Array
    weight: float = 1.0


def cross_entropy(
    logits: Float[Array, "n classes"], labels: Int[Array, " n"]
) -> Float[Array, " n"]:
    """Returns the cross-entropy of the softmax with the labels, per row."""
    import optax  # slow to import, and a finished run trains nothing

    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
