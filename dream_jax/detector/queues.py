"""Queues of the classes' latest features, as VOS and NPOS keep them: the same on all devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.errors import UserError


class Queues(NamedTuple):
    """One queue per class, first in, first out.

    Attributes:
      rows: (classes, size, d); the row that came as number i of its class is at i modulo size.
      seen: (classes,) int32, how many have come to each.
    """

    rows: jax.Array
    seen: jax.Array


def empty(classes: int, size: int, d: int) -> Queues:
    return Queues(jnp.zeros((classes, size, d)), jnp.zeros(classes, jnp.int32))


def push(queues: Queues, rows: jax.Array, labels: jax.Array, mask: jax.Array) -> Queues:
    """The queues after rows (n, d) with labels (n,) have come in order, those that `mask` keeps.

    Of more rows of a class than its queue holds, the last stay.
    """
    classes, size, _ = queues.rows.shape
    own = (labels[:, None] == jnp.arange(classes)) & (mask[:, None] > 0)
    count = jnp.sum(own, axis=0, dtype=jnp.int32)
    rank = jnp.cumsum(own, axis=0, dtype=jnp.int32)[jnp.arange(len(labels)), labels] - 1
    place = (queues.seen[labels] + rank) % size
    # No two rows are written to one place: the order of such writes would be left to the device.
    stays = (mask > 0) & (rank >= count[labels] - size)
    place = jnp.where(stays, place, size)
    return Queues(queues.rows.at[labels, place].set(rows, mode="drop"), queues.seen + count)


def all_full(queues: Queues) -> jax.Array:
    """Whether no queue has a free place: () bool."""
    return jnp.all(queues.seen >= queues.rows.shape[1])


def check_fill(method: str, size: int, labels: np.ndarray, epochs: int) -> None:
    """Raises UserError if some queue is never full: then there would be no outliers at all.

    Args:
      labels: (n,) of the ID training images.
    """
    shown = epochs * int(np.bincount(labels).min())
    if size >= shown:
        raise UserError(
            f"method {method}: queue is {size}; it must be below {shown}, the images of the "
            f"rarest class that the training shows in all its epochs"
        )
