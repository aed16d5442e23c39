"""Activations of inner layers by name: read and changed where the network itself computes them.

A network shows a layer by one line, `x = show(self, "stage1", x)`, which leaves it as it is until
somebody asks for it by `run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import flax.linen as nn
    import jax

_SHOWN = "intermediates"  # the collection that Flax leaves out of fresh variables
_ADDED = "added"


def show(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """Returns a layer's activations, with what `run` was asked to add; inside `__call__`."""
    if module.has_variable(_ADDED, name):
        x = x + module.get_variable(_ADDED, name).astype(x.dtype)
    module.sow(_SHOWN, name, x, init_fn=lambda: None, reduce_fn=lambda _, new: new)
    return x


def run(
    network: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    layers: Sequence[str],
    added: Mapping[str, jax.Array] | None = None,
) -> tuple[Any, dict[str, jax.Array]]:
    """Runs a network in evaluation mode, and returns activations of its layers too.

    Under `jax.jit`, layers that nobody uses cost nothing.

    Args:
      layers: names of layers that the network shows.
      added: what is added to activations, by the name of the layer; the rest of the network goes on
        with the sum. Of zeros, the gradient is that with respect to the activations.

    Returns:
      What the network returns, and {name: activations} in the order of `layers`.

    Raises:
      ValueError: the network does not show such a layer.
    """
    given = dict(variables) | ({_ADDED: dict(added)} if added else {})
    made, state = network.apply(given, images, mutable=[_SHOWN])  # type: ignore[misc]
    shown = state.get(_SHOWN, {})
    unknown = [name for name in (*layers, *(added or ())) if name not in shown]
    if unknown:
        raise ValueError(f"the network shows no layer {unknown[0]!r}; it shows {[*shown]}")
    return made, {name: shown[name] for name in layers}
