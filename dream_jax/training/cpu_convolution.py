"""Convolutions for XLA's CPU backend, which computes some of them far below a matrix product.

Three forms replace XLA's own where they are faster, on the CPU and nowhere else:

- 3×3 convolutions of stride 1, with their two gradients, by Winograd's minimal filtering
  F(4×4, 3×3) (Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016):
  a quarter of the multiplications, and all work in matrix products;
- the weight gradient of all others in XLA's form, but with its operands in the layout of a forward
  convolution: in any other layout XLA computes it twenty times slower inside of a loop;
- both gradients of those whose kernels are 1×1, or larger than their images, as one matrix product
  each: other forms transpose the kernel or what comes from behind first. Dense layers, which are
  1×1 convolutions without an image, have the same gradients.

The first two run over a few images at a time, so that what lies between two products stays in the
cache. `cpu_convolutions` brings them to every `flax.linen.Conv` and `flax.linen.Dense`, those of
third parties too.
"""

import contextlib
import functools
import itertools
import math
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# F(4×4, 3×3): a tile of 4×4 outputs is Aᵀ[(G w Gᵀ) ⊙ (Bᵀ d B)]A, from 6×6 inputs d. Written over
# the flattened tile, each of the three steps is one matrix.
_TILE, _INPUT = 4, 6
_B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)
_A = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float32,
)
_INPUTS, _WEIGHTS, _OUTPUTS = (np.kron(m, m) for m in (_B, _G, _A))

CACHE = 3 << 19  # bytes that a step may hold between two matrix products

