"""Scores that are functions of a classifier's logits alone."""

import jax
import jax.numpy as jnp


def energy_score(logits: jax.Array) -> jax.Array:
    """E(x) = logsumexp over the classes, the negative free energy: (n, classes) → (n,)."""
    return jax.nn.logsumexp(logits, axis=-1)


def max_softmax(logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """The largest softmax probability of the logits divided by a temperature: (n, c) → (n,)."""
    return jnp.max(jax.nn.softmax(logits / temperature, axis=-1), axis=-1)
