"""The CPU's convolutions against `lax`, over random shapes and over the modules that use them."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from dream_jax.training import cpu_convolution, devices
from dream_jax.training.cpu_convolution import convolution, cpu_convolutions, product

NUMBERS = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC"))


def close(actual, expected):
    """Within 1e-4 of the largest value."""
    assert actual.shape == expected.shape
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(actual, expected, atol=1e-4 * scale, rtol=0)


def check(image_shape, kernel_shape, strides, padding, **options):
    """The convolution and both its gradients, as `lax` computes them."""
    x = jax.random.normal(jax.random.key(0), image_shape)
    w = jax.random.normal(jax.random.key(1), kernel_shape)

    def both(function):
        def run(x, w):
            y, pull = jax.vjp(
                lambda x, w: function(x, w, strides, padding, dimension_numbers=NUMBERS, **options),
                x,
                w,
            )
            return y, pull(jnp.cos(y))

        return jax.jit(run)(x, w)

    jax.tree.map(close, both(convolution), both(lax.conv_general_dilated))


def random_case(seed):
    """Sizes of one convolution; every third is of the kind that Winograd's form takes."""
    rng = np.random.default_rng(seed)
    winograd = seed % 3 == 0
    kernel = (3, 3) if winograd else tuple(rng.integers(1, 8, 2).tolist())
    strides = (1, 1) if winograd else tuple(rng.integers(1, 4, 2).tolist())
    channels = rng.integers(64, 80, 2) if winograd else rng.integers(1, 40, 2)
    size = rng.integers(5, 24, 2)
    padding = [tuple(rng.integers(0, k, 2).tolist()) for k in kernel]
    padding = [
        (low, high + max(0, k - s - low - high))  # at least one output
        for (low, high), k, s in zip(padding, kernel, size, strict=True)
    ]
    images = int(rng.integers(1, 7))
    return (images, *size.tolist(), channels[0]), (*kernel, *channels), strides, padding


@pytest.mark.parametrize("seed", range(9))
def test_random_shapes(seed):
    check(*random_case(seed))


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 1), (1, 1)), ((0, 1), (0, 1))])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_what_resnets_and_diffusers_use(kernel, stride, padding):
    check((2, 12, 12, 64), (kernel, kernel, 64, 96), (stride, stride), padding)


@pytest.mark.parametrize("padding", [((2, 2), (2, 2)), ((3, 0), (0, 4))])
def test_padding_wider_than_the_kernel_needs(padding):
    check((4, 9, 14, 64), (3, 3, 64, 64), (1, 1), padding)


@pytest.mark.parametrize(
    "options", [{"feature_group_count": 4}, {"lhs_dilation": (2, 2)}, {"rhs_dilation": (2, 1)}]
)
def test_groups_and_dilation(options):
    groups = options.get("feature_group_count", 1)
    check((2, 10, 10, 16), (3, 3, 16 // groups, 8), (1, 1), ((1, 1), (1, 1)), **options)


@pytest.mark.parametrize("images", [5, 32, 33])  # in steps of several images, of all, of one
def test_many_images(images):
    check((images, 32, 32, 64), (3, 3, 64, 64), (1, 1), "SAME")
    check((images, 32, 32, 3), (3, 3, 3, 64), (1, 1), "SAME")


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 2)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 1))])
def test_kernels_larger_than_their_images(kernel, stride, padding):
    """And of sides that the stride does not divide."""
    check((3, 7, 6, 40), (*kernel, 40, 160), (stride, stride), padding)


@pytest.mark.parametrize("axes", [(), (5,), (2, 3)])
def test_dense_layers(axes):
    x, w = jnp.ones((*axes, 8)), jax.random.normal(jax.random.key(1), (8, 4))
    x = jax.random.normal(jax.random.key(0), x.shape)

    def both(function):
        def run(x, w):
            y, pull = jax.vjp(lambda x, w: function(x, w, (((x.ndim - 1,), (0,)), ((), ()))), x, w)
            return y, pull(jnp.cos(y))

        return jax.jit(run)(x, w)

    jax.tree.map(close, both(product), both(lax.dot_general))


