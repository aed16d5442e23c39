"""The UNet's attention for XLA's CPU backend, which would write all scores to memory."""

import contextlib

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

CACHE = 1 << 20  # bytes of scores that are computed at once
SMALL = 2 << 20  # bytes of all scores up to which XLA's own way is as fast


def attention(queries: jax.Array, keys: jax.Array, values: jax.Array, scale: float) -> jax.Array:
    """softmax(scale · q kᵀ) v, exact, for one head and a block of queries after the other.

    Args:
      queries: (heads, n, d); keys and values: (heads, m, d).
    """

    def block(q, k, v):
        scores = scale * (q @ k.T)
        weights = jnp.exp(scores - scores.max(-1, keepdims=True))
        return (weights @ v) / weights.sum(-1, keepdims=True)

    def head(qkv):
        q, k, v = qkv
        most = min(max(1, CACHE // (4 * len(k))), len(q))
        rows = next(r for r in range(most, 0, -1) if len(q) % r == 0)
        blocks = q.reshape(-1, rows, q.shape[-1])
        return lax.map(lambda q: block(q, k, v), blocks).reshape(q.shape)

    if 4 * len(queries) * queries.shape[1] * keys.shape[1] <= SMALL:
        return jax.vmap(block)(queries, keys, values)
    return lax.map(head, (queries, keys, values))


@contextlib.contextmanager
def cpu_attention():
    """Within it, diffusers' Flax attention layers that are traced use `attention`, on the CPU."""
    if jax.default_backend() != "cpu":
        yield
        return
    from diffusers.models.attention_flax import FlaxAttention

    def intercept(call, args, kwargs, context):
        module = context.module
        if not isinstance(module, FlaxAttention) or context.method_name != "__call__":
            return call(*args, **kwargs)
        return attend(module, *args, **kwargs)

    def attend(module, hidden, context=None, deterministic=True):
        context = hidden if context is None else context
        parts = module.query(hidden), module.key(context), module.value(context)
        heads = attention(*map(module.reshape_heads_to_batch_dim, parts), module.scale)
        out = module.proj_attn(module.reshape_batch_dim_to_heads(heads))
        return module.dropout_layer(out, deterministic=deterministic)

    with nn.intercept_methods(intercept):
        yield
