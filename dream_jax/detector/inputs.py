"""What the score of a detector or of a training method is given of a batch of images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# What a detector may need of the classifier and of the fitting data, and in which fields of
# `Inputs` its score then finds it; of the head and the labels only the fitting knows.
NEEDS: dict[str, tuple[str, ...]] = {
    "logits": ("logits",),
    "features": ("features",),
    "gradients": ("images", "forward"),
    "head": (),
    "labels": (),
}


class Head(NamedTuple):
    """The classifier's last, linear layer: logits = features @ kernel + bias.

    Attributes:
      kernel: (d, classes).
      bias: (classes,).
    """

    kernel: Any
    bias: Any

    def __call__(self, features: jax.Array) -> jax.Array:
        """(n, d) → (n, classes), without the loss of precision that TPU and GPU default to."""
        return jnp.matmul(features, self.kernel, precision="highest") + self.bias


class Inputs(NamedTuple):
    """A batch of images as the classifier sees them, inside a traced program.

    What a detector does not need is None for it.

    Attributes:
      logits: (n, classes).
      features: (n, d).
      images: (n, ...) what the network takes.
      forward: images → (logits, features), row by row independent; for gradients.
      image_scale: how many units of the network's normalised input one unit of `images` is.
    """

    logits: jax.Array | None
    features: jax.Array | None
    images: jax.Array | None
    forward: Callable[[jax.Array], tuple[jax.Array, jax.Array]] | None
    image_scale: float = 1.0


def visible(inputs: Inputs, needs: frozenset[str]) -> Inputs:
    """The inputs without what a detector has not said that it needs."""
    hidden = [field for need, own in NEEDS.items() if need not in needs for field in own]
    return inputs._replace(**dict.fromkeys(hidden))
