"""OOD metrics against the golden file and against counting, threshold by threshold."""

from pathlib import Path

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.evaluation.metrics import (
    fraction_kept,
    mean_over_sets,
    ood_metrics,
    threshold_at_tpr,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.npz"


def counted(id_scores, ood_scores):
    """The same three numbers by their definitions: loops over thresholds and pairs."""
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
    }


def test_golden():
    golden = np.load(GOLDEN)
    result = ood_metrics(golden["id_scores"], golden["ood_scores"])
    assert set(result) == {"fpr95", "auroc", "aupr_in"}
    for key, value in result.items():
        assert value == pytest.approx(golden[key].item(), abs=1e-9), key


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
    assert ood_metrics(high, low) == {"fpr95": 0.0, "auroc": 1.0, "aupr_in": 1.0}
    reversed_ = ood_metrics(low, high)
    assert (reversed_["fpr95"], reversed_["auroc"]) == (1.0, 0.0)
    constant = ood_metrics(np.zeros(30), np.zeros(10))
    assert constant == pytest.approx({"fpr95": 1.0, "auroc": 0.5, "aupr_in": 0.75})


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
    row = {"fpr95": 0.2, "auroc": 0.9, "aupr_in": 0.8}
    other = {"fpr95": 0.4, "auroc": 0.7, "aupr_in": 0.0}
    expected = {"fpr95": 0.3, "auroc": 0.8, "aupr_in": 0.4}
    assert mean_over_sets({"letters": row, "faces": other}) == pytest.approx(expected)
    with pytest.raises(UserError, match="OOD sets"):
        mean_over_sets({})
