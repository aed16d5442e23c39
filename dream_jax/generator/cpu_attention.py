"""The UNet's attention for XLA's CPU backend, which would write all scores to memory."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

CACHE = 1 << 20  # bytes of scores that are computed at once
SMALL = 2 << 20  # bytes of all scores up to which XLA's own way is as fast


def attention(
    queries: Float[Array, "heads n d"],
    keys: Float[Array, "heads m d"],
    values: Float[Array, "heads m d"],
    scale: float,
) -> Float[Array, "heads n d"]:
    """Returns softmax(scale · q kᵀ) v, exactly, one head and one block of queries at a time."""

    def block(q, k, v):
        scores = scale * (q @ k.T)
        weights = jnp.exp(scores - scores.max(-1, keepdims=True))
        return (weights @ v) / weights.sum(-1, keepdims=True)

    def head(qkv):
        q, k, v = qkv
        most = min(max(1, CACHE // (4 * len(k))), len(q))
        size = next(s for s in range(most, 0, -1) if len(q) % s == 0)
        blocks = q.reshape(-1, size, q.shape[-1])
        return lax.map(lambda q: block(q, k, v), blocks).reshape(q.shape)

    if 4 * len(queries) * queries.shape[1] * keys.shape[1] <= SMALL:
        return jax.vmap(block)(queries, keys, values)
    return lax.map(head, (queries, keys, values))
