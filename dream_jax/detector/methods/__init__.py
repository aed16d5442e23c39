"""Trainings: the ways in which a classifier can be trained, one file each.

Adding one is adding a file with a `TRAINING` and naming it here, in the order of the table.
"""

from collections.abc import Iterable
from dataclasses import replace

from dream_jax.detector.methods import (
    bood,
    cider,
    cross_entropy,
    dream_id,
    dream_ood,
    energy_fine_tuning,
    gan,
    godin,
    logit_norm,
    mcd,
    mixoe,
    npos,
    outlier_exposure,
    regmixup,
    rotpred,
    t2fnorm,
    vos,
)
from dream_jax.detector.methods.base import Training

_MODULES = (
    *(cross_entropy, godin, gan, vos, npos, logit_norm, cider, rotpred, regmixup, t2fnorm),
    *(outlier_exposure, energy_fine_tuning, mcd, mixoe, dream_id, dream_ood, bood),
)
TRAININGS: dict[str, Training] = {module.TRAINING.name: module.TRAINING for module in _MODULES}
# The plain classifier, which judges outliers, and which detectors without a training are fitted to.
PLAIN = cross_entropy.TRAINING.name


def fine_tuning(names: Iterable[str]) -> dict[str, Training]:
    """Returns all trainings; those of some names always go on from the plain classifier too."""
    return TRAININGS | {name: replace(TRAININGS[name], fine_tunes=True) for name in names}


__all__ = ["PLAIN", "TRAININGS", "Training", "fine_tuning"]
