"""Mixtures of images of a batch, the same however many devices it is spread over."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dream_jax.detector.methods.base import Batch
from dream_jax.training.devices import gather_rows

# A row's key is split for its augmentation, the step's for its rows; these give keys that are none
# of those.
_ORDER, _SHARE, _PLACE = 2**32 - 2, 2**32 - 3, 2**32 - 4


class Partners(NamedTuple):
    """For each row of a batch another one, drawn at random from those of all devices."""

    images: jax.Array
    labels: jax.Array


def partners(batch: Batch, among: jax.Array) -> Partners:
    """Draws a partner for each row, from a random order of the rows that are `among` (n,) 1.

    No two rows have the same partner, as long as there are enough.
    """
    keys = jax.vmap(lambda key: jax.random.fold_in(key, _ORDER))(batch.keys)
    draw = jnp.where(among > 0, jax.vmap(jax.random.uniform)(keys), jnp.inf)
    draw, among, images, labels = gather_rows((draw, among, batch.images, batch.labels))
    count = jnp.maximum(jnp.sum(among, dtype=jnp.int32), 1)
    chosen = jnp.argsort(draw)[batch.position % count]
    return Partners(images[chosen], labels[chosen])


def draw_share(key: jax.Array, alpha: float) -> jax.Array:
    """Draws λ from Beta(α, α), by a step's key."""
    return jax.random.beta(jax.random.fold_in(key, _SHARE), alpha, alpha)


def draw_box(key: jax.Array, size: tuple[int, ...], share: jax.Array) -> jax.Array:
    """Draws the box of CutMix (Yun et al., ICCV 2019), a mask (H, W, 1): a part of 1 - λ.

    Its centre is anywhere in the image, and what would lie outside of it is cut off.

    Args:
      key: of the step.
      size: height and width.
      share: λ.
    """
    sides = jnp.array(size)
    centre = jax.random.randint(jax.random.fold_in(key, _PLACE), (2,), 0, sides)
    half = (sides * jnp.sqrt(1 - share)).astype(jnp.int32) // 2
    inside = [
        (jnp.arange(size[axis]) >= centre[axis] - half[axis])
        & (jnp.arange(size[axis]) < centre[axis] + half[axis])
        for axis in range(2)
    ]
    return (inside[0][:, None] & inside[1][None])[..., None]
