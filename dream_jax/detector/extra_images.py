"""What the batches of a training hold in addition to the ID images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from dream_jax.data.images import Images


@dataclass(frozen=True, eq=False)
class ExtraImages:
    """Images that a training shows with the real ID images.

    Attributes:
      images: outliers, or ID images if there are `labels`: one set or more, taken as one. They have
        the size of the ID images, or are larger where patches of them are shown.
      labels: (n,) of `images`, or None.
      round_trips: the ID training images through the autoencoder, in the same order, or None.
      by_name: images sampled by the classes' plain names, with `by_name_labels`, or None.
    """

    images: Sequence[Images]
    labels: Int[np.ndarray, " n"] | None = None
    round_trips: Images | None = None
    by_name: Images | None = None
    by_name_labels: Int[np.ndarray, " m"] | None = None
