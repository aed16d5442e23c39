"""What every training declares: its loss, and its own parameters and state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dream_jax.detector.inputs import Head, Outputs
from dream_jax.detector.options import Options
from dream_jax.models import layers
from dream_jax.rules import Option
from dream_jax.settings import OptimizerSettings
from dream_jax.training.terms import Term, cross_entropy

if TYPE_CHECKING:
    import optax

# What a training shows with the ID images: nothing; imagined outliers, those of the run or BOOD's,
# and decoded images of the classes; imagined inliers with their labels; real outliers of
# `data.auxiliary`.
Extra = Literal["", "outliers", "bood", "inliers", "auxiliary"]


class Own(NamedTuple):
    """What a training has of its own, in addition to the network.

    Attributes:
      params: trained with the network's parameters.
      state: what each step hands to the next, such as queues and running means: arrays, the same
        on all devices.
    """

    params: Any
    state: Any


NOTHING = Own({}, {})


class Shape(NamedTuple):
    """Sizes that a training's own parameters may depend on."""

    image: tuple[int, int, int]
    features: int
    classes: int


class Network(NamedTuple):
    """A network in evaluation mode.

    Attributes:
      apply: images (n, H, W, C) → outputs, each row of its own.
      head: its last layer.
    """

    apply: Callable[[jax.Array], Outputs]
    head: Head


class Batch(NamedTuple):
    """A device's part of a step's batch, augmented, before the network sees it.

    Attributes:
      images: (n, H, W, C).
      labels, is_id, mask, keys, key: as of `Examples`.
      position: (n,) the rows' numbers in the batch of all devices.
    """

    images: jax.Array
    labels: jax.Array
    is_id: jax.Array
    mask: jax.Array
    keys: jax.Array
    key: jax.Array
    position: jax.Array


class Examples(NamedTuple):
    """A device's examples of a step: what was shown, and what the network made of it.

    They are ID images, then extra ones, as the training's `show` changes them, then what its
    `generate` made. The network runs in training mode.

    Attributes:
      images: (n, H, W, C) as the network saw them.
      logits: (n, classes) of the network's linear head.
      features: (n, d) before the head.
      labels: (n,) class numbers, without meaning for outliers.
      is_id: (n,) 1 for ID images, 0 for outliers.
      mask: (n,) 0 on padding.
      keys: (n,) a random key for each, the same whatever the device.
      key: the step's random key, the same on all devices.
      progress: the share of the training's steps that is done, in [0, 1).
      head: the network's last layer.
      held: the logits once more, where there is a `generate`: their gradients reach the images that
        it made and not the network, those of `logits` the network and not the images.
      aside: what `show` gave with the batch.
    """

    images: jax.Array
    logits: jax.Array
    features: jax.Array
    labels: jax.Array
    is_id: jax.Array
    mask: jax.Array
    keys: jax.Array
    key: jax.Array
    progress: jax.Array
    head: Head
    held: jax.Array | None = None
    aside: Any = None


def _nothing(key: jax.Array, shape: Shape, options: Options) -> Own:
    return NOTHING


def _unchanged(own: Own, outputs: Outputs, options: Options) -> Outputs:
    return outputs


def _anything_goes(
    options: Options, image: tuple[int, int, int], labels: np.ndarray, epochs: int
) -> None:
    """Accepts any settings and data."""


@dataclass(frozen=True, eq=False)
class Training:
    """A way to train a classifier.

    Attributes:
      name: its key in configurations and in metrics.json.
      title: its name in tables.
      paper: where it comes from.
      terms: (own, examples, options) → (loss terms, own state after the step); inside the pmapped
        step, so `psum` and `all_gather` over `devices.AXIS` are at hand.
      detector: the name of the detector that its paper scores images by.
      detector_options: the settings that its paper gives that detector.
      extra: what it shows with the ID images.
      options: its settings, with the paper's defaults.
      init: (key, shape, options) → its own fresh parameters and state.
      show: (batch, options) → (the batch that is shown, anything that `terms` needs to know of it),
        if it shows other images than those given, such as mixtures; inside the pmapped step.
      generate: (own, images (n, H, W, C), mask (n,), keys (n,), options) → (images that are shown
        after the batch's, as outliers (n, H, W, C), own state), if it makes any.
      outputs: (own, the network's outputs, options) → those of the classifier, in evaluation mode.
      forward: (network, own, images, options) → the same, in place of `outputs`, where these depend
        on more than the network's outputs of the images.
      in_all: whether `methods = "all"` has it; the others are rows by name.
      fine_tunes: whether it always goes on from the plain classifier, by `config.fine_tune`.
      linear: whether the classifier's logits are the network's head of its features.
      check: (options, an image's shape, labels (n,) of the ID training images, epochs) → None, or a
        `UserError` if the settings do not go together or not with this data; before any work.
      optimizer: (optimizer of the network, its settings, steps, options) → the optimizer of
        {"network": ..., "method": ...}, where that is not one for both.
    """

    name: str
    title: str
    paper: str
    terms: Callable[[Own, Examples, Options], tuple[dict[str, Term], Any]]
    detector: str
    detector_options: Options = field(default_factory=dict)
    extra: Extra = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    init: Callable[[jax.Array, Shape, Options], Own] = _nothing
    show: Callable[[Batch, Options], tuple[Batch, Any]] | None = None
    generate: Callable[..., tuple[jax.Array, Any]] | None = None
    outputs: Callable[[Own, Outputs, Options], Outputs] = _unchanged
    forward: Callable[[Network, Own, jax.Array, Options], Outputs] | None = None
    in_all: bool = True
    fine_tunes: bool = False
    linear: bool = True
    check: Callable[[Options, tuple[int, int, int], np.ndarray, int], None] = _anything_goes
    optimizer: (
        Callable[
            [optax.GradientTransformation, OptimizerSettings, int, Options],
            optax.GradientTransformation,
        ]
        | None
    ) = None

    def evaluate(self, network: Network, own: Own, images: jax.Array, options: Options) -> Outputs:
        """Returns the classifier's outputs of images (n, H, W, C), in evaluation mode."""
        if self.forward is not None:
            return self.forward(network, own, images, options)
        return self.outputs(own, network.apply(images), options)


def network_of(
    model: Any,
    variables: dict,
    maps: Sequence[str] = (),
    added: Mapping[str, jax.Array] | None = None,
) -> Network:
    """Returns a Flax model with its variables {"params", "batch_stats"}, in evaluation mode.

    Args:
      maps: layers whose activations are among the outputs.
      added: what is added to activations; see `layers.run`.
    """

    def apply(images: jax.Array) -> Outputs:
        if not (maps or added):
            return Outputs(*model.apply(variables, images))
        (logits, features), shown = layers.run(model, variables, images, maps, added)
        return Outputs(logits, features, layers=shown)

    return Network(apply, Head(**variables["params"]["head"]))


def classification_terms(
    logits: Float[Array, "n classes"], labels: Int[Array, " n"], mask: Float[Array, " n"]
) -> dict[str, Term]:
    """Returns cross-entropy of the examples that `mask` keeps, and their accuracy as a metric."""
    loss = cross_entropy(logits, labels)
    correct = (jnp.argmax(logits, -1) == labels).astype(jnp.float32)
    return {"ce": Term(loss, mask), "accuracy": Term(correct, mask, 0.0)}
