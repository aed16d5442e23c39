"""The latent space: its loss against the original's, its objective, anchors, choice of images."""

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from dream_jax.errors import UserError
from dream_jax.latent_space.anchors import compute_anchors
from dream_jax.latent_space.features import select_per_class
from dream_jax.latent_space.learn import CLASSES, init_layer, make_logits, make_objective
from dream_jax.settings import LatentSpaceSettings
from dream_jax.vectors import cosine_logits, unit

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "losses.npz"))
OWN = LatentSpaceSettings(**base.get_config().latent_space.to_dict())
TABLE = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


class Linear(nn.Module):
    """A network of one linear layer, with the outputs that the latent space's network has."""

    @nn.compact
    def __call__(self, images, train, mask):
        return nn.Dense(GOLDEN["anchors"].shape[1], use_bias=False)(images), images


def logits_of(features, anchors, temperature):
    return cosine_logits(unit(features), unit(anchors), temperature)


def test_cosine_logits_are_the_originals():
    logits = logits_of(GOLDEN["features"], GOLDEN["anchors"], float(GOLDEN["temperature"]))
    np.testing.assert_allclose(logits, GOLDEN["cosine_logits"], rtol=1e-4, atol=1e-5)


def test_cosine_cross_entropy_is_the_originals():
    logits = logits_of(GOLDEN["features"], GOLDEN["anchors"], float(GOLDEN["temperature"]))
    labels = jnp.asarray(GOLDEN["labels"], jnp.int32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    np.testing.assert_allclose(loss, GOLDEN["cosine_cross_entropy"], rtol=1e-5)


def test_objective_is_the_originals_cross_entropy_and_an_accuracy_that_is_only_shown():
    features, labels = GOLDEN["features"], jnp.asarray(GOLDEN["labels"], jnp.int32)
    mask = jnp.ones(len(features))
    identity = {"Dense_0": {"kernel": jnp.eye(features.shape[1])}}
    temperature = float(GOLDEN["temperature"])
    read = make_logits(
        dataclasses.replace(OWN, temperature=temperature), jnp.asarray(GOLDEN["anchors"])
    )
    objective = make_objective(Linear(), read, "none")
    batch = {"images": jnp.asarray(features), "labels": labels, "mask": mask}
    keys = jax.random.split(jax.random.key(0), len(features))
    terms, _ = objective(identity, {}, batch, keys)
    np.testing.assert_allclose(terms["ce"].values.mean(), GOLDEN["cosine_cross_entropy"], rtol=1e-5)
    right = GOLDEN["cosine_logits"].argmax(-1) == GOLDEN["labels"]
    np.testing.assert_array_equal(terms["accuracy"].values, right)
    assert (terms["ce"].weight, terms["accuracy"].weight) == (1, 0)


def test_features_of_a_plain_classifier_are_read_by_a_linear_layer():
    """Not by anchors; the layer is drawn small enough for logits of about the features' size."""
    features, anchors = GOLDEN["features"].astype(np.float32), GOLDEN["anchors"]
    read = make_logits(dataclasses.replace(OWN, loss="cross_entropy"), jnp.asarray(anchors))
    layer = init_layer(jax.random.key(0), *anchors.shape[::-1])
    layer = {"kernel": layer["kernel"], "bias": jnp.arange(len(anchors), dtype=jnp.float32)}
    found = read({CLASSES: layer}, jnp.asarray(features))
    expected = features.astype(float) @ np.asarray(layer["kernel"], float) + np.arange(len(anchors))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.std(layer["kernel"]) == pytest.approx(anchors.shape[1] ** -0.5, rel=0.1)


def test_cosine_logits_ignore_lengths_and_stay_finite_at_zero():
    features, anchors = TABLE[:3], TABLE[3:7]
    logits = logits_of(features, anchors, 0.1)
    np.testing.assert_allclose(logits_of(7 * features, anchors / 3, 0.1), logits, rtol=1e-5)
    assert np.all(np.abs(logits) <= 10.001)
    assert np.all(logits_of(np.zeros_like(features), anchors, 0.1) == 0)


def test_anchor_of_one_token_is_its_row():
    anchors = compute_anchors(TABLE, [[4], [0]])
    assert anchors.dtype == np.float32
    np.testing.assert_allclose(anchors, TABLE[[4, 0]], rtol=1e-6)


def test_anchor_of_several_tokens_is_their_mean_at_their_mean_norm():
    (anchor,) = compute_anchors(TABLE, [[4, 7, 7]])
    mean = (TABLE[4] + 2 * TABLE[7]) / 3
    cosine = anchor @ mean / np.linalg.norm(anchor) / np.linalg.norm(mean)
    np.testing.assert_allclose(cosine, 1, rtol=1e-6)
    norms = np.linalg.norm(TABLE, axis=1)
    np.testing.assert_allclose(np.linalg.norm(anchor), (norms[4] + 2 * norms[7]) / 3, rtol=1e-6)


def test_anchor_errors():
    with pytest.raises(UserError, match="class_names is empty"):
        compute_anchors(TABLE, [])
    with pytest.raises(UserError, match=r"class_names\[1\] has no tokens"):
        compute_anchors(TABLE, [[1], []])


def test_select_per_class():
    labels = np.random.default_rng(1).permutation([0] * 10 + [1] * 3 + [2] * 6)
    chosen = select_per_class(labels, 5, classes=3, seed=0)
    assert np.array_equal(np.bincount(labels[chosen]), [5, 3, 5])
    assert np.array_equal(chosen, np.unique(chosen))  # sorted, none twice
    assert np.array_equal(chosen, select_per_class(labels, 5, classes=3, seed=0))
    others = [select_per_class(labels, 5, classes=3, seed=seed) for seed in range(1, 5)]
    assert any(not np.array_equal(chosen, other) for other in others)
