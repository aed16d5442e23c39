"""Batch norm against Flax's, and the shapes of the networks."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shown import weights_of

from dream_jax.models.norm import BatchNorm
from dream_jax.models.resnet import (
    ARCHITECTURES,
    STEMS,
    PooledBlock,
    Whitening,
    build_model,
    identity,
    init_model,
    patch_transform,
)
from dream_jax.settings import ModelSettings
from dream_jax.training import devices


def images(rows: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(2.0, 3.0, (rows, 4, 5, 3)).astype(np.float32)


def variables(seed: int = 1) -> dict:
    """Scale, bias and statistics unlike the initial ones."""
    rng = np.random.default_rng(seed)
    draw = lambda: rng.uniform(0.5, 2.0, 3).astype(np.float32)  # noqa: E731
    return {
        "params": {"scale": draw(), "bias": draw()},
        "batch_stats": {"mean": draw(), "var": draw()},
    }


def train_mode(x: np.ndarray, rows: int | None = None):
    """Ours in training mode over all devices: (output of the real rows, new statistics)."""

    def step(batch):
        return BatchNorm().apply(
            variables(), batch["x"], True, batch["mask"], mutable=["batch_stats"]
        )

    y, state = devices.pmap(step)(devices.shard({"x": x}, rows))
    return devices.unshard(y, len(x)), devices.unreplicate(state)["batch_stats"]


def flax_train_mode(x: np.ndarray):
    norm = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
    y, state = norm.apply(variables(), x, mutable=["batch_stats"])
    return y, state["batch_stats"]


def assert_like_flax(ours, x):
    y, statistics = flax_train_mode(x)
    np.testing.assert_allclose(ours[0], y, rtol=1e-4, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(ours[1][name], statistics[name], rtol=1e-4)


def test_training_mode_is_that_of_flax():
    assert_like_flax(train_mode(images(6)), images(6))


def test_padding_does_not_matter():
    assert_like_flax(train_mode(images(6), rows=16), images(6))


def padded_on_four_devices() -> dict[str, np.ndarray]:
    y, statistics = train_mode(images(6))
    return {"y": y, **statistics}


def test_statistics_span_unequally_filled_devices(on_devices):
    four = on_devices(4, padded_on_four_devices)
    assert_like_flax((four["y"], four), images(6))


def test_what_stands_in_masked_rows_does_not_matter():
    x, mask = images(6), np.float32([1, 1, 0, 1, 0, 1])
    other = np.where(mask[:, None, None, None] == 1, x, 100.0)

    def step(x):
        return BatchNorm().apply(variables(), x, True, jnp.asarray(mask), mutable=["batch_stats"])

    step = jax.vmap(step, axis_name=devices.AXIS)
    (y, state), (y2, state2) = step(x[None]), step(other[None])
    real = mask == 1
    np.testing.assert_allclose(y[0, real], y2[0, real], rtol=1e-5)
    assert_like_flax((y[0, real], jax.tree.map(lambda a: a[0], state["batch_stats"])), x[real])
    for name in ("mean", "var"):
        np.testing.assert_allclose(*(s["batch_stats"][name] for s in (state, state2)), rtol=1e-5)


def test_training_without_a_mask_is_refused():
    with pytest.raises(ValueError, match="mask"):
        BatchNorm().apply(variables(), images(3), True, mutable=["batch_stats"])


def test_evaluation_mode_is_that_of_flax():
    y = BatchNorm().apply(variables(), images(3), False)
    expected = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables(), images(3))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def network(arch, stem="small", width=8, outputs=7, precision="float32"):
    return build_model(ModelSettings(arch, width, stem, precision), outputs)


def shapes(model, channels=3, size=32):
    init = lambda key: init_model(model, key, (size, size, channels))  # noqa: E731
    return jax.eval_shape(init, jax.random.key(0))


# What follows the stem is the same for all stems, so larger networks are shown with one of them.
@pytest.mark.parametrize(
    ("arch", "stem"),
    [
        *((arch, stem) for arch in ("resnet8", "airbench") for stem in STEMS),
        *((arch, "imagenet") for arch in ARCHITECTURES if arch not in ("resnet8", "airbench")),
    ],
)
def test_resnet_shapes(arch, stem):
    model = network(arch, stem)
    made = shapes(model)
    batch = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    outputs, pooled = jax.eval_shape(model.apply, made, batch)
    stages, expansion = ARCHITECTURES[arch].stages, 4 if arch == "resnet50" else 1
    assert outputs.shape == (2, 7)
    widest = 2 if arch == "airbench" else 2 ** (len(stages) - 1)
    assert pooled.shape == (2, expansion * 8 * widest)
    kernel = 7 if stem == "imagenet" else 3
    if stem == "whitened":
        assert "stem" not in made["params"] and "whitening" not in made["params"]
    else:
        assert made["params"]["stem"]["kernel"].shape == (kernel, kernel, 3, 8)
    assert sum("Block" in name for name in made["params"]) == sum(stages)


@pytest.mark.parametrize(("stem", "size"), [("small", 8), ("stride2", 4), ("imagenet", 2)])
def test_resnet_size_of_the_last_feature_map(stem, size):
    model = network("resnet8", stem, width=4, outputs=2)
    capture = lambda v: model.apply(v, jnp.zeros((1, 32, 32, 1)), capture_intermediates=True)[1]  # noqa: E731
    blocks = jax.eval_shape(capture, shapes(model, channels=1))["intermediates"]
    assert blocks["BasicBlock_2"]["__call__"][0].shape == (1, size, size, 16)


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)],
)
def test_resnets_are_the_papers(arch, parameters):
    """As many parameters as torchvision's, with its 1,000 classes."""
    made = shapes(network(arch, "imagenet", width=64, outputs=1000))
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(made["params"])) == parameters


