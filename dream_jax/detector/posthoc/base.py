"""The one shape of a post-hoc detector: what it needs, how it is fitted, and its score."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# What a detector may need of the classifier and of the fitting data, and in which fields of
# `Inputs` its score then finds it; of the head and the labels only the fitting knows.
NEEDS: dict[str, tuple[str, ...]] = {
    "logits": ("logits",),
    "features": ("features",),
    "gradients": ("images", "forward"),
    "head": (),
    "labels": (),
}
ROWS_AT_ONCE = 4096  # of the fitting data, in float64


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


@dataclass(frozen=True, eq=False)
class FitData:
    """ID training data as the classifier sees it, read a part at a time and as often as needed.

    Attributes:
      features: (n, d) penultimate features; an array, or one mapped from a file.
      labels: (n,) class numbers.
      head: the classifier's; the logits are computed from it.

    Raises:
      ValueError: the shapes do not fit together, or a label is no class.
    """

    features: np.ndarray
    labels: np.ndarray
    head: Head

    def __post_init__(self):
        n, d = self.features.shape
        if not n or len(self.labels) != n or self.head.kernel.shape != (d, self.classes):
            raise ValueError(
                f"{len(self.labels)} labels, a head {self.head.kernel.shape} with "
                f"{self.classes} biases and features {self.features.shape} do not fit together"
            )
        if np.min(self.labels) < 0 or np.max(self.labels) >= self.classes:
            raise ValueError(f"labels must be in [0, {self.classes})")

    @property
    def classes(self) -> int:
        return len(self.head.bias)

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (features (m, d) float64, labels (m,)) of `ROWS_AT_ONCE` rows after the other."""
        for start in range(0, len(self.labels), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            yield np.asarray(self.features[rows], np.float64), np.asarray(self.labels[rows])

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(m, d) → (m, classes), in float64."""
        return features @ np.asarray(self.head.kernel, np.float64) + np.asarray(self.head.bias)


class Inputs(NamedTuple):
    """A batch of images as the classifier sees them, inside a traced program.

    What a detector does not need is None for it.

    Attributes:
      logits: (n, classes).
      features: (n, d).
      images: (n, ...) what the network takes.
      forward: images → logits, row by row independent; for gradients.
      image_scale: how many units of the network's normalised input one unit of `images` is.
    """

    logits: jax.Array | None
    features: jax.Array | None
    images: jax.Array | None
    forward: Callable[[jax.Array], jax.Array] | None
    image_scale: float = 1.0


def visible(inputs: Inputs, needs: frozenset[str]) -> Inputs:
    """The inputs without what a detector has not said that it needs."""
    hidden = [field for need, own in NEEDS.items() if need not in needs for field in own]
    return inputs._replace(**dict.fromkeys(hidden))


class Option(NamedTuple):
    """A setting of a detector: its default, whether a value is allowed, and what is, in words."""

    default: Any
    holds: Callable[[Any], bool]
    allowed: str


def number(default: float, low: float, high: float) -> Option:
    """A number in [low, high]."""

    def holds(value) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and low <= value <= high

    return Option(default, holds, f"a number of at least {low:g} and at most {high:g}")


def whole(default: int, low: int) -> Option:
    """A whole number of at least `low`."""

    def holds(value) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= low

    return Option(default, holds, f"a whole number of at least {low}")


def nothing_to_fit(data: FitData | None, options: Mapping[str, Any]) -> dict:
    """The state of a detector that uses the logits alone."""
    return {}


@dataclass(frozen=True)
class Detector:
    """A score for a classifier that is trained already.

    Attributes:
      name: its key in configurations and in metrics.json.
      title: its name in tables.
      paper: where it comes from.
      needs: some of `NEEDS`: what the score and the fitting use.
      score: (state, inputs, options) → (n,), higher is more ID; traced, state being arrays.
      fit: (data, options) → state, a pytree of arrays; reads the data in parts.
      options: its settings, with the paper's defaults.
    """

    name: str
    title: str
    paper: str
    needs: frozenset[str]
    score: Callable[[Any, Inputs, Mapping[str, Any]], jax.Array]
    fit: Callable[[FitData, Mapping[str, Any]], Any] = nothing_to_fit
    options: Mapping[str, Option] = field(default_factory=dict)
