"""The bootstrap against metrics.py on images repeated as often as they were drawn."""

import functools
import json
import tracemalloc

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.evaluation.bootstrap import IdResamples, difference, paired_bootstrap
from dream_jax.evaluation.metrics import ood_metrics


def normal_scores(rng, shift, n, m, decimals=12):
    return rng.normal(shift, 1, n).round(decimals), rng.normal(0, 1.5, m).round(decimals)


@pytest.mark.parametrize("decimals", [12, 1, 0], ids=["no-ties", "ties", "mostly-ties"])
@pytest.mark.parametrize("n, m", [(200, 150), (20, 31), (10, 9), (33, 7), (7, 40), (1, 1)])
def test_resamples_are_the_metrics_of_repeated_images(n, m, decimals):
    rng = np.random.default_rng(n)
    id_scores, ood_scores = normal_scores(rng, 1, n, m, decimals)
    counts = [rng.multinomial(k, np.full(k, 1 / k), 40).T for k in (n, m)]
    counts[0][:, 0] = counts[1][:, 0] = 1
    fpr95, auroc = IdResamples.of(id_scores, counts[0]).against(ood_scores, counts[1])
    for b in range(40):
        repeated = [
            np.repeat(s, c[:, b]) for s, c in zip((id_scores, ood_scores), counts, strict=True)
        ]
        expected = ood_metrics(*repeated)
        assert fpr95[b] == expected["fpr95"]
        assert auroc[b] == pytest.approx(expected["auroc"], abs=1e-12)
    # Everything drawn once.
    assert fpr95[0] == ood_metrics(id_scores, ood_scores)["fpr95"]


def some_scores(seeds=2, n=60, m=50):
    rng = np.random.default_rng(0)
    scores = {seed: {} for seed in range(seeds)}
    for rows in scores.values():
        for row, shift in (("plain", 0.5), ("good", 2.0), ("coarse", 1.0)):
            inside, letters = normal_scores(rng, shift, n, m, 0 if row == "coarse" else 12)
            rows[row] = {"id": inside, "letters": letters, "faces": rng.normal(0.5, 1, 20)}
    return scores


def test_bootstrap_is_the_loop_over_resamples(monkeypatch):
    """The same draws, made and measured one by one, for pairs, sets, their mean and two seeds."""
    scores = some_scores()
    taken = []

    class Recorded:
        def __init__(self, key):
            self.rng = np.random.Generator(np.random.PCG64(key))

        def multinomial(self, *arguments):
            taken.append(self.rng.multinomial(*arguments))
            return taken[-1]

    monkeypatch.setattr("dream_jax.evaluation.bootstrap.BLOCK", 12)
    monkeypatch.setattr("numpy.random.default_rng", Recorded)
    result = paired_bootstrap(scores, ["letters", "faces"], resamples=16, level=0.8, seed=3)
    assert [len(t) for t in taken] == [12] * 3 + [4] * 3
    draws = {name: np.concatenate(taken[i::3]) for i, name in enumerate(("id", "letters", "faces"))}

    @functools.cache
    def measured(row, name, b=None):
        if name == "mean":
            values = [measured(row, k, b) for k in ("letters", "faces")]
        else:
            values = []
            for rows in scores.values():
                of = {
                    k: v if b is None else np.repeat(v, draws[k][b]) for k, v in rows[row].items()
                }
                values.append(ood_metrics(of["id"], of[name]))
        return {k: np.mean([v[k] for v in values]) for k in ("fpr95", "auroc")}

    names = list(scores[0])
    for metric in ("fpr95", "auroc"):
        for name in ("letters", "faces", "mean"):
            value = {r: measured(r, name)[metric] for r in names}
            sample = {r: np.array([measured(r, name, b)[metric] for b in range(16)]) for r in names}
            for i, row in enumerate(names):
                expected = [value[row], *np.percentile(sample[row], [10, 90])]
                assert result["rows"][metric][name][row] == pytest.approx(expected, abs=1e-6)
                for other in names[i + 1 :]:
                    between = sample[row] - sample[other]
                    expected = [value[row] - value[other], *np.percentile(between, [10, 90])]
                    found = result["differences"][metric][name][row][other]
                    assert found == pytest.approx(expected, abs=1e-6)
                    turned = [-expected[0], -expected[2], -expected[1]]
                    assert difference(result, metric, name, other, row) == pytest.approx(
                        turned, abs=1e-6
                    )


