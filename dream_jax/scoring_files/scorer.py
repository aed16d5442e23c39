"""What scores images: a row of a run, or a detector that was taken from one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dream_jax.data.images import Images

# images (n, ...) → (logits (n, classes), scores (n,)), higher is more ID; by all devices.
Score = Callable[[Images], tuple[Float[np.ndarray, "n classes"], Float[np.ndarray, " n"]]]


@dataclass(frozen=True, eq=False)
class ImageScorer:
    """A detector with what it needs to know of images.

    Attributes:
      title: for people, such as "Dream-OOD of run quickstart".
      class_names: of the ID classes, in the order of the logits.
      size, channels: of the images that it takes.
      unreadable: what an image that cannot be read does: "stop" or "skip".
      batch_size: images at once over all devices; 0 as many as fit.
      known: the scores of the run's own test sets; "id" first, then the OOD sets.
      identity: what tells it from other detectors; JSON can hold it.
      prepare: makes it ready to score, which may take a while.
    """

    title: str
    class_names: tuple[str, ...]
    size: int
    channels: int
    unreadable: str
    batch_size: int
    known: Mapping[str, Float[np.ndarray, " m"]]
    identity: Mapping[str, Any]
    prepare: Callable[[], Score]
