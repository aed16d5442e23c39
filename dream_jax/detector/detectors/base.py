"""The one shape of a post-hoc detector: what it needs, how it is fitted, and its score."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from dream_jax.detector.inputs import Head, Inputs
from dream_jax.detector.options import Option

ROWS_AT_ONCE = 4096  # of the fitting data, in float64


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
