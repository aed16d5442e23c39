"""What a finished run says of its outlier embeddings: metrics.json, the library and the page."""

import re

import numpy as np
import pandas as pd
import pytest

import dream_jax
from dream_jax import exploring
from dream_jax.files import read_json, read_npz
from dream_jax.settings import flatten


@pytest.fixture(scope="module")
def run(toy_run):
    return dream_jax.load_run(toy_run.workdir)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_metrics_have_the_embeddings_of_each_class(run, toy_run):
    measured = read_json(toy_run.workdir / "metrics.json")["embeddings"]
    assert tuple(measured["classes"]) == run.class_names
    assert (measured["count"], measured["grouped"], measured["placed"]) == (40, 40, 40)
    assert (measured["same_cosine"], measured["k"]) == (0.9, 10)
    for label, entry in enumerate(measured["classes"].values()):
        features = unit(run.features.features[run.features.labels == label].astype(np.float64))
        vectors = unit(run.embeddings[label].astype(np.float64))
        of = {"embeddings": vectors, "class": features}
        for name, some in of.items():
            d_k = np.sort(2 - 2 * some @ features.T, axis=1)[:, 9]
            found = [entry["d_k"][name][key] for key in ("median", "min", "max")]
            np.testing.assert_allclose(found, [np.median(d_k), d_k.min(), d_k.max()], atol=2e-6)
        # Embeddings are chosen to be farther than the ten features that are farthest.
        assert entry["d_k"]["boundary_set"]["max"] == entry["d_k"]["class"]["max"]
        assert entry["d_k"]["embeddings"]["median"] > entry["d_k"]["class"]["median"]
        nearest = (vectors @ features.T).max(1)
        assert entry["nearest_cosine"]["own_class"]["median"] == pytest.approx(
            np.median(nearest), abs=2e-6
        )
        assert entry["distinct_share"] == entry["distinct"] / 40
        assert 1 <= entry["effective_rank"] <= 32
    ranks = [entry["effective_rank"] for entry in measured["classes"].values()]
    assert measured["mean"]["effective_rank"] == pytest.approx(np.mean(ranks))


def test_the_library_measures_the_same(run, toy_run):
    stored = read_json(toy_run.workdir / "metrics.json")["embeddings"]["classes"]
    expected = pd.DataFrame([flatten(entry) for entry in stored.values()], index=[*stored])
    found = exploring.variety(run)
    assert found.index.name == "class"
    pd.testing.assert_frame_equal(
        found, expected[found.columns], check_names=False, atol=1e-6, rtol=1e-6
    )


def test_there_is_one_d_k(run, toy_run):
    """Of the gallery, the notebooks and the table: the squared distance on the unit sphere."""
    of_images = read_npz(toy_run.workdir / "evaluation" / "outliers" / "outliers.npz")["d_k"]
    of_table, (_, labels) = exploring.variety(run), run.images("outliers")
    for label, name in enumerate(run.class_names):
        found = exploring.distances(run, run.embeddings[label], label)
        assert np.median(found) == pytest.approx(of_table.loc[name, "d_k.embeddings.median"])
        for own in of_images[labels == label]:
            assert np.abs(found - own).min() < 1e-6


def test_the_page_has_a_line_for_each_class(run, toy_run):
    page = (toy_run.workdir / "report" / "index.html").read_text()
    section = page[page.index('<h2 id="embeddings">') :]
    lines = re.findall(r'<tr><th scope="row">([^<]+)</th>', section[: section.index("</section>")])
    assert lines == ["median of all classes", *run.class_names]
