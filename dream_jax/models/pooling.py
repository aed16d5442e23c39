"""Max-pooling whose gradient is fast on every backend."""

import itertools
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Maps: TypeAlias = Float[Array, "n H W C"]
# Which pixel of its window was the largest, counted row by row.
Places: TypeAlias = Int[Array, "n H W C"]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: Maps, size: int, stride: int, before: int = 0) -> Maps:
    """Returns the largest of each window; of equal ones the first gets the gradient.

    As `nn.max_pool`, whose gradient takes XLA many times as long on a CPU (benchmarks/max_pool.py).
    A window with a NaN gives NaN.

    Args:
      size: height and width of the windows, at least `stride`.
      stride: by which the image becomes smaller, rounded up.
      before: rows and columns that windows reach beyond the top and the left.
    """
    return _largest(x, size, stride, before)[0]


def _largest(x: Maps, size: int, stride: int, before: int) -> tuple[Maps, Places]:
    sides = [-(-pixels // stride) for pixels in x.shape[1:3]]
    after = [
        (n - 1) * stride + size - before - pixels
        for n, pixels in zip(sides, x.shape[1:3], strict=True)
    ]
    lowest = jnp.array(-jnp.inf, x.dtype)
    around = ((0, 0, 0), *((before, end, 0) for end in after), (0, 0, 0))
    padded = jax.lax.pad(x, lowest, around)  # cuts off what no window reaches
    rows, columns = ((n - 1) * stride + 1 for n in sides)
    windows = [  # the windows' pixels in one place after the other
        padded[:, row : row + rows : stride, column : column + columns : stride]
        for row, column in itertools.product(range(size), repeat=2)
    ]
    largest = windows[0]
    places = jnp.zeros(largest.shape, np.min_scalar_type(-(size**2)))
    for place, pixels in enumerate(windows[1:], 1):
        stays = (largest >= pixels) | jnp.isnan(largest)
        largest = jnp.where(stays, largest, pixels)
        places = jnp.where(stays, places, places.dtype.type(place))
    return largest, places


def _forward(x: Maps, size: int, stride: int, before: int) -> tuple[Maps, Any]:
    largest, places = _largest(x, size, stride, before)
    return largest, (x, places)  # of x only the shape is used, and XLA keeps no more


def _backward(size: int, stride: int, before: int, saved: Any, g: Maps) -> tuple[Maps]:
    """Adds to each pixel the gradients of those windows whose largest one it was.

    All pixels at once, with the windows at one distance after the other. Row `stride · i + a` lies
    in window `i + d` as its row `a + before - stride · d`, if that is one.
    """
    x, places = saved
    n, height, width, channels = x.shape
    rows, columns = g.shape[1:3]
    first, last = -((size - 1 - before) // stride), (before + stride - 1) // stride

    def widen(a: Array, filling: int) -> Array:
        sides = ((-first, last, 0),) * 2
        return jax.lax.pad(a, jnp.array(filling, a.dtype), ((0, 0, 0), *sides, (0, 0, 0)))

    # Fused with what reads it, the padding would be decided anew for each number.
    places, g = jax.lax.optimization_barrier((widen(places, -1), widen(g, 0)))
    total = jnp.zeros((n, rows, stride, columns, stride, channels), g.dtype)
    for down, right in itertools.product(range(first, last + 1), repeat=2):
        row, column = (np.arange(stride) + before - stride * d for d in (down, right))
        place = size * row[:, None] + column
        inside = ((row >= 0) & (row < size))[:, None] & (column >= 0) & (column < size)
        wanted = np.where(inside, place, -2).astype(places.dtype)[:, None, :, None]
        there = np.s_[
            :,
            down - first : down - first + rows,
            None,
            right - first : right - first + columns,
            None,
        ]
        total += jnp.where(places[there] == wanted, g[there], 0)
    return (total.reshape(n, rows * stride, columns * stride, channels)[:, :height, :width],)


max_pool.defvjp(_forward, _backward)