def test_groups_are_means_of_their_sets_and_change_nothing_else():
    scores, sets = some_scores(), ["letters", "faces"]
    alone = paired_bootstrap(scores, sets, resamples=30)
    groups = {"near": ["faces"], "far": ["faces", "letters"]}
    found = paired_bootstrap(scores, sets, groups, resamples=30)
    for part in ("rows", "differences"):
        for metric, of_sets in alone[part].items():
            own = found[part][metric]
            assert list(own) == ["letters", "faces", "near", "far", "mean"]
            assert {name: own[name] for name in of_sets} == of_sets
            assert own["near"] == own["faces"] and own["far"] == own["mean"]
            assert own["near"] != own["mean"]


def test_draws_depend_on_the_seed_and_not_on_rows_sets_or_blocks(monkeypatch):
    scores = some_scores()
    first = paired_bootstrap(scores, ["letters", "faces"], resamples=30, seed=1)
    assert json.loads(json.dumps(first)) == first
    monkeypatch.setattr("dream_jax.evaluation.bootstrap.BLOCK", 7)
    turned = {seed: dict(reversed(rows.items())) for seed, rows in reversed(scores.items())}
    other = paired_bootstrap(turned, ["faces"], resamples=30, seed=1)
    for metric in ("fpr95", "auroc"):
        for row in scores[0]:
            expected = first["rows"][metric]["faces"][row]
            assert other["rows"][metric]["faces"][row] == pytest.approx(expected, abs=2e-6)
        found = difference(other, metric, "faces", "plain", "good")
        assert found == pytest.approx(difference(first, metric, "faces", "plain", "good"), abs=2e-6)
    assert paired_bootstrap(scores, ["letters", "faces"], resamples=30, seed=2) != first


def test_memory_does_not_grow_with_the_number_of_images(monkeypatch):
    monkeypatch.setattr("dream_jax.evaluation.bootstrap.CELLS", 100_000)
    rng, peaks = np.random.default_rng(0), []
    for count in (1_000, 4_000):
        scores = {0: {"row": {"id": rng.normal(size=count), "ood": rng.normal(size=count)}}}
        tracemalloc.start()
        paired_bootstrap(scores, ["ood"], resamples=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_intervals_tell_a_better_row_and_not_an_equal_one():
    """Of 40 experiments 95 % intervals of equal rows should have 0 inside about 38 times."""
    inside, found = 0, 0
    for experiment in range(40):
        rng = np.random.default_rng(experiment)
        id_truth, ood_truth = rng.normal(2, 1, 300), rng.normal(0, 1, 300)
        noisy = lambda noise: {  # noqa: E731
            "id": id_truth + noise * rng.normal(size=300),  # noqa: B023
            "sky": ood_truth + noise * rng.normal(size=300),  # noqa: B023
        }
        scores = {0: {"one": noisy(1.0), "two": noisy(1.0), "better": noisy(0.1)}}
        result = paired_bootstrap(scores, ["sky"], resamples=200, seed=experiment)
        _, low, high = difference(result, "auroc", "mean", "one", "two")
        inside += low <= 0 <= high
        found += difference(result, "auroc", "mean", "better", "one")[1] > 0
    assert 35 <= inside < 40
    assert found >= 38


def test_pairing_makes_intervals_narrower():
    rng = np.random.default_rng(0)
    of = {"id": rng.normal(1, 1, 200), "sky": rng.normal(0, 1, 200)}
    near = {name: s + rng.normal(0, 0.1, 200) for name, s in of.items()}
    result = paired_bootstrap({0: {"one": of, "two": near}}, ["sky"], resamples=200)
    _, low, high = result["rows"]["auroc"]["sky"]["one"]
    _, low_of_pair, high_of_pair = result["differences"]["auroc"]["sky"]["one"]["two"]
    assert high_of_pair - low_of_pair < (high - low) / 3


def test_bad_scores_are_refused():
    scores = some_scores()
    with pytest.raises(UserError, match="no OOD set"):
        paired_bootstrap(scores, [])
    with pytest.raises(UserError, match="no scores"):
        paired_bootstrap({}, ["letters"])
    with pytest.raises(UserError, match="0 resamples"):
        paired_bootstrap(scores, ["letters"], resamples=0)
    with pytest.raises(UserError, match="seed 0: plain: sky: no scores"):
        paired_bootstrap(scores, ["sky"])
    scores[1]["good"] = scores[1]["good"] | {"letters": np.zeros(49)}
    with pytest.raises(UserError, match="seed 1: good: letters: 49 scores; other rows have 50"):
        paired_bootstrap(scores, ["letters"])
    scores[1]["good"]["letters"] = np.full(50, np.nan)
    with pytest.raises(UserError, match="finite"):
        paired_bootstrap(scores, ["letters"])
    del scores[1]["good"]
    with pytest.raises(UserError, match="seed 1: all seeds need the same rows; unpaired: good"):
        paired_bootstrap(scores, ["letters"])
