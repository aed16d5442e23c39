"""Detectors: scores of images by a trained classifier, a file each, or each family of scores.

Adding one is adding a file with a `Detector` and naming it in `DETECTORS`, in the order of tables.
"""

from dream_jax.detector.detectors import (
    ash,
    deconf,
    dice,
    fdbd,
    gaussian,
    gmm,
    gradnorm,
    gram,
    kl_matching,
    knn,
    knn_chosen,
    logits,
    nac_ue,
    nci,
    nnguide,
    odin,
    phi,
    rankfeat,
    react,
    relation,
    residual,
    scale,
    she,
    temp_scale,
    vim,
    vra,
    weiper,
)
from dream_jax.detector.detectors.base import Detector, FitData

DETECTORS: dict[str, Detector] = {
    d.name: d
    for d in (
        logits.MSP,
        logits.MAX_LOGIT,
        logits.ENERGY,
        odin.ODIN,
        gaussian.MAHALANOBIS,
        knn.KNN,
        vim.VIM,
        react.REACT,
        dice.DICE,
        logits.GEN,
        ash.ASH_S,
        she.SHE,
        kl_matching.KL_MATCHING,
        gaussian.RMD,
        nnguide.NNGUIDE,
        temp_scale.TEMP_SCALE,
        gradnorm.GRADNORM,
        gram.GRAM,
        rankfeat.RANKFEAT,
        residual.RESIDUAL,
        gmm.GMM,
        knn_chosen.KNN_CHOSEN,
        ash.ASH_P,
        ash.ASH_B,
        vra.VRA,
        relation.RELATION,
        nac_ue.NAC_UE,
        scale.SCALE,
        fdbd.FDBD,
        weiper.WEIPER,
        nci.NCI,
        deconf.DECONF,
        phi.PHI,
    )
}

__all__ = ["DETECTORS", "Detector", "FitData"]
