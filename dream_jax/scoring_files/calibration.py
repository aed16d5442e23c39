"""What a score means: its place among the scores of the run's ID test images."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from dream_jax.evaluation.metrics import threshold_at_tpr

ROUNDING = 1e-5  # of scores


@dataclass(frozen=True, eq=False)
class Calibration:
    """The scores of the ID test images, to which others are compared.

    Attributes:
      id_scores: of the ID test images, in any order.
      keep: the share of them that counts as ID, in (0, 1).
    """

    id_scores: Float[np.ndarray, " m"]
    keep: float

    @cached_property
    def threshold(self) -> float:
        """The score from which on an image counts as ID.

        Halfway between the lowest score of the ID test images that are kept, at least the share
        `keep`, and the next one below it; or a little lower than the lowest of all. So rounding,
        which differs between devices, moves no ID test image to the other side.
        """
        lowest = threshold_at_tpr(self.id_scores, self.keep)
        below = np.searchsorted(self._sorted, lowest, side="left")
        if below == 0:
            return lowest - ROUNDING * max(1.0, abs(lowest))
        return float(self._sorted[below - 1] + lowest) / 2

    def is_id(self, scores: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Returns which scores reach the threshold."""
        return np.asarray(scores, np.float64) >= self.threshold

    def p_values(self, scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Returns (1 + number of ID test scores that are not higher) / (1 + number of all).

        The conformal p-value of the hypothesis that an image is drawn as the ID test images are: of
        images that are, at most a share α has a p-value of at most α, for any α. (Vovk, Gammerman
        & Shafer, Algorithmic Learning in a Random World, 2005; Bates et al., Testing for Outliers
        with Conformal p-values, Annals of Statistics 2023.)
        """
        not_higher = np.searchsorted(self._sorted, np.asarray(scores, np.float64), side="right")
        return (1 + not_higher) / (1 + len(self._sorted))

    @cached_property
    def _sorted(self) -> Float[np.ndarray, " m"]:
        return np.sort(np.asarray(self.id_scores, np.float64))
