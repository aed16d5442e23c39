"""Relation: how strongly an image is related to training images, by features and predictions."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.neighbours import bank
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, number
from dream_jax.knn import map_queries
from dream_jax.vectors import unit


def fit_relation(data: FitData, options: Options) -> np.ndarray:
    """Returns unit features and softmax of all fitting data, side by side: (n, d + classes)."""
    from scipy.special import softmax  # slow to import, and configurations name this detector

    d = data.features.shape[1]
    stored = np.empty((len(data.labels), d + data.classes), np.float32)
    stored[:, :d] = bank(data)
    done = 0
    for part in data.parts():
        stored[done : done + len(part.labels), d:] = softmax(part.logits, axis=-1)
        done += len(part.labels)
    return stored


def relation_score(state: jax.Array, inputs: Inputs, options: Options) -> jax.Array:
    """Returns the mean of kᵗ over the training images, where k = max(0, cos(z, z')) (p · p').

    Kim et al. take the sum, which orders the same. As in their code, relations of at most the
    threshold count as 0.
    """
    d = inputs.features.shape[-1]
    own = jnp.concatenate([unit(inputs.features), jax.nn.softmax(inputs.logits, axis=-1)], axis=-1)

    def one(query: jax.Array) -> jax.Array:
        cosines = jnp.matmul(state[:, :d], query[:d], precision="highest")
        agreement = jnp.matmul(state[:, d:], query[d:], precision="highest")
        relation = jnp.maximum(cosines, 0.0) * agreement
        strong = relation > options["threshold"]
        return jnp.mean(jnp.where(strong, relation ** options["power"], 0.0))

    return map_queries(one, own, state)


RELATION = Detector(
    name="relation",
    title="Relation",
    paper="Kim et al., Neural Relation Graph: A Unified Framework for Identifying Label Noise and "
    "Outlier Data, NeurIPS 2023",
    needs=frozenset({"features", "logits"}),
    fit=fit_relation,
    score=relation_score,
    options={"power": number(1.0, 0.01, 100.0), "threshold": number(0.03, 0.0, 1.0)},
)