def test_other_products_are_laxs():
    x, w = jnp.ones((2, 3, 4)), jnp.ones((3, 4, 2))
    for numbers in ((((1, 2), (0, 1)), ((), ())), (((2,), (1,)), ((1,), (0,)))):
        expected = lax.dot_general(x, w, numbers)
        np.testing.assert_array_equal(product(x, w, numbers), expected)
    halves = x.astype(jnp.bfloat16), w[0].astype(jnp.bfloat16)
    assert product(*halves, (((2,), (0,)), ((), ()))).dtype == jnp.bfloat16


def test_dense_gradients_transpose_no_activations():
    module, x = nn.Dense(64), jnp.ones((512, 32))
    variables = module.init(jax.random.key(0), x)

    def program(reach):
        def loss(v, x):
            with reach():
                return jnp.sum(jnp.tanh(module.apply(v, x)) ** 2)

        return jax.jit(jax.grad(loss)).lower(variables, x).as_text()

    assert "transpose" not in program(cpu_convolutions)
    assert "transpose" in program(contextlib.nullcontext)  # the test can tell


def test_winograd_is_taken_where_it_pays():
    def convolves(function, n, channels):
        x, w = jnp.zeros((n, 8, 8, channels)), jnp.zeros((3, 3, channels, channels))
        program = jax.jit(lambda x, w: function(x, w, (1, 1), "SAME", dimension_numbers=NUMBERS))
        return "convolution" in program.lower(x, w).as_text()

    assert not convolves(convolution, 8, 128)
    assert convolves(convolution, 8, 32)  # too few channels
    assert convolves(convolution, 1, 512)  # too few tiles
    assert convolves(lax.conv_general_dilated, 8, 128)


def lowered(module, x, platform, context):
    """StableHLO of the gradient of a module that is traced within a context."""
    variables = module.init(jax.random.key(0), x)

    def program(variables, x):
        with context():
            return jax.grad(lambda v: module.apply(v, x).sum())(variables)

    return jax.jit(program).trace(variables, x).lower(lowering_platforms=platform).as_text()


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.parametrize("module", [nn.Conv(64, (3, 3)), nn.Dense(64)])
def test_other_backends_get_the_program_of_plain_flax(monkeypatch, platform, module):
    lowering = ("tpu",) if platform == "tpu" else ("cuda",)
    x = jnp.zeros((4, 8, 8, 64))
    plain = lowered(module, x, lowering, contextlib.nullcontext)
    assert lowered(module, x, lowering, cpu_convolutions) != plain  # the comparison can tell
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert lowered(module, x, lowering, cpu_convolutions) == plain


def test_third_parties_convolutions_are_reached(monkeypatch):
    from diffusers.models.resnet_flax import FlaxResnetBlock2D

    seen = []

    def spy(x, w, *args, **kwargs):
        seen.append(w.shape[:2])
        return convolution(x, w, *args, **kwargs)

    block = FlaxResnetBlock2D(32, 64)
    x, time = jnp.ones((2, 8, 8, 32)), jnp.ones((2, 16))
    variables = block.init(jax.random.key(0), x, time)
    expected = block.apply(variables, x, time)
    monkeypatch.setattr(cpu_convolution, "convolution", spy)
    run = devices.pmap(lambda v, x, t: block.apply(v, x, t), in_axes=(None, 0, None))
    count = jax.local_device_count()
    close(run(variables, jnp.stack([x] * count), time)[0], expected)
    assert sorted(seen) == [(1, 1), (3, 3), (3, 3)]


def test_modules_stay_as_they_were():
    conv, dense, x = nn.Conv(8, (3, 3)), nn.Dense(8), jnp.ones((1, 4, 4, 8))
    with cpu_convolutions():
        conv.init(jax.random.key(0), x)
        dense.init(jax.random.key(0), x)
    assert conv.conv_general_dilated is None
    assert dense.dot_general is None
