"""OOD metrics against the golden file and against counting, threshold by threshold."""

from pathlib import Path

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.evaluation.metrics import (
    METRICS,
    fraction_kept,
    mean_over_sets,
    ood_metrics,
    risk_coverage_area,
    threshold_at_tpr,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.npz"


def area_counted(positive, negative):
    """Average precision and the area by trapezoids, and the points that they are of."""
    points = [(0.0, 1.0)]
    for threshold in np.unique(np.concatenate([positive, negative]))[::-1]:
        true, false = np.sum(positive >= threshold), np.sum(negative >= threshold)
        points.append((true / len(positive), true / (true + false)))
    steps = list(zip(points[1:], points[:-1], strict=True))
    average = sum((recall - before) * precision for (recall, precision), (before, _) in steps)
    trapezoid = sum((r - r0) * (p + p0) / 2 for (r, p), (r0, p0) in steps)
    return float(average), float(trapezoid)


def counted(id_scores, ood_scores):
    """The same numbers by their definitions: loops over thresholds and pairs."""
    points = []
    for threshold in np.unique(np.concatenate([id_scores, ood_scores]))[::-1]:
        true, false = np.sum(id_scores >= threshold), np.sum(ood_scores >= threshold)
        points.append((true / len(id_scores), false / len(ood_scores), true / (true + false)))
        if true == len(id_scores):
            break
    nearest = min(abs(tpr - 0.95) for tpr, _, _ in points)
    tpr95 = max(tpr for tpr, _, _ in points if abs(tpr - 0.95) == nearest)
    pairs = id_scores[:, None] - ood_scores[None]
    gained = np.diff([0.0] + [tpr for tpr, _, _ in points])
    return {
        "fpr95": max(fpr for tpr, fpr, _ in points if tpr == tpr95),
        "auroc": np.mean(pairs > 0) + 0.5 * np.mean(pairs == 0),
        "aupr_in": float(np.sum(gained * [precision for _, _, precision in points])),
        "fpr95_out": fpr95_out_counted(id_scores, ood_scores),
        "aupr_in_trapezoid": area_counted(id_scores, ood_scores)[1],
        "aupr_out": area_counted(-ood_scores, -id_scores)[0],
        "aupr_out_trapezoid": area_counted(-ood_scores, -id_scores)[1],
    }


def fpr95_out_counted(id_scores, ood_scores):
    """The least share of ID images at or below a score that has 95 % of OOD images at or below."""
    for threshold in np.unique(np.concatenate([id_scores, ood_scores])):
        if np.mean(ood_scores <= threshold) >= 0.95:
            return float(np.mean(id_scores <= threshold))


def aurc_counted(scores, wrong, orders):
    """The mean over orders of equal scores of the mean error rate of the k that are kept."""
    found = []
    for _ in range(orders):
        shuffled = np.random.default_rng(len(found)).permutation(len(scores))
        order = shuffled[np.argsort(-scores[shuffled], kind="stable")]
        found.append(np.mean([np.mean(wrong[order[:k]]) for k in range(1, len(scores) + 1)]))
    return np.mean(found)


def test_golden():
    golden = np.load(GOLDEN)
    result = ood_metrics(golden["id_scores"], golden["ood_scores"])
    assert tuple(result) == METRICS
    for key in ("fpr95", "auroc", "aupr_in"):
        assert result[key] == pytest.approx(golden[key].item(), abs=1e-9), key


@pytest.mark.parametrize("decimals", [12, 1, 0], ids=["no-ties", "ties", "mostly-ties"])
@pytest.mark.parametrize("n_id, n_ood", [(200, 150), (20, 31), (33, 7), (7, 40), (1, 1)])
def test_against_counting(n_id, n_ood, decimals):
    rng = np.random.default_rng(n_id)
    id_scores = rng.normal(1.0, 1.0, n_id).round(decimals)
    ood_scores = rng.normal(0.0, 1.5, n_ood).round(decimals)
    expected = counted(id_scores, ood_scores)
    assert ood_metrics(id_scores, ood_scores) == pytest.approx(expected, abs=1e-12)


def test_extremes():
    low, high = np.arange(40.0), np.arange(100.0, 140.0)
    best = {key: float("fpr" not in key) for key in METRICS}
    assert ood_metrics(high, low) == best
    reversed_ = ood_metrics(low, high)
    assert (reversed_["fpr95"], reversed_["auroc"]) == (1.0, 0.0)
    constant = ood_metrics(np.zeros(30), np.zeros(10))
    expected = {"fpr95": 1.0, "fpr95_out": 1.0, "auroc": 0.5, "aupr_in": 0.75, "aupr_out": 0.25}
    # A line from precision 1 at recall 0.
    expected |= {"aupr_in_trapezoid": 0.875, "aupr_out_trapezoid": 0.625}
    assert constant == pytest.approx(expected)


def test_the_positive_class_makes_a_difference():
    """1 of 3 OOD images lies above all ID images, and 3 of 6 ID images above the others."""
    found = ood_metrics(np.array([6, 5, 4, 2, 1, 0.0]), np.array([9.0, 3.0, 3.0]))
    assert (found["fpr95"], found["fpr95_out"]) == (1.0, 1.0)
    found = ood_metrics(np.array([6, 5, 4, 2, 1, 0.0]), np.array([3.0, 3.0, 3.0]))
    assert (found["fpr95"], found["fpr95_out"]) == (1.0, 0.5)


@pytest.mark.parametrize("decimals", [12, 0], ids=["no-ties", "ties"])
def test_aurc_against_counting(decimals):
    rng = np.random.default_rng(decimals)
    scores, wrong = rng.normal(size=30).round(decimals), rng.uniform(size=30) < 0.3
    expected = aurc_counted(scores, wrong, 1 if decimals else 4000)
    assert risk_coverage_area(scores, wrong) == pytest.approx(expected, abs=4e-3 / (1 + decimals))
    order = rng.permutation(30)
    assert risk_coverage_area(scores[order], wrong[order]) == pytest.approx(
        risk_coverage_area(scores, wrong), abs=1e-12
    )


def test_aurc_of_known_orders():
    wrong = np.array([False, False, False, True])
    assert risk_coverage_area([4, 3, 2, 1], wrong) == pytest.approx(1 / 16)
    assert risk_coverage_area([1, 2, 3, 4], wrong) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert risk_coverage_area(np.zeros(4), wrong) == pytest.approx(1 / 4)  # the error rate
    assert risk_coverage_area([1.0, 2.0], [False, False]) == 0.0
    with pytest.raises(UserError, match="4 of them, and 3"):
        risk_coverage_area(np.zeros(4), wrong[:3])
    with pytest.raises(UserError, match="1 of 2 are NaN or infinite"):
        risk_coverage_area([np.inf, 0.0], [True, False])


def test_few_id_images_far_above_the_outliers_have_no_false_positives():
    # The point nearest to 95 % is then all of the ID images, at the highest threshold keeping them.
    assert ood_metrics(np.array([5.0, 6.0, 7.0]), np.zeros(50))["fpr95"] == 0.0


def test_scores_need_not_be_float64_or_flat():
    id_scores = np.arange(20, dtype=np.float32).reshape(20, 1)
    assert ood_metrics(id_scores, list(range(-5, 5)))["auroc"] == pytest.approx(0.9375)


def test_threshold_and_fraction_kept():
    id_scores = np.arange(100.0)
    assert threshold_at_tpr(id_scores) == 5.0
    assert fraction_kept(id_scores, id_scores) == 0.95
    assert fraction_kept(id_scores, [4.9, 5.0, 5.1, 1e9]) == 0.75
    assert fraction_kept(id_scores, id_scores, tpr=0.55) == 0.55  # 0.55 * 100 > 55 in floats
    assert fraction_kept(id_scores, [0.0], tpr=1.0) == 1.0
    # With ties at the threshold more are kept, never fewer.
    assert threshold_at_tpr([0.0, 1.0, 1.0, 1.0], tpr=0.5) == 1.0


@pytest.mark.parametrize("bad", [[], [np.nan, 1.0], [np.inf], [-np.inf, 0.0]])
@pytest.mark.parametrize("measure", [ood_metrics, fraction_kept])
def test_bad_scores_are_refused(measure, bad):
    good = np.linspace(0, 1, 10)
    for arguments in [(bad, good), (good, bad)]:
        with pytest.raises(UserError, match=r"scores.*: (empty|\d+ of \d+ are NaN or infinite)"):
            measure(*arguments)


def test_mean_over_sets():
    row = dict.fromkeys(METRICS, 0.2) | {"auroc": 0.9}
    other = dict.fromkeys(METRICS, 0.4) | {"auroc": 0.7}
    expected = dict.fromkeys(METRICS, 0.3) | {"auroc": 0.8}
    assert mean_over_sets({"letters": row, "faces": other}) == pytest.approx(expected)
    with pytest.raises(UserError, match="OOD sets"):
        mean_over_sets({})
