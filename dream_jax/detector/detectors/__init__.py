"""Post-hoc detectors: scores for a classifier that is trained already, a family a file.

Adding one is adding a `Detector` and naming it in `DETECTORS`.
"""

from dream_jax.detector.detectors import (
    activations,
    dice,
    gaussian,
    kl_matching,
    logits,
    neighbours,
    odin,
    she,
    vim,
)
from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Head, Inputs

DETECTORS: dict[str, Detector] = {
    d.name: d
    for d in (
        logits.MSP,
        logits.MAX_LOGIT,
        logits.ENERGY,
        odin.ODIN,
        gaussian.MAHALANOBIS,
        neighbours.KNN,
        vim.VIM,
        activations.REACT,
        dice.DICE,
        logits.GEN,
        activations.ASH_S,
        she.SHE,
        kl_matching.KL_MATCHING,
        gaussian.RMD,
        neighbours.NNGUIDE,
    )
}

__all__ = ["DETECTORS", "Detector", "FitData", "Head", "Inputs"]
