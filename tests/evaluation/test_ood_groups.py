"""Groups of OOD sets in a finished run: their means, tables and figures."""

import numpy as np
import pytest

from dream_jax import load_run, pipeline
from dream_jax.checks import check
from dream_jax.files import read_json


def test_near_and_far_sets_of_a_run(toy, copied_run):
    """An evaluation is made again for other groups of the same sets; trainings are kept."""
    workdir = copied_run()
    before = read_json(workdir / "metrics.json")
    config = toy.config()
    config.data.update(ood=(), near=("faces",), far=("letters",))
    pipeline.run(config, workdir)
    metrics = read_json(workdir / "metrics.json")
    assert metrics["groups"] == {"near": ["faces"], "far": ["letters"]}
    for key, entry in metrics["methods"].items():
        assert entry["groups"] == {"near": entry["ood"]["faces"], "far": entry["ood"]["letters"]}
        assert list(entry["ood"]) == ["faces", "letters", "mean"]
        for name, numbers in before["methods"][key]["ood"].items():
            assert entry["ood"][name] == pytest.approx(numbers)
    of_rows = metrics["bootstrap"]["rows"]["auroc"]
    assert of_rows["near"] == of_rows["faces"]

    page = (workdir / "report" / "index.html").read_text()
    for words in ("near mean", "far mean", "on near OOD sets", "mean over far OOD sets"):
        assert words in page
    assert (workdir / "report" / "comparison_near.png").is_file()
    frame = load_run(workdir).metrics
    assert np.allclose(frame["near", "auroc"], frame["faces", "auroc"])


def test_a_run_made_before_there_were_groups(copied_run, toy):
    """Its configuration and records lack the fields, which changes nothing."""
    from dream_jax.files import write_json
    from dream_jax.record import seal

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
