"""Layers for networks of tests that have none, weights, and fitting data that a network sees."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors import base
from dream_jax.detector.inputs import make_inputs


def with_layers(features: Any, added: dict | None = None) -> tuple[Any, dict]:
    """Returns features (n, d), and two equal layers before them: 2 × 1 positions."""
    added = added or {}
    maps = features.reshape(features.shape[0], 2, 1, features.shape[1] // 2)
    first = maps + added.get("stage1", 0)
    second = first + added.get("stage2", 0)
    layers = {"stage1": first, "stage2": second}
    return second.reshape(features.shape) + added.get("features", 0), layers


def weights_of(shapes, seed: int = 0):
    """Values of parameters; the network's own initialisation takes seconds to compile."""
    rng = np.random.default_rng(seed)

    def weights(leaf):
        if len(leaf.shape) == 1:  # of batch norm, and the head's bias
            return rng.random(leaf.shape).astype(np.float32) + 0.5
        fan_in = np.prod(leaf.shape[:-1])
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree.map(weights, shapes)


def evaluate_on(forward: Callable, variables: Any, images: np.ndarray) -> base.Evaluate:
    """Returns what `FitData.evaluate` is of a network and its images."""

    def evaluate(function: Callable, rows: np.ndarray | None = None) -> Iterator[Any]:
        run = jax.jit(lambda x: function(make_inputs(forward, variables, x)))
        shown = images if rows is None else images[rows]
        for start in range(0, len(shown), base.ROWS_AT_ONCE):
            part = jnp.asarray(shown[start : start + base.ROWS_AT_ONCE])
            yield jax.tree.map(np.asarray, run(part))

    return evaluate
