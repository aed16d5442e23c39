"""Batch norm against Flax's, and the shapes of the networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from dream_jax.models.norm import BatchNorm
from dream_jax.models.resnet import STAGES, STEMS, build_model, init_model
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


def test_evaluation_mode_is_that_of_flax():
    y = BatchNorm().apply(variables(), images(3), False)
    expected = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables(), images(3))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("arch", STAGES)
def test_resnet_shapes(arch, stem):
    model = build_model(ConfigDict({"arch": arch, "width": 8, "stem": stem}), outputs=7)
    made = jax.eval_shape(lambda key: init_model(model, key, (32, 32, 3)), jax.random.key(0))
    batch = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    outputs, pooled = jax.eval_shape(model.apply, made, batch)
    stages = STAGES[arch]
    assert outputs.shape == (2, 7)
    assert pooled.shape == (2, 8 * 2 ** (len(stages) - 1))
    kernel = 7 if stem == "imagenet" else 3
    assert made["params"]["stem"]["kernel"].shape == (kernel, kernel, 3, 8)
    assert sum("BasicBlock" in name for name in made["params"]) == sum(stages)


@pytest.mark.parametrize(("stem", "size"), [("small", 8), ("stride2", 4), ("imagenet", 2)])
def test_resnet_size_of_the_last_feature_map(stem, size):
    model = build_model(ConfigDict({"arch": "resnet8", "width": 4, "stem": stem}), outputs=2)
    x = jnp.zeros((1, 32, 32, 1))
    made = jax.eval_shape(lambda key: init_model(model, key, x.shape[1:]), jax.random.key(0))
    capture = lambda v: model.apply(v, x, capture_intermediates=True)[1]  # noqa: E731
    blocks = jax.eval_shape(capture, made)["intermediates"]
    assert blocks["BasicBlock_2"]["__call__"][0].shape == (1, size, size, 16)


def test_resnet34_is_the_papers():
    """As many parameters as torchvision's resnet34 with its 1,000 classes."""
    model = build_model(ConfigDict({"arch": "resnet34", "width": 64, "stem": "imagenet"}), 1000)
    made = jax.eval_shape(lambda key: init_model(model, key, (32, 32, 3)), jax.random.key(0))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(made["params"]))
    assert count == 21_797_672
