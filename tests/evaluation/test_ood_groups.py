"""Groups of OOD sets in a finished run: their means, tables and figures."""

import numpy as np
import pytest

from dream_jax import load_run, pipeline
from dream_jax.checks import check
from dream_jax.evaluation.metrics import ood_metrics
from dream_jax.files import read_json, read_npz, write_json
from dream_jax.record import seal


def test_near_and_far_sets_of_a_run_and_its_full_spectrum(toy, copied_run):
    """An evaluation is made again for other groups of the same sets; trainings are kept."""
    workdir = copied_run()
    before = read_json(workdir / "metrics.json")
    config = toy.config()
    config.data.update(ood=(), near=("faces",), far=("letters",))
    config.data.update(shifted=("blur",), full_spectrum=True)
    pipeline.run(config, workdir)
    metrics = read_json(workdir / "metrics.json")
    assert metrics["groups"] == {"near": ["faces"], "far": ["letters"]}
    for key, entry in metrics["methods"].items():
        assert entry["groups"] == {"near": entry["ood"]["faces"], "far": entry["ood"]["letters"]}
        assert list(entry["ood"]) == ["faces", "letters", "mean"]
        for name, numbers in before["methods"][key]["ood"].items():
            assert entry["ood"][name] == pytest.approx(numbers)
    check_full_spectrum(workdir, metrics["methods"])
    of_rows = metrics["bootstrap"]["rows"]["auroc"]
    assert of_rows["near"] == of_rows["faces"]

    page = (workdir / "report" / "index.html").read_text()
    for words in ("near mean", "far mean", "on near OOD sets", "mean over far OOD sets"):
        assert words in page
    assert "By OpenOOD" in page and "far mean, full" in page
    for name in ("openood.tex", "spectrum.tex"):
        assert "near mean" in (workdir / "report" / name).read_text()
    assert (workdir / "report" / "comparison_near.png").is_file()
    frame = load_run(workdir).metrics
    assert np.allclose(frame["near", "auroc"], frame["faces", "auroc"])
    full = metrics["methods"]["energy"]["full_spectrum"]
    found = frame["full spectrum: near", "fpr95"].loc["energy"].item()
    assert found == full["ood"]["faces"]["fpr95"]


def check_full_spectrum(workdir, methods):
    """Measures are those of all scores that were written, ID and shifted together."""
    for key, training in (("energy", "cross_entropy"), ("dream_ood", "dream_ood")):
        folder, full = workdir / "evaluation" / training, methods[key]["full_spectrum"]
        (file,) = folder.glob("scores_*.npz")
        own, shifted = read_npz(file), read_npz(folder / "full_spectrum" / file.name)
        assert list(shifted) == [f"blur_{strength}" for strength in range(1, 6)]
        scores = np.concatenate([own["id"], *shifted.values()])
        assert full["groups"]["near"] == ood_metrics(scores, own["faces"])
        right = [
            read_npz(where / "predictions.npz")[name] == label
            for where in (folder, folder / "full_spectrum")
            for name, label in read_npz(where / "labels.npz").items()
        ]
        assert full["id_accuracy"] == pytest.approx(np.mean(np.concatenate(right)))
        assert methods[key]["id_accuracy"] == pytest.approx(np.mean(right[0]))


def test_a_run_made_before_there_were_groups(copied_run, toy):
    """Its configuration and records lack the fields, which changes nothing."""
    workdir = copied_run()
    config = read_json(workdir / "config.json")
    for field in ("near", "far"):
        del config["data"][field]
    write_json(workdir / "config.json", seal(config))
    run = load_run(workdir)
    assert run.settings.data.near == () and ("mean", "auroc") in run.metrics
    begun = pipeline.make_run(check(toy.config()), workdir)
    record = begun.record("evaluate cross_entropy")
    assert "data.ood" in record.settings and "data.near" not in record.settings
    assert all(begun.done(name) for name in begun.stages)
