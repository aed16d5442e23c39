"""All embeddings of a class and of all classes: numbers, draws, padding, devices, and refusals."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.files import write_npz
from dream_jax.keys import stage_key
from dream_jax.sampling import rounds
from dream_jax.sampling.boundary import boundary_set
from dream_jax.sampling.classes import sample_classes
from dream_jax.sampling.published import published_round
from dream_jax.sampling.rounds import sample_embeddings
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.sampling.shared_noise import shared_round
from dream_jax.settings import InlierSettings, SamplingSettings
from dream_jax.vectors import unit_on_host as unit

SMALL = SamplerSettings(
    k=6, boundary=10, per_round=4, candidates=30, scale=0.2, keep=2, rounds=5, largest=True
)
SMALL_INLIERS = dataclasses.replace(SMALL, keep=1, scale=0.05, largest=False)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("settings", [SMALL, SMALL_INLIERS])
def test_embeddings_are_unit_vectors_of_the_asked_number(settings):
    features = 3 * normal(0, 24, 8)
    embeddings = sample_embeddings(features, jax.random.key(0), settings)
    assert embeddings.shape == (settings.rounds * 4 * settings.keep, 8)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    scaled = sample_embeddings(features * 2.0**70, jax.random.key(0), settings)
    np.testing.assert_array_equal(scaled, embeddings)
    other = sample_embeddings(features, jax.random.key(1), settings)
    assert np.abs(other - embeddings).max() > 1e-3


def test_a_round_draws_without_replacement_and_only_what_is_eligible():
    features = unit(normal(0, 24, 8))
    key = jax.random.key(0)

    def drawn(settings):
        # With hardly any noise a candidate is the feature that it was drawn around.
        settings = dataclasses.replace(settings, scale=1e-6, keep=1, rounds=40)
        points = sample_embeddings(features, key, settings, pad_to=30)
        index = (points @ features.T).argmax(axis=1)
        np.testing.assert_allclose(points, features[index], atol=1e-4)
        return index.reshape(40, -1)

    around_boundary = drawn(SMALL)
    assert all(len(set(row)) == 4 for row in around_boundary.tolist())
    assert set(around_boundary.ravel()) == set(np.asarray(boundary_set(features, 6, 10)).tolist())
    everything = drawn(dataclasses.replace(SMALL_INLIERS, per_round=50))  # more than there are
    np.testing.assert_array_equal(np.sort(everything, axis=1), [range(24)] * 40)


@pytest.mark.parametrize("settings", [SMALL, SMALL_INLIERS])
def test_padding_changes_nothing(settings):
    features = normal(0, 24, 8)
    plain = sample_embeddings(features, jax.random.key(0), settings)
    padded = sample_embeddings(features, jax.random.key(0), settings, pad_to=37)
    np.testing.assert_allclose(padded, plain, atol=1e-6)


def test_classes_of_unequal_size_share_one_program(monkeypatch):
    traces = []

    def traced(*arguments):
        traces.append(1)
        return one_round(*arguments)

    one_round = rounds.own_round
    monkeypatch.setattr(rounds, "own_round", traced)
    rounds._mapped_rounds.cache_clear()
    after_class = []
    for n in (20, 24, 29):
        sample_embeddings(normal(n, n, 8), jax.random.key(n), SMALL, pad_to=29)
        after_class.append(len(traces))
    rounds._mapped_rounds.cache_clear()  # leave no program that counts
    assert after_class[0] > 0
    assert after_class == after_class[:1] * 3


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"k": 0}, "sampling.k"),
        ({"k": 2.5}, "sampling.k"),
        ({"k": 25}, "sampling.k"),
        ({"boundary": 25}, "sampling.boundary"),
        ({"boundary": -1}, "sampling.boundary"),
        ({"per_round": 0}, "sampling.per_round"),
        ({"candidates": 0}, "sampling.candidates"),
        ({"scale": 0.0}, "sampling.scale"),
        ({"scale": float("nan")}, "sampling.scale"),
        ({"keep": 31}, "sampling.keep"),
        ({"rounds": True}, "sampling.rounds"),
        ({"noise": "other"}, "sampling.noise"),
        ({"selection": "best"}, "sampling.selection"),
        ({"selection": "published"}, "sampling.noise"),
        ({"largest": False, "k": 25}, "inliers.k"),
        ({"largest": False, "scale": -1.0}, "inliers.scale"),
        ({"largest": False, "keep": 31}, "inliers.keep"),
    ],
)
def test_settings_out_of_range(change, name):
    with pytest.raises(UserError, match=rf"^{name} [^\n]*$"):
        settings = dataclasses.replace(SMALL, **change)
        sample_embeddings(normal(0, 24, 8), jax.random.key(0), settings)


@pytest.mark.parametrize(
    ("spoil", "message"), [(np.nan, "finite"), (np.inf, "finite"), (0.0, "zero")]
)
def test_unusable_features(spoil, message):
    features = normal(0, 24, 8)
    features[5] = spoil
    with pytest.raises(UserError, match=message):
        sample_embeddings(features, jax.random.key(0), SMALL)


def test_features_of_the_wrong_shape():
    for features in (normal(0, 24), np.zeros((0, 8), np.float32)):
        with pytest.raises(UserError, match="empty"):
            sample_embeddings(features, jax.random.key(0), SMALL)
    with pytest.raises(ValueError, match="pad_to is 23"):
        sample_embeddings(normal(0, 24, 8), jax.random.key(0), SMALL, pad_to=23)


def embeddings() -> dict[str, np.ndarray]:
    return {"embeddings": sample_embeddings(normal(0, 24, 8), jax.random.key(0), SMALL)}


def test_four_devices_give_what_one_gives(on_devices):
    four = on_devices(4, embeddings)["embeddings"]
    np.testing.assert_array_equal(four, embeddings()["embeddings"])


def test_settings_of_a_configuration():
    sampling = SamplingSettings(
        **{"k": 6, "boundary": 10, "per_round": 4, "candidates": 30, "scale": 0.2, "keep": 2},
        **{"method": "knn", "rounds": 5, "noise": "own", "selection": "paper", "words": 16},
    )
    assert SamplerSettings.of_outliers(sampling) == SMALL
    inliers = InlierSettings(
        k=6, per_round=4, candidates=30, scale=0.05, keep=1, rounds=5, images=9, confirmed=True
    )
    expected = dataclasses.replace(SMALL_INLIERS, boundary=SamplerSettings.boundary)
    assert SamplerSettings.of_inliers(inliers, sampling) == expected
    published = dataclasses.replace(sampling, noise="shared", selection="published")
    for found in (
        SamplerSettings.of_outliers(published),
        SamplerSettings.of_inliers(inliers, published),
    ):
        assert (found.noise, found.selection) == ("shared", "published")


@pytest.mark.parametrize(
    ("selection", "one_round"), [("paper", shared_round), ("published", published_round)]
)
def test_rounds_of_shared_noise_are_those_of_its_own_function(selection, one_round):
    features, key = unit(normal(0, 24, 8)), jax.random.key(0)
    settings = dataclasses.replace(SMALL, noise="shared", selection=selection)
    embeddings = sample_embeddings(features, key, settings).reshape(5, 4, 2, 8)
    eligible = np.isin(np.arange(24), np.asarray(boundary_set(features, 6, 10)))
    compiled = jax.jit(one_round, static_argnums=3)
    for number, found in enumerate(embeddings):
        draw_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
        drawn = features[np.asarray(rounds._draw(draw_key, eligible, 4))]
        noise = jax.random.normal(noise_key, (30, 8))
        np.testing.assert_allclose(found, compiled(features, drawn, noise, settings), atol=1e-6)


def test_own_noise_makes_more_embeddings_than_shared_noise():
    """Of many rounds' candidates, shared noise lets the same few win for all features."""
    features = unit(normal(0, 1, 32) + 0.3 * normal(1, 60, 32))
    settings = SamplerSettings(
        k=40, boundary=20, per_round=20, candidates=200, scale=0.2, keep=2, rounds=2
    )

    def groups(noise):
        found = dataclasses.replace(settings, noise=noise)
        embeddings = sample_embeddings(features, jax.random.key(0), found)
        leaders = []
        for one in embeddings:
            if not leaders or np.max(leaders @ one) <= 0.9:
                leaders.append(one)
        return len(leaders)

    assert groups("own") == 80 > 3 * groups("shared")


