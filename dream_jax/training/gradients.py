"""Where gradients go."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def split_gradients(function: Callable[[Any, Any], Any], params: Any, inputs: Any):
    """`function(params, inputs)` twice, for one computation.

    Gradients of the first output reach `params` alone, those of the second `inputs` alone. They are
    the gradients of two calls, one with `stop_gradient` on the inputs and one on the parameters.
    """
    out = function(params, inputs)
    return out, out


def _forward(function, params, inputs):
    out, pull = jax.vjp(function, params, inputs)
    return (out, out), pull


def _backward(function, pull, cotangents):
    of_params, of_inputs = cotangents
    return pull(of_params)[0], pull(of_inputs)[1]


split_gradients.defvjp(_forward, _backward)
