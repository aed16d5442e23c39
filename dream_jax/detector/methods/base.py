"""What a training method gives to the classifier's training, and to its scoring."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dream_jax.detector.inputs import Head, Inputs
from dream_jax.detector.options import Option
from dream_jax.training.loop import Term

# What batches hold beside ID images: nothing; imagined outliers, and decoded images of the classes;
# imagined inliers with their labels; real outliers of `data.auxiliary`.
EXTRAS = ("", "outliers", "inliers", "auxiliary")
Options = Mapping[str, Any]


class Own(NamedTuple):
    """What a method has beside the network.

    Attributes:
      params: trained with the network's parameters.
      state: what each step hands to the next, such as queues and running means: arrays, the same
        on all devices.
    """

    params: Any
    state: Any


NOTHING = Own({}, {})


class Shape(NamedTuple):
    """Sizes that a method's own parameters may depend on."""

    image: tuple[int, int, int]
    features: int
    classes: int


class Rows(NamedTuple):
    """A device's rows of a step: what was shown, and what the network made of it, in training mode.

    Rows are ID images, then extra ones, then what the method's `generate` made.

    Attributes:
      images: (n, H, W, C) as the network saw them.
      logits: (n, classes) of the network's linear head.
      features: (n, d) before the head.
      labels: (n,) class numbers, without meaning for outliers.
      is_id: (n,) 1 for ID rows, 0 for outliers.
      mask: (n,) 0 on padding.
      keys: (n,) a random key for each row, the same whatever the device.
      key: the step's random key, the same on all devices.
      progress: the share of the training's steps that is done, in [0, 1).
      head: the network's last layer.
      held: the logits once more, where `generate` is there: their gradients reach the images that
        it made and not the network, those of `logits` the network and not the images.
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


# Outputs of a function of `Inputs`, traced, over the ID training images: arrays (n, ...).
Evaluate = Callable[[Callable[[Inputs], Any]], Any]


def _nothing(key: jax.Array, shape: Shape, options: Options) -> Own:
    return NOTHING


def _unchanged(own: Own, logits: jax.Array, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    return logits, features


def _anything_goes(
    options: Options, image: tuple[int, int, int], labels: np.ndarray, epochs: int
) -> None:
    pass


def nothing_to_fit(own: Own, evaluate: Evaluate, options: Options) -> dict:
    """The state of a score that needs none."""
    return {}


@dataclass(frozen=True)
class Method:
    """A way to train a classifier, and the score by which it tells ID from OOD.

    Attributes:
      name: its key in configurations and in metrics.json.
      title: its name in tables.
      paper: where it comes from.
      terms: (own, rows, options) → (loss terms, own state after the step); inside the pmapped step,
        so `psum` and `all_gather` over `devices.AXIS` are at hand.
      score: (state, inputs, options) → (n,), higher is more ID; traced, state being arrays.
      extra: one of `EXTRAS`.
      options: its settings, with the paper's defaults.
      init: (key, shape, options) → its own fresh parameters and state.
      generate: (own, images (n, H, W, C), mask (n,), keys (n,), options) → (images that are shown
        behind the batch's, as outliers (n, H, W, C), own state), if it makes any.
      outputs: (own, logits, features) → (logits, features) of the classifier in evaluation mode,
        where they are not the network's.
      check: (options, an image's shape, labels (n,) of the ID training images, epochs) → None, or a
        `UserError` if the settings do not go together or not with this data; before any work.
      fit: (own, evaluate, options) → the score's state, a pytree of arrays.
      optimizer: (optimizer of the network, settings of `classifier.optimizer`, steps, options) →
        the optimiser of {"network": ..., "method": ...}, where that is not one for both.
    """

    name: str
    title: str
    paper: str
    terms: Callable[[Own, Rows, Options], tuple[dict[str, Term], Any]]
    score: Callable[[Any, Inputs, Options], jax.Array]
    extra: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    init: Callable[[jax.Array, Shape, Options], Own] = _nothing
    generate: Callable[..., tuple[jax.Array, Any]] | None = None
    outputs: Callable[[Own, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] = _unchanged
    check: Callable[[Options, tuple[int, int, int], np.ndarray, int], None] = _anything_goes
    fit: Callable[[Own, Evaluate, Options], Any] = nothing_to_fit
    optimizer: (
        Callable[
            [optax.GradientTransformation, ConfigDict, int, Options], optax.GradientTransformation
        ]
        | None
    ) = None


def classification_terms(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, Term]:
    """Cross-entropy of the rows that `mask` keeps, and their accuracy as a metric."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = (jnp.argmax(logits, -1) == labels).astype(jnp.float32)
    return {"ce": Term(loss, mask), "accuracy": Term(correct, mask, 0.0)}