@pytest.fixture
def known():
    """Features of three classes of unequal size, and anchors of unequal length."""
    labels = np.repeat([2, 0, 1], [20, 24, 16])
    anchors = normal(1, 3, 8) * np.float32([[1], [2], [5]])
    return SimpleNamespace(features=normal(0, 60, 8), labels=labels, anchors=anchors)


@pytest.mark.parametrize(
    ("settings", "kind", "stage"),
    [(SMALL, "outliers", "sample"), (SMALL_INLIERS, "inliers", "sample inliers")],
)
def test_embeddings_of_a_class_have_its_own_key_and_the_length_of_its_anchor(
    known, tmp_path, settings, kind, stage
):
    embeddings = sample_classes(3, settings, known, tmp_path, kind)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (3, settings.rounds * 4 * settings.keep, 8)
    for label, (found, anchor) in enumerate(zip(embeddings, known.anchors, strict=True)):
        features = known.features[known.labels == label]
        alone = sample_embeddings(features, stage_key(3, stage, label), settings, pad_to=24)
        np.testing.assert_allclose(found, alone * np.linalg.norm(anchor), rtol=1e-6)
    assert not list(tmp_path.iterdir())


def test_a_class_that_is_done_is_not_sampled_again(known, tmp_path):
    mark = np.full((5 * 4 * 2, 8), 0.5, np.float32)
    (tmp_path / "classes").mkdir()
    write_npz(tmp_path / "classes" / "1.npz", unit=mark)
    embeddings = sample_classes(3, SMALL, known, tmp_path)
    np.testing.assert_allclose(embeddings[1], mark * np.linalg.norm(known.anchors[1]), rtol=1e-6)
    assert np.abs(embeddings[0] - embeddings[0][0]).max() > 0
