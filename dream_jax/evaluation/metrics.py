"""How well scores tell ID from OOD: FPR at 95 % TPR, AUROC and AUPR, and a classifier's AURC.

Everywhere a higher score means more in-distribution (ID), and every result is a fraction in
[0, 1]. A measure that depends on which side is the positive class says so by its name: `_out` is
with OOD as the positive class, as OpenOOD measures FPR at 95 % TPR; the others are with ID, as the
paper does. Images of equal scores pass a threshold together.
"""

from collections.abc import Mapping

import numpy as np

from dream_jax.errors import UserError

METRICS = (
    *("fpr95", "auroc", "aupr_in", "aupr_out", "fpr95_out"),
    *("aupr_in_trapezoid", "aupr_out_trapezoid"),
)


def ood_metrics(id_scores, ood_scores) -> dict[str, float]:
    """FPR95, AUROC and AUPR of one OOD set, in the paper's definitions and in OpenOOD's.

    Args:
        id_scores: (n,) scores of ID test images.
        ood_scores: (m,) scores of OOD test images.

    Returns:
        `METRICS`. `fpr95` is the share of OOD images that are kept with 95 % of ID images. It is
        read where the TPR is nearest to 0.95, at the lowest threshold that has this TPR, as in the
        authors' published code. `fpr95_out` is the share of ID images that are refused with 95 % of
        OOD images, read at the first threshold with a TPR of at least 0.95, as in OpenOOD.
        `aupr_in` and `aupr_out` are average precisions, with ID and with OOD as the positive class,
        and `aupr_in_trapezoid` and `aupr_out_trapezoid` areas under precision and recall by
        trapezoids, which are OpenOOD's.

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
    refused, found, _ = roc_curve(~is_id, -scores, drop_intermediate=False)
    return {
        "fpr95": float(fpr[np.argmin(np.abs(tpr - 0.95))]),
        "auroc": float(roc_auc_score(is_id, scores)),
        "aupr_in": float(average_precision_score(is_id, scores)),
        "aupr_out": float(average_precision_score(~is_id, -scores)),
        "fpr95_out": float(refused[np.argmax(found >= 0.95)]),
        "aupr_in_trapezoid": _area(is_id, scores),
        "aupr_out_trapezoid": _area(~is_id, -scores),
    }


def _area(positive, scores) -> float:
    """The area under precision as a function of recall, by trapezoids."""
    from sklearn.metrics import auc, precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    return float(auc(recall, precision))


def risk_coverage_area(scores, wrong) -> float:
    """AURC: the error rate of the images that are kept, over all shares of them that can be kept.

    For each k the error rate of the k images with the highest scores is taken, and of these the
    mean. Of images with equal scores any may be kept first: the rate is the mean over their orders.

    Args:
        scores: (n,), higher is kept first.
        wrong: (n,) whether the classifier is wrong about an image.

    References:
        Geifman, Uziel and El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural
        Classifiers, ICLR 2019.

    Raises:
        UserError: the scores are empty or not finite, or the numbers of both differ.
    """
    scores = _checked(scores, "scores")
    wrong = np.asarray(wrong, np.float64).ravel()
    if wrong.size != scores.size:
        raise UserError(f"scores: {scores.size} of them, and {wrong.size} marks of what is wrong")
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    errors = np.bincount(group, weights=wrong) / sizes  # of an image of each score, on average
    return float(np.mean(np.cumsum(np.repeat(errors, sizes)) / np.arange(1, scores.size + 1)))


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
