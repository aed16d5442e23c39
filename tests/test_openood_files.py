"""A run's scores and measures as OpenOOD's files, measured again as its evaluator does."""

import csv

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from dream_jax.errors import UserError
from dream_jax.files import read_npz
from dream_jax.openood_files import COLUMNS, export

SETS = {"letters", "faces", "digits_small"}


def by_openood(own: dict, other: dict) -> list[float]:
    """The columns of ood.csv from two score files: OOD is positive, areas by trapezoids."""
    conf = np.concatenate([own["conf"], other["conf"]])
    is_ood = np.concatenate([own["label"], other["label"]]) == -1
    fpr, tpr, _ = roc_curve(is_ood, -conf)
    precision_in, recall_in, _ = precision_recall_curve(~is_ood, conf)
    precision_out, recall_out, _ = precision_recall_curve(is_ood, -conf)
    numbers = [fpr[np.argmax(tpr >= 0.95)], auc(fpr, tpr)]
    numbers += [auc(recall_in, precision_in), auc(recall_out, precision_out)]
    return [*numbers, np.mean(own["pred"] == own["label"])]


def lines(path) -> dict[str, list[str]]:
    heading, *found = csv.reader(path.read_text("utf-8").splitlines())
    assert heading[1:] == [*COLUMNS, "ACC"]
    return {name: numbers for name, *numbers in found}


def test_files_are_openoods(toy_run, tmp_path):
    folder = export(str(toy_run.workdir), "", str(tmp_path / "scores"))
    assert {path.name for path in folder.iterdir()} == {"energy", "dream_ood"}
    for row in folder.iterdir():
        files = {path.stem: read_npz(path) for path in (row / "s0" / "scores").glob("*.npz")}
        assert set(files) == SETS
        assert all(set(file) == {"pred", "conf", "label"} for file in files.values())
        assert all(np.all(files[name]["label"] == -1) for name in ("letters", "faces"))
        measured, over_seeds = lines(row / "s0" / "ood.csv"), lines(row / "ood.csv")
        assert list(measured) == list(over_seeds) == ["letters", "faces", "ood"]
        expected = {n: by_openood(files["digits_small"], files[n]) for n in ("letters", "faces")}
        expected["ood"] = np.mean(list(expected.values()), axis=0)
        for name, numbers in expected.items():
            assert measured[name] == [f"{100 * number:.2f}" for number in numbers]
            assert over_seeds[name] == [f"{100 * number:.2f} ± 0.00" for number in numbers]


def test_one_row_with_the_other_sign(toy_run, tmp_path):
    one = export(str(toy_run.workdir), "energy", str(tmp_path / "id"))
    other = export(str(toy_run.workdir), "energy", str(tmp_path / "ood"), higher_is_ood=True)
    for name in SETS:
        same, turned = (
            read_npz(f / "energy" / "s0" / "scores" / f"{name}.npz") for f in (one, other)
        )
        assert np.array_equal(same["conf"], -turned["conf"])
        assert np.array_equal(same["pred"], turned["pred"])
    assert lines(one / "energy" / "ood.csv") == lines(other / "energy" / "ood.csv")


def test_bad_input_is_one_line(toy_run, copied_run, tmp_path):
    run = str(toy_run.workdir)
    (tmp_path / "old").mkdir()
    for arguments, said in (
        (("", "", "new"), "--run is not given"),
        ((run, "", ""), "--out is ''"),
        ((run, "", str(tmp_path / "old")), "must be a new folder"),
        ((run, "nope", str(tmp_path / "new")), "no row 'nope'"),
        ((str(tmp_path), "", str(tmp_path / "new")), "no folder of a run"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            export(*arguments)
        assert "\n" not in str(caught.value)
    workdir = copied_run("evaluation/cross_entropy/predictions.npz")
    with pytest.raises(UserError, match="evaluated by a version that did not keep"):
        export(str(workdir), "energy", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
