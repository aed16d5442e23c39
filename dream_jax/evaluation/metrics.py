"""How well scores tell ID from OOD: FPR at 95 % TPR, AUROC and AUPR, as the paper measures them.

Everywhere a higher score means more in-distribution (ID), ID is the positive class, and every
result is a fraction in [0, 1].
"""

from collections.abc import Mapping

import numpy as np

from dream_jax.errors import UserError

METRICS = ("fpr95", "auroc", "aupr_in")


def ood_metrics(id_scores, ood_scores) -> dict[str, float]:
    """FPR95, AUROC and AUPR of one OOD set.

    Args:
        id_scores: (n,) scores of ID test images.
        ood_scores: (m,) scores of OOD test images.

    Returns:
        {"fpr95", "auroc", "aupr_in"}. `fpr95` is read where the TPR is nearest to 0.95, at the
        lowest threshold that has this TPR, as in the authors' published code; `aupr_in` is the
        average precision.

    Raises:
        UserError: either array is empty, not of the shape (n,), or holds a NaN or an infinity.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    id_scores = _checked(id_scores, "ID scores")
    ood_scores = _checked(ood_scores, "OOD scores")
    scores = np.concatenate([id_scores, ood_scores])
    is_id = np.arange(scores.size) < id_scores.size

    fpr, tpr, _ = roc_curve(is_id, scores, drop_intermediate=False)
    # Beyond the first point that keeps every ID image a lower threshold only adds false positives.
    end = np.searchsorted(tpr, 1.0) + 1
    # Reversed, so that of points with the same TPR the lowest threshold is the one found.
    fpr, tpr = fpr[:end][::-1], tpr[:end][::-1]
    return {
        "fpr95": float(fpr[np.argmin(np.abs(tpr - 0.95))]),
        "auroc": float(roc_auc_score(is_id, scores)),
        "aupr_in": float(average_precision_score(is_id, scores)),
    }


def threshold_at_tpr(id_scores, tpr: float = 0.95) -> float:
    """The highest threshold at or above which at least a share `tpr` of (n,) `id_scores` lies.

    Raises:
        UserError: the scores are empty or not finite.
    """
    id_scores = np.sort(_checked(id_scores, "ID scores"))
    # 0.55 * 100 is 55.00000000000001: without the slack its ceiling would ask for one too many.
    kept = max(1, int(np.ceil(tpr * id_scores.size - 1e-9)))
    return float(id_scores[id_scores.size - kept])


def fraction_kept(id_scores, other_scores, tpr: float = 0.95) -> float:
    """Share of `other_scores` (m,) that pass the threshold keeping `tpr` of `id_scores` (n,).

    For decoded ID images: near `tpr` if the classifier takes them for what they show, near 0 if
    it has learnt the decoder's traces instead.

    Raises:
        UserError: either array is empty or not finite.
    """
    other_scores = _checked(other_scores, "scores to compare")
    return float(np.mean(other_scores >= threshold_at_tpr(id_scores, tpr)))


def mean_over_sets(per_set: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The unweighted mean of each metric over the OOD sets, as in the paper's tables.

    Raises:
        UserError: there is no OOD set.
    """
    if not per_set:
        raise UserError("OOD sets: none was measured; at least one is needed for a mean")
    return {key: float(np.mean([row[key] for row in per_set.values()])) for key in METRICS}


def _checked(scores, what: str) -> np.ndarray:
    try:
        scores = np.asarray(scores, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{what}: cannot be made an array of numbers ({error})") from error
    if not scores.ndim or scores.size != max(scores.shape):
        raise UserError(f"{what}: have the shape {scores.shape}; it must be (n,)")
    scores = scores.ravel()
    if scores.size == 0:
        raise UserError(f"{what}: empty; at least one score is needed")
    if bad := int(np.count_nonzero(~np.isfinite(scores))):
        raise UserError(f"{what}: {bad} of {scores.size} are NaN or infinite; all must be finite")
    return scores
