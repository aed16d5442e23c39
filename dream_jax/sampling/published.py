"""The round of the published code, to repeat its numbers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dream_jax.knn import kth_smallest
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.vectors import unit


def published_round(
    features: Float[Array, "n d"],
    drawn: Float[Array, "p d"],
    noise: Float[Array, "L d"],
    settings: SamplerSettings,
    count: int | Int[Array, ""] | None = None,
) -> Float[Array, "p keep d"]:
    """Makes one round with the choice of the published code.

    That code computes the d_k of the candidates as a table (p, L) and reads it as (L, p): the i-th
    feature gets the noise vectors with the best entries in column i. Most of those are distances of
    other features' candidates, so the choice is close to a random one. With one candidate per
    feature the code also places all candidates around the first feature.

    Args:
      features: unit vectors of the class.
      drawn: the unit vectors to perturb: features that were drawn for this round.
      noise: normal vectors of unit variance.
      settings: of which `k`, `scale`, `keep` and `largest` are used; `keep` is at most L.
      count: if given, only the first `count` features are real; the others are infinitely far.

    Returns:
      The kept candidates, unit vectors, ordered by the misread distances.
    """
    padding = jnp.arange(len(features)) >= (len(features) if count is None else count)

    def distances(feature: Float[Array, " d"]) -> Float[Array, " L"]:
        candidates = unit(feature + settings.scale * noise)
        opposition = -jnp.matmul(candidates, features.T, precision="highest")
        # The k-th smallest of these increases with d_k.
        return kth_smallest(jnp.where(padding, jnp.inf, opposition), settings.k)

    misread = jax.lax.map(distances, drawn).reshape(len(noise), -1)
    chosen = jax.lax.top_k(misread.T if settings.largest else -misread.T, settings.keep)[1]
    around = drawn if settings.keep > 1 else drawn[jnp.zeros_like(chosen[:, 0])]
    return unit(around[:, None] + settings.scale * noise[chosen])
