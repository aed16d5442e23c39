"""Mean and deviation over seeds against the statistics module."""

import statistics

import pytest

from dream_jax.errors import UserError
from dream_jax.evaluation.seeds import summarise


def entry(a, b):
    ood = {"letters": {"fpr95": a}, "mean": {"fpr95": b}}
    return {"id_accuracy": a / 2, "kept": {}, "ood": ood, "shifted": {"blur": {"5": b, "mean": b}}}


RUNS = {
    3: {"x": entry(0.1, 0.5), "y": entry(0.2, 0.2)},
    1: {"x": entry(0.4, 0.6), "y": entry(0, 1)},
    2: {"x": entry(0.3, 0.1), "y": entry(1, 0)},
}


def test_mean_and_sample_deviation():
    summary = summarise(RUNS)
    assert list(summary) == ["methods", "std", "by_seed"]
    assert list(summary["methods"]) == list(summary["std"]) == ["x", "y"]
    for row in "xy":
        for part, statistic in (("methods", statistics.mean), ("std", statistics.stdev)):
            found = summary[part][row]
            for path in [("id_accuracy",), ("ood", "letters", "fpr95"), ("shifted", "blur", "5")]:
                numbers, value = [run[row] for run in RUNS.values()], found
                for key in path:
                    numbers, value = [number[key] for number in numbers], value[key]
                assert value == pytest.approx(statistic(numbers), abs=1e-12)
            assert found["kept"] == {}
    assert summary["by_seed"] == {str(seed): rows for seed, rows in RUNS.items()}


def test_one_seed_has_no_deviation():
    assert summarise({7: RUNS[1]}) == {"methods": RUNS[1], "by_seed": {"7": RUNS[1]}}


def test_unequal_seeds_are_refused():
    with pytest.raises(UserError, match="seeds: none"):
        summarise({})
    with pytest.raises(UserError, match="seed 2: y: not in all seeds"):
        summarise({1: RUNS[1], 2: {"x": RUNS[2]["x"]}})
    other = {**RUNS[2]["x"], "ood": {"letters": {"fpr95": 0.1}}}
    with pytest.raises(UserError, match="seed 2: x: ood: mean: not in all seeds"):
        summarise({1: {"x": RUNS[1]["x"]}, 2: {"x": other}})
    nested = {**RUNS[2]["x"], "id_accuracy": {"mean": 0.5}}
    with pytest.raises(UserError, match="seed 2: x: id_accuracy: a number and a group"):
        summarise({1: {"x": RUNS[1]["x"]}, 2: {"x": nested}})