def test_airbench_is_jordans():
    """Kernels of the sizes of his network for 93 %, after 24 rectified filters."""
    made = shapes(network("airbench", "whitened", width=64, outputs=10))
    kernels = [leaf.shape for leaf in jax.tree.leaves(made["params"]) if leaf.ndim == 4]
    inputs_and_outputs = [(24, 64), (64, 64), (64, 128), *[(128, 128)] * 3]
    assert sorted(kernels) == sorted((3, 3, *sizes) for sizes in inputs_and_outputs)


@pytest.mark.parametrize("arch", ["resnet8", "airbench"])
def test_small_images_are_halved_to_no_less_than_a_pixel(arch):
    model = network(arch, "imagenet", width=4)
    outputs, _ = jax.jit(model.apply)(weights_of(shapes(model, size=9)), jnp.ones((2, 9, 9, 3)))
    assert np.isfinite(outputs).all()


def test_a_pooled_block_is_two_convolutions_and_pooling():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 6, 4)).astype(np.float32)
    for stride in (1, 2):
        block = PooledBlock(4 * stride, stride)
        made = jax.jit(block.init, static_argnums=2)(jax.random.key(1), x, False, None)
        for name in ("conv1", "conv2"):  # fresh ones are the identity, which hides what follows
            shape = made["params"][name]["kernel"].shape
            made["params"][name]["kernel"] = rng.normal(0, 0.2, shape).astype(np.float32)
        y = x
        for name in ("conv1", "conv2"):
            kernel = np.asarray(made["params"][name]["kernel"], np.float64)
            padded = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float64)
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
            y = np.einsum("nhwcij,ijcd->nhwd", windows, kernel)
            if name == "conv1" and stride == 2:
                y = y.reshape(2, 3, 2, 3, 2, 8).max((2, 4))
            y = np.maximum(y / np.sqrt(1 + 1e-5), 0)  # fresh statistics
        found = jax.jit(block.apply, static_argnums=2)(made, x, False, None)
        np.testing.assert_allclose(found, y, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (4, 4), (5, 3)])
def test_fresh_pooled_blocks_hand_on_what_they_get(inputs, outputs):
    x = np.random.default_rng(0).random((2, 6, 6, inputs), np.float32)
    layout = ("NHWC", "HWIO", "NHWC")

    @jax.jit
    def convolved(x):
        kernel = identity(jax.random.key(0), (3, 3, inputs, outputs), jnp.float32)
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)

    y = np.asarray(convolved(x))
    same = min(inputs, outputs)
    np.testing.assert_allclose(y[..., :same], x[..., :same], atol=1e-6)
    if outputs > inputs:  # what is drawn differs from it, and from one filter to the other
        assert np.abs(y[..., 3] - y[..., 4]).max() > 0.1 < np.abs(y[..., 3] - x[..., 2]).max()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transform_of_patches_is_orthonormal_and_sorts_means_from_differences(channels):
    kernel = np.asarray(patch_transform(channels)).reshape(4 * channels, 4 * channels)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(4 * channels), atol=1e-6)
    constant = np.ones(4 * channels) @ kernel
    np.testing.assert_allclose(
        constant, [np.sqrt(4 * channels)] + [0] * (len(kernel) - 1), atol=1e-6
    )


