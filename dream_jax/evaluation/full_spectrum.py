"""The full spectrum: shifted test sets of the ID classes count as ID images.

A detector should take them for ID, and the classifier read them, though they look otherwise.
OpenOOD measures benchmarks with them and without (Yang et al., Full-Spectrum Out-of-Distribution
Detection, 2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from dream_jax.data.image_sets import DataOptions
from dream_jax.data.images import Images
from dream_jax.run import Work

NAME = "full_spectrum"  # of the entry in metrics.json, and of the folder of scores
Scorer = Callable[[Images], tuple[Float[np.ndarray, "n classes"], dict[str, np.ndarray]]]


@dataclass(frozen=True)
class ShiftedScores:
    """How all rows of a classifier score shifted sets, each by its title.

    Attributes:
      by_row: {row: {set: scores (n,)}}, higher is more ID.
      predictions: {set: the classes that the images are read as (n,)}.
      labels: {set: (n,)}.
    """

    by_row: dict[str, dict[str, Float[np.ndarray, " n"]]]
    predictions: dict[str, Int[np.ndarray, " n"]]
    labels: dict[str, Int[np.ndarray, " n"]]

    def joined(
        self, row: str, scores: Float[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
        """Returns a row's scores of the ID test images and of all others, and which are misread."""
        misread = [self.predictions[name] != own for name, own in self.labels.items()]
        every = [self.by_row[row][name] for name in self.labels]
        return np.concatenate([scores, *every]), np.concatenate([wrong, *misread])


def score_shifted(work: Work, scorer: Scorer, rows: Sequence[str]) -> ShiftedScores | None:
    """Scores the shifted sets that are on this machine, one after the other; None if none is."""
    from dream_jax.data.shifted import check_shifted, load_shifted

    options = DataOptions.of(work.settings.data, count=1)
    names = work.settings.data.shifted
    here = work.available("shifted", names, lambda name: check_shifted(name, options))
    found = ShiftedScores({row: {} for row in rows}, {}, {})
    for name in here:
        for part in load_shifted(name, work.test, options):
            logits, scores = scorer(part.images.images)
            title = part.images.name.partition("=")[0]
            found.predictions[title] = logits.argmax(-1).astype(np.int32)
            found.labels[title] = part.images.labels
            for row in rows:
                found.by_row[row][title] = np.asarray(scores[row])
    return found if here else None
