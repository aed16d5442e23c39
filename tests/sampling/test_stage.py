"""Stage "sample": what it says about the embeddings that it has made."""

import json
import re

import pytest

from dream_jax import pipeline
from dream_jax.files import read_npz
from dream_jax.variety import leaders

DOWNSTREAM = ("embeddings", "images/outliers", "classifier", "evaluation", "report", "metrics.json")


@pytest.mark.parametrize(
    ("changes", "collapsed"),
    [
        # All candidates around a feature are the feature, so only features are different.
        ({"scale": 1e-4, "rounds": 12}, True),
        # Nearly random choices among vectors that are far from each other.
        ({"scale": 2.0, "noise": "shared", "selection": "published"}, False),
    ],
)
def test_a_run_whose_embeddings_collapse_says_so(toy, copied_run, capsys, changes, collapsed):
    workdir, config = copied_run(*DOWNSTREAM), toy.config()
    config.sampling.update(changes)
    pipeline.run(config, workdir, ("sample",))
    said = re.findall(r"^warning: (.*)$", capsys.readouterr().out, re.MULTILINE)
    made = read_npz(workdir / "embeddings" / "outliers.npz")["embeddings"]
    distinct = [int(leaders(own).sum()) for own in made]
    share = [own / made.shape[1] for own in distinct]
    assert (max(share) < 0.25) if collapsed else (min(share) >= 0.25), share
    assert len(said) == collapsed
    if collapsed:
        expected = f"of 10 of 10 classes have collapsed: of the {made.shape[1]} of class '"
        assert expected in said[0] and f"only {min(distinct)} are different" in said[0]
    assert json.loads((workdir / "embeddings" / "stage.json").read_text())["done"]
