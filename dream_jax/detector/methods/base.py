"""What a training method gives to the classifier's training."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from ml_collections import ConfigDict

from dream_jax.training.loop import Term


def nothing_to_learn(key: jax.Array, config: ConfigDict) -> dict:
    """Parameters of a method that has none of its own."""
    return {}


@dataclass(frozen=True)
class Method:
    """A way to train a classifier, and the score by which it tells ID from OOD.

    Attributes:
      name: its key in configurations and in metrics.json.
      title: its name in tables.
      paper: where it comes from.
      uses_decoded: whether batches hold imagined outliers, and decoded images of the classes.
      terms: (own parameters, logits (n, classes), batch, config) → loss terms. The batch has
        `labels`, `is_id` (1 for ID rows, 0 for outliers) and `mask` (0 on padding).
      score: logits (n, classes) → (n,), higher is more ID.
      init: (key, config) → the method's own parameters, trained with the network's.
    """

    name: str
    title: str
    paper: str
    uses_decoded: bool
    terms: Callable[[dict, jax.Array, dict, ConfigDict], dict[str, Term]]
    score: Callable[[jax.Array], jax.Array]
    init: Callable[[jax.Array, ConfigDict], dict] = nothing_to_learn