Padding = tuple[tuple[int, int], tuple[int, int]]


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
    """Zero padding of height and width; negative amounts crop."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0)])


def _sum_in_steps(function, arrays: tuple[jax.Array, ...], bytes_per_image: int, out_shape):
    """The sum over images of `function(*arrays)`, a few images at a time."""
    # The sum too is read and written in each step, so large ones are worth more images.
    size = _images_per_step(len(arrays[0]), bytes_per_image, 4 * math.prod(out_shape))
    if size == len(arrays[0]):
        return function(*arrays)
    steps = tuple(a.reshape(-1, size, *a.shape[1:]) for a in arrays)
    zeros = jnp.zeros(out_shape, arrays[0].dtype)
    return lax.scan(lambda total, step: (total + function(*step), None), zeros, steps)[0]


def _images_per_step(images: int, bytes_per_image: int, at_least: int = 0) -> int:
    """A divisor of the number of images, of about `CACHE` bytes."""
    wanted = max(CACHE, at_least) // bytes_per_image
    return next(m for m in range(min(max(wanted, 1), images), 0, -1) if images % m == 0)


def _input_tiles(x: jax.Array, padding: Padding, rows: int, columns: int) -> jax.Array:
    """(n, H, W, c) → Bᵀ d B of all tiles: (36, n · rows · columns, c)."""
    n, height, width, channels = x.shape
    (top, _), (left, _) = padding
    below, right = _TILE * (rows + 1) - height - top, _TILE * (columns + 1) - width - left
    x = _pad(x, ((top, below), (left, right)))
    # Tiles overlap by two pixels: each takes from its own 4×4 block and from the next ones.
    blocks = x.reshape(n, rows + 1, _TILE, columns + 1, _TILE, channels)
    blocks = blocks.transpose(2, 4, 0, 1, 3, 5)
    taken = [
        blocks[i % 4, j % 4, :, i // 4 : i // 4 + rows, j // 4 : j // 4 + columns]
        for i in range(_INPUT)
        for j in range(_INPUT)
    ]
    tiles = jnp.stack(taken).reshape(_INPUT**2, -1)
    return jnp.matmul(_INPUTS, tiles).reshape(_INPUT**2, -1, channels)


def _output_size(x: jax.Array, padding: Padding) -> tuple[int, int]:
    height, width = (size + sum(p) - 2 for size, p in zip(x.shape[1:3], padding, strict=True))
    return height, width


def _winograd(x: jax.Array, w: jax.Array, padding: Padding) -> jax.Array:
    """The convolution: (n, H, W, c), (3, 3, c, k) → (n, H', W', k)."""
    n, channels, features = len(x), *w.shape[2:]
    height, width = _output_size(x, padding)
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    weights = (_WEIGHTS @ w.reshape(9, -1)).reshape(_INPUT**2, channels, features)

    def some(x):
        products = jnp.matmul(_input_tiles(x, padding, rows, columns), weights)
        y = _OUTPUTS @ products.reshape(_INPUT**2, -1)
        y = y.reshape(_TILE, _TILE, len(x), rows, columns, features).transpose(2, 3, 0, 4, 1, 5)
        y = y.reshape(len(x), rows * _TILE, columns * _TILE, features)
        return y[:, :height, :width]

    size = _images_per_step(n, 4 * _INPUT**2 * rows * columns * max(channels, features))
    if size == n:
        return some(x)
    y = lax.map(some, x.reshape(-1, size, *x.shape[1:]))
    return y.reshape(n, height, width, features)


def _winograd_weight_gradient(x: jax.Array, g: jax.Array, padding: Padding) -> jax.Array:
    """(n, H, W, c), (n, H', W', k) → (3, 3, c, k): the transposes of the three steps."""
    height, width, features = g.shape[1:]
    channels = x.shape[-1]
    rows, columns = -(-height // _TILE), -(-width // _TILE)

    def some(x, g):
        g = _pad(g, ((0, rows * _TILE - height), (0, columns * _TILE - width)))
        g = g.reshape(len(g), rows, _TILE, columns, _TILE, features).transpose(2, 4, 0, 1, 3, 5)
        outputs = (_OUTPUTS.T @ g.reshape(_TILE**2, -1)).reshape(_INPUT**2, -1, features)
        return jnp.einsum("btk,btc->bkc", outputs, _input_tiles(x, padding, rows, columns))

    per_image = 4 * _INPUT**2 * rows * columns * max(channels, features)
    total = _sum_in_steps(some, (x, g), per_image, (_INPUT**2, features, channels))
    total = _WEIGHTS.T @ total.reshape(_INPUT**2, -1)
    return total.reshape(3, 3, features, channels).swapaxes(2, 3)


def _direct(x: jax.Array, w: jax.Array, strides, padding: Padding, **dilation) -> jax.Array:
    return lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **dilation
    )


def _direct_input_gradient(
    x: jax.Array, w: jax.Array, g: jax.Array, strides: tuple[int, int], padding: Padding
) -> jax.Array:
    """(n, H', W', k) → (n, H, W, c)."""
    spatial = zip(x.shape[1:3], w.shape[:2], g.shape[1:3], strides, padding, strict=True)
    vertical, horizontal = (
        (taps - 1 - low, size + low - (outputs - 1) * stride - 1)
        for size, taps, outputs, stride, (low, _) in spatial
    )
    turned = w[::-1, ::-1].swapaxes(2, 3)
    return _direct(g, turned, (1, 1), (vertical, horizontal), lhs_dilation=strides)


def _direct_weight_gradient(
    x: jax.Array, w: jax.Array, g: jax.Array, strides: tuple[int, int], padding: Padding
) -> jax.Array:
    """(n, H, W, c), (n, H', W', k) → the shape of w: a convolution over the images as channels."""
    spatial = zip(x.shape[1:3], w.shape[:2], g.shape[1:3], strides, padding, strict=True)
    padding = [
        (low, (outputs - 1) * stride + taps - size - low)
        for size, taps, outputs, stride, (low, _) in spatial
    ]

    def some(x, g):
        x, g = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
        return _direct(x, g, (1, 1), padding, rhs_dilation=strides).transpose(1, 2, 0, 3)

    return _sum_in_steps(some, (x, g), 4 * (x[0].size + g[0].size), w.shape)


def _patches(
    x: jax.Array, size: tuple[int, int], strides: tuple[int, int], padding: Padding
) -> jax.Array:
    """(n, H, W, c) → what each tap of a kernel of that size sees: (n, H', W', taps, c)."""
    x = _pad(x, padding)
    height, width = (
        (pixels - taps) // stride * stride + 1
        for pixels, taps, stride in zip(x.shape[1:3], size, strides, strict=True)
    )
    seen = [
        x[:, i : i + height : strides[0], j : j + width : strides[1]]
        for i, j in itertools.product(*map(range, size))
    ]
    return jnp.stack(seen, 3)


def _product_gradients(
    x: jax.Array, w: jax.Array, g: jax.Array, strides: tuple[int, int], padding: Padding
) -> tuple[jax.Array, jax.Array]:
    """(n, H', W', k) → (n, H, W, c) and the shape of w: a product with `_patches` each."""

    def patches(x):
        return _patches(x, w.shape[:2], strides, padding)

    seen = patches(x)
    # Flat, since XLA copies the operands of a product over several dimensions.
    by_output = g.reshape(-1, g.shape[-1])
    by_patch = _product(by_output, w.reshape(-1, w.shape[-1]), (1, 1)).reshape(seen.shape)
    by_weight = _product(seen.reshape(len(by_output), -1), by_output, (0, 0)).reshape(w.shape)
    return jax.linear_transpose(patches, x)(by_patch)[0], by_weight


def _product(left: jax.Array, right: jax.Array, summed: tuple[int, int]) -> jax.Array:
    """The product of two matrices over one axis of each."""
    axis, other = summed
    return lax.dot_general(left, right, (((axis,), (other,)), ((), ())))


def _winograd_pays(x: jax.Array, w: jax.Array, strides: tuple[int, int], padding: Padding) -> bool:
    if w.shape[:2] != (3, 3) or strides != (1, 1):
        return False
    height, width = _output_size(x, padding)
    tiles = len(x) * -(-height // _TILE) * -(-width // _TILE)
    # Few channels leave thin products; few tiles do not repay the transform of the weights.
    channels, features = w.shape[2:]
    return min(channels, features) >= 64 and channels * features <= 3000 * tiles


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, w, strides, padding):
    if _winograd_pays(x, w, strides, padding):
        return _winograd(x, w, padding)
    return _direct(x, w, strides, padding)


def _convolve_forward(x, w, strides, padding):
    return _convolve(x, w, strides, padding), (x, w)


def _convolve_backward(strides, padding, saved, g):
    x, w = saved
    if _winograd_pays(x, w, strides, padding):
        mirrored = tuple((2 - low, 2 - high) for low, high in padding)
        by_input = _winograd(g, w[::-1, ::-1].swapaxes(2, 3), mirrored)
        return by_input, _winograd_weight_gradient(x, g, padding)
    if w.size > x.size:
        return _product_gradients(x, w, g, strides, padding)
    return (
        _direct_input_gradient(x, w, g, strides, padding),
        _direct_weight_gradient(x, w, g, strides, padding),
    )


_convolve.defvjp(_convolve_forward, _convolve_backward)


@jax.custom_vjp
def _dense(x: jax.Array, w: jax.Array) -> jax.Array:
    """(..., c), (c, k) → (..., k)."""
    return x @ w


def _dense_backward(saved, g):
    x, w = saved
    inputs, outputs = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    return _product(outputs, w, (1, 1)).reshape(x.shape), _product(inputs, outputs, (0, 0))


_dense.defvjp(lambda x, w: (_dense(x, w), (x, w)), _dense_backward)


def product(lhs: jax.Array, rhs: jax.Array, dimension_numbers, **options) -> jax.Array:
    """`lax.dot_general`, whose gradients are faster on the CPU: equal within rounding.

    Those of float32 that sum the last axis of `lhs` and the first of a matrix, as dense layers do;
    all others are computed by `lax` itself.
    """
    plain = (
        lhs.dtype == rhs.dtype == jnp.float32
        and rhs.ndim == 2
        and dimension_numbers == (((lhs.ndim - 1,), (0,)), ((), ()))
        and all(option is None for option in options.values())
    )
    return _dense(lhs, rhs) if plain else lax.dot_general(lhs, rhs, dimension_numbers, **options)


def convolution(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options,
) -> jax.Array:
    """`lax.conv_general_dilated`, faster on the CPU: equal within rounding, so its gradients.

    Two-dimensional convolutions of float32 in Flax's layout (NHWC, HWIO), without groups and
    dilation, are computed as the module's text says; all others by `lax` itself.
    """
    strides = tuple(window_strides)
    spatial = {"lhs_dilation", "rhs_dilation"}
    plain = (
        lhs.ndim == 4
        and lhs.dtype == rhs.dtype == jnp.float32
        and all(set(options.get(name) or (1,)) == {1} for name in spatial)
        and options.get("feature_group_count", 1) == options.get("batch_group_count", 1) == 1
        and _is_flax_layout(options.get("dimension_numbers"))
    )
    if not plain:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
    padding = tuple((int(low), int(high)) for low, high in padding)
    if rhs.shape[:2] == (1, 1) and not any(map(any, padding)):
        return _dense(lhs[:, :: strides[0], :: strides[1]], rhs[0, 0])
    return _convolve(lhs, rhs, strides, padding)


def _is_flax_layout(numbers) -> bool:
    if not isinstance(numbers, lax.ConvDimensionNumbers):
        return False
    return numbers == lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


@contextlib.contextmanager
def cpu_convolutions():
    """Within it, each layer of Flax that is traced computes as the module's text says, on the CPU.

    `flax.linen.Conv` by `convolution`, `flax.linen.Dense` by `product`.

    On any other backend it does nothing, so that the compiled program is the one of plain Flax.
    Nor does it where Flax was not imported, so that programs without it need not have it.
    """
    if jax.default_backend() != "cpu" or "flax.linen" not in sys.modules:
        yield
        return
    import flax.linen as nn

    def intercept(call, args, kwargs, context):
        module = context.module
        for layer, field, primitive in (
            (nn.Conv, "conv_general_dilated", convolution),
            (nn.Dense, "dot_general", product),
        ):
            if isinstance(module, layer) and getattr(module, field) is None:
                # The field is the module's own way to exchange it; modules are frozen.
                object.__setattr__(module, field, primitive)
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield
