"""What every detector declares: what it needs, how it is fitted, and its score."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from dream_jax.detector.inputs import Head, Inputs
from dream_jax.detector.options import Options
from dream_jax.rules import Option

ROWS_AT_ONCE = 4096  # of the fitting data, in float64
# (function, rows=None) → iterator: runs a traced function of a batch's inputs over the ID training
# images, or over some rows of them, and yields its arrays for `ROWS_AT_ONCE` images at a time.
Evaluate = Callable[..., Iterator[Any]]


def _no_images(function: Callable[[Inputs], Any], rows: Any = None) -> Iterator[Any]:
    raise ValueError("this detector is fitted on images, and there are only their features")


@dataclass(frozen=True, eq=False)
class FitData:
    """ID training data as a network sees them, read a part at a time and as often as needed.

    Attributes:
      features: penultimate features; an array, or one mapped from a file.
      labels: class numbers.
      head: the linear layer from features to logits; without it, no detector with the need "head"
        can be fitted.
      given_logits: the network's logits, where they are not the head's of the features.
      evaluate: runs a traced function of the inputs over the images, where there are images; see
        `Evaluate`.

    Raises:
      ValueError: there are neither a head nor logits, the shapes do not fit together, or a label is
        no class.
    """

    features: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]
    head: Head | None = None
    given_logits: Float[np.ndarray, "n classes"] | None = None
    evaluate: Evaluate = _no_images

    def __post_init__(self) -> None:
        n, d = self.features.shape
        kernel = (d, self.classes) if self.head is None else self.head.kernel.shape
        logits = (n, self.classes) if self.given_logits is None else self.given_logits.shape
        expected = (n, (d, self.classes), (n, self.classes))
        if not n or (len(self.labels), kernel, logits) != expected:
            raise ValueError(
                f"{len(self.labels)} labels, a head {kernel} with {self.classes} biases, logits "
                f"{logits} and features {self.features.shape} do not fit together"
            )
        if np.min(self.labels) < 0 or np.max(self.labels) >= self.classes:
            raise ValueError(f"labels must be in [0, {self.classes})")

    @property
    def classes(self) -> int:
        if self.head is not None:
            return len(self.head.bias)
        if self.given_logits is None:
            raise ValueError("there are neither a linear head nor logits; give one of them")
        return self.given_logits.shape[1]

    @property
    def linear_head(self) -> Head:
        """The head, for detectors with the need "head".

        Raises:
          ValueError: there is none.
        """
        if self.head is None:
            raise ValueError("this detector needs a linear head, and there are only logits")
        return self.head

    def parts(self) -> Iterator["Part"]:
        """Yields the data, `ROWS_AT_ONCE` rows after the other."""
        for start in range(0, len(self.labels), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            features = np.asarray(self.features[rows], np.float64)
            if self.given_logits is None:
                kernel, bias = (np.asarray(leaf, np.float64) for leaf in self.linear_head)
                logits = features @ kernel + bias
            else:
                logits = np.asarray(self.given_logits[rows], np.float64)
            yield Part(features, np.asarray(self.labels[rows]), logits)


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of the fitting data, in float64."""

    features: Float[np.ndarray, "m d"]
    labels: Int[np.ndarray, " m"]
    logits: Float[np.ndarray, "m classes"]


def nothing_to_fit(data: FitData, options: Options) -> dict:
    """Returns the state of a detector that uses a network's outputs alone."""
    return {}


def _any_size(options: Options, images: int) -> None:
    """Accepts any number of training images."""


def _no_more(options: Options) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, eq=False)
class Detector:
    """A score of images by a trained classifier, made by any training.

    Attributes:
      name: its key in configurations and in metrics.json.
      title: its name in tables.
      paper: where it comes from.
      needs: some of `NEEDS`: what the score and the fitting use.
      score: (state, inputs, options) → (n,), higher is more ID; traced, state being arrays.
      fit: (data, options) → state, a pytree of arrays; reads the data in parts.
      options: its settings, with the paper's defaults.
      more: (options) → what it needs by its settings, in addition to `needs`.
      check: (options, number of training images) → None, or a `UserError` before any work.
      made_for: the training whose networks it was made for; it fits others too.
    """

    name: str
    title: str
    paper: str
    needs: frozenset[str]
    score: Callable[[Any, Inputs, Options], jax.Array]
    fit: Callable[[FitData, Options], Any] = nothing_to_fit
    options: Mapping[str, Option] = field(default_factory=dict)
    more: Callable[[Options], frozenset[str]] = _no_more
    check: Callable[[Options, int], None] = _any_size
    made_for: str = ""

    def needed(self, options: Options) -> frozenset[str]:
        """Returns what it needs with these settings, which may leave some at their defaults."""
        every = {key: option.default for key, option in self.options.items()} | dict(options)
        return self.needs | self.more(every)