def test_whitening_makes_photographs_nearly_white():
    from skimage.data import astronaut

    image = astronaut()[None].astype(np.float32) / 127.5 - 1
    module, mask = Whitening(), jnp.ones(1)
    made = jax.jit(module.init, static_argnums=2)(jax.random.key(0), image, True, mask)
    assert "params" not in made
    apply = lambda x: module.apply(made, x, True, mask, mutable=["batch_stats"])[0]  # noqa: E731
    halves = np.asarray(jax.jit(jax.vmap(apply, axis_name=devices.AXIS))(image[None]))[0]
    assert halves.min() == 0 and halves.shape == (1, 511, 511, 24)
    coordinates = (halves[..., :12] - halves[..., 12:]).reshape(-1, 12)
    pixels = np.stack([image[0, i : 511 + i, j : 511 + j] for i in (0, 1) for j in (0, 1)], -2)
    before, after = np.corrcoef(pixels.reshape(-1, 12).T), np.cov(coordinates.T)
    np.testing.assert_allclose(np.diag(after)[:2], 1, atol=0.01)  # finest detail is damped
    assert np.diag(after).max() < 1.001
    off = ~np.eye(12, dtype=bool)
    assert np.abs(before[off]).mean() > 0.8 and np.abs(after[off]).mean() < 0.1


def test_bfloat16_computes_and_float32_keeps():
    model, half = network("resnet8"), network("resnet8", precision="bfloat16")
    variables = weights_of(shapes(half))
    assert shapes(model) == shapes(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes(half))} == {jnp.dtype("float32")}
    x, mask = np.random.default_rng(0).random((16, 32, 32, 3), np.float32), jnp.ones(16)

    def run(model):
        apply = lambda x: model.apply(  # noqa: E731
            variables,
            x,
            True,
            mask,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )
        outputs, state = jax.jit(jax.vmap(apply, axis_name=devices.AXIS))(x[None])
        return outputs, state["batch_stats"], state["intermediates"]["stem"]["__call__"][0]

    (expected, _), _, full_stem = run(model)
    (logits, pooled), statistics, stem = run(half)
    assert (full_stem.dtype, stem.dtype) == (jnp.float32, jnp.bfloat16)
    assert {a.dtype for a in jax.tree.leaves((logits, pooled, statistics))} == {
        jnp.dtype("float32")
    }
    # Batch norm over few random images enlarges roundings, so the mean is compared.
    assert 0 < np.abs(logits - expected).mean() < 0.15 * np.abs(expected).mean()


@pytest.mark.parametrize("arch", ["resnet8", "resnet50"])
def test_convolutions_of_training_in_bfloat16_have_no_other_precision(arch):
    """Forward and backward, of the program for a TPU; the last layer alone is float32."""
    model = build_model(ModelSettings(arch, 8, "imagenet", "bfloat16"), 5)
    made = shapes(model)

    def loss(params, statistics, images, mask):
        (logits, _), _ = model.apply(
            {"params": params, **statistics}, images, True, mask, mutable=["batch_stats"]
        )
        return jnp.mean(logits**2)

    over_devices = jax.vmap(jax.grad(loss), (None, None, 0, 0), axis_name=devices.AXIS)
    params, statistics = made["params"], {"batch_stats": made["batch_stats"]}
    batch = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 4), jnp.float32)
    traced = jax.jit(over_devices).trace(params, statistics, batch, mask)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()

    def kinds(operation):
        lines = [line for line in text.splitlines() if f"stablehlo.{operation}" in line]
        return [re.findall(r"(bf16|f16|f32)>", line.rpartition(" : (")[2]) for line in lines]

    kernels = sum(leaf.ndim == 4 for leaf in jax.tree.leaves(params))
    # Forward and for each kernel's gradient, and for the gradients of all inputs but the images.
    assert kinds("convolution") == [["bf16"] * 3] * (3 * kernels - 1)
    assert kinds("dot_general") == [["f32"] * 3] * 3
