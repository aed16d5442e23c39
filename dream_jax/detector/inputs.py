"""What a network makes of a batch of images, and what of it a detector is given."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# What a detector may need, and the fields of `Inputs` in which its score finds it; the head and the
# labels are there when it is fitted.
NEEDS: dict[str, tuple[str, ...]] = {
    "logits": ("logits",),
    "features": ("features",),
    "numerators": ("numerators",),
    "certainty": ("certainty",),
    "layers": ("layers",),
    "rerun": ("rerun",),
    "gradients": ("images", "forward"),
    "head": (),
    "labels": (),
}


class Head(NamedTuple):
    """A linear layer from features to logits: features @ kernel + bias.

    Attributes:
      kernel: (d, classes).
      bias: (classes,).
    """

    kernel: Any
    bias: Any

    def __call__(self, features: Float[Array, "n d"]) -> Float[Array, "n classes"]:
        """Returns logits, without the loss of precision that TPU and GPU default to."""
        return jnp.matmul(features, self.kernel, precision="highest") + self.bias


class Outputs(NamedTuple):
    """What a network gives in evaluation mode.

    Attributes:
      logits: (n, classes).
      features: (n, d), the penultimate ones.
      numerators: (n, classes), where logits are quotients of them; see `methods/godin.py`.
      certainty: (n,), where the training has a logit of its own for ID against outliers.
      layers: activations (n, H, W, C) of inner layers by their names, from the first to the last.
    """

    logits: jax.Array
    features: jax.Array
    numerators: jax.Array | None = None
    certainty: jax.Array | None = None
    layers: Mapping[str, jax.Array] | None = None


# (variables, images (n, ...)) → outputs, in evaluation mode: each row of its own. A network whose
# layers are asked for takes a third argument, what is added to them; see `models/layers.py`.
Forward = Callable[..., Outputs]


class Inputs(NamedTuple):
    """A batch of images as a detector sees them, inside a traced program.

    What a detector does not need is None for it.

    Attributes:
      logits: (n, classes).
      features: (n, d).
      numerators: (n, classes), those of the network, else its logits.
      certainty: (n,), that of the network, else the energy of its logits.
      images: (n, ...) what the network takes.
      forward: images → outputs, row by row independent; for gradients.
      image_scale: how many units of the network's normalised input one unit of `images` is.
      layers: {name: (n, H, W, C)}, from the first to the last.
      rerun: {name: what is added to the layer, or to "features"} → outputs.
    """

    logits: Any
    features: Any
    numerators: Any
    certainty: Any
    images: Any
    forward: Any
    image_scale: float = 1.0
    layers: Any = None
    rerun: Any = None


def make_inputs(
    forward: Forward, variables: Any, images: jax.Array, image_scale: float = 1.0
) -> Inputs:
    """Runs a network on a batch of images."""
    outputs = forward(variables, images)
    energy = jax.nn.logsumexp(outputs.logits, axis=-1)
    return Inputs(
        outputs.logits,
        outputs.features,
        numerators_of(outputs),
        energy if outputs.certainty is None else outputs.certainty,
        images,
        lambda x: forward(variables, x),
        image_scale,
        outputs.layers,
        lambda added: forward(variables, images, added),
    )


def numerators_of(outputs: Outputs) -> Float[Array, "n classes"]:
    """Returns the numerators of a network that has them, else the logits."""
    return outputs.logits if outputs.numerators is None else outputs.numerators


def visible(inputs: Inputs, needs: frozenset[str]) -> Inputs:
    """Returns the inputs without what a detector has not said that it needs."""
    hidden = [field for need, own in NEEDS.items() if need not in needs for field in own]
    return inputs._replace(**dict.fromkeys(hidden))  # type: ignore[arg-type]
