"""The round of the published code, to repeat its numbers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dream_jax.knn import kth_smallest
from dream_jax.vectors import unit


def published_round(
    features: Float[Array, "n d"],
    boundary_features: Float[Array, "p d"],
    noise: Float[Array, "L d"],
    k: int,
    scale: float,
    keep: int,
    largest: bool = True,
    count: int | jax.Array | None = None,
) -> Float[Array, "p keep d"]:
    """Makes one round with the choice of the published code, to repeat its numbers.

    That code computes d_k of the candidates as a table (p, L), reads it as (L, p), and gives the
    i-th feature the noise vectors with the best entries in column i: of other features' distances,
    for the most part, so that the choice is close to a random one. For one point per feature it
    also takes all of them around the first feature.

    Arguments and result are those of `sample_round`; the order within a feature is by the misread
    distances.
    """
    padding = jnp.arange(len(features)) >= (len(features) if count is None else count)

    def distances(boundary_feature):
        candidates = unit(boundary_feature + scale * noise)
        opposition = -jnp.matmul(candidates, features.T, precision="highest")
        return kth_smallest(jnp.where(padding, jnp.inf, opposition), k)  # increases with d_k

    misread = jax.lax.map(distances, boundary_features).reshape(len(noise), -1)
    chosen = jax.lax.top_k(misread.T if largest else -misread.T, keep)[1]  # (p, keep)
    around = boundary_features if keep > 1 else boundary_features[jnp.zeros_like(chosen[:, 0])]
    return unit(around[:, None] + scale * noise[chosen])
