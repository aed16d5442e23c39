"""What moves a network: SGD, and Muon for its convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dream_jax.models.resnet import build_model, init_model
from dream_jax.settings import ModelSettings, OptimizerSettings
from dream_jax.training.optimizers import network_rate, of_network

STEPS = 10
PLAIN = OptimizerSettings(0.2, 1e-3, 0.2, 0.8, 1e-3, 0.0)
MUON = OptimizerSettings(0.2, 1e-3, 0.2, 0.8, 1e-3, 0.5)
KERNELS = ((3, 3, 4, 16), (3, 3, 2, 40), (1, 1, 8, 8))  # more rows, more columns, square


def params(seed: int) -> dict:
    draw = np.random.default_rng(seed).standard_normal
    kernels = {f"conv{i}": jnp.asarray(draw(shape), jnp.float32) for i, shape in enumerate(KERNELS)}
    return kernels | {"head": jnp.asarray(draw((6, 5)), jnp.float32), "scale": jnp.ones(6)}


def moves(settings: OptimizerSettings, count: int = 3) -> list[dict]:
    """What each of some steps adds to the parameters."""
    optimizer, at = of_network(settings, STEPS), params(0)
    state, found, update = optimizer.init(at), [], jax.jit(optimizer.update)
    for step in range(count):
        move, state = update(params(step + 1), state, at)
        at = optax.apply_updates(at, move)
        found.append(move)
    return found


def momenta(name: str, count: int = 3) -> list[np.ndarray]:
    """Nesterov's momentum of the kernel's gradients by NumPy, as a matrix; its length is free."""
    mean, found = 0.0, []
    for step in range(count):
        gradient = np.asarray(params(step + 1)[name], np.float64)
        mean = 0.8 * mean + 0.2 * gradient
        ahead, now = 1 - 0.8 ** (step + 2), 1 - 0.8 ** (step + 1)  # without the zero at the start
        found.append((0.8 * mean / ahead + 0.2 * gradient / now).reshape(-1, gradient.shape[-1]))
    return found


@pytest.mark.parametrize("name", ["conv0", "conv1", "conv2"])
def test_a_kernel_moves_by_its_momentum_with_all_singular_values_near_one(name):
    """Muon keeps the singular vectors; its iteration takes the values to 0.7 to 1.2."""
    found = moves(MUON)
    for step, momentum in enumerate(momenta(name)):
        left, values, right = np.linalg.svd(momentum, full_matrices=False)
        rate = 0.5 * float(network_rate(MUON, STEPS)(step))
        move = -np.asarray(found[step][name], np.float64).reshape(momentum.shape) / rate
        seen = left.T @ move @ right.T
        apart = seen - np.diag(np.diag(seen))
        assert np.abs(apart).max() < 1e-3
        assert np.linalg.norm(move) == pytest.approx(np.linalg.norm(seen), rel=1e-5)
        large = values > 0.1 * values.max()  # what is nearly nothing takes more iterations
        assert np.all((np.diag(seen)[large] > 0.6) & (np.diag(seen)[large] < 1.3))


def test_what_is_no_convolution_moves_as_by_sgd_alone():
    for with_muon, plain in zip(moves(MUON), moves(PLAIN), strict=True):
        for name in ("head", "scale"):
            np.testing.assert_array_equal(with_muon[name], plain[name])
        assert not np.allclose(with_muon["conv0"], plain["conv0"], rtol=0.1)


def test_sgd_is_nesterovs_with_l2_decay_and_a_cosine_after_a_warm_up():
    """By NumPy in float64."""
    at, velocity = np.asarray(params(0)["head"], np.float64), 0.0
    for step, move in enumerate(moves(PLAIN)):
        if step < 2:
            rate = 0.02 + (0.2 - 0.02) * step / 2
        else:
            rate = 1e-3 + (0.2 - 1e-3) * (1 + np.cos(np.pi * (step - 2) / 8)) / 2
        gradient = np.asarray(params(step + 1)["head"], np.float64) + 1e-3 * at
        velocity = 0.8 * velocity + gradient
        expected = -rate * (0.8 * velocity + gradient)
        np.testing.assert_allclose(move["head"], expected, rtol=1e-4, atol=1e-6)
        at = at + expected


@pytest.mark.parametrize("arch", ["airbench", "resnet8"])
def test_kernels_are_the_convolutions_of_a_network(arch):
    """All that batch norm follows, and neither the head nor batch norm's own."""
    settings = ModelSettings(arch, 8, "small", "float32")
    network = build_model(settings, 10)
    shapes = jax.eval_shape(lambda key: init_model(network, key, (32, 32, 3)), jax.random.key(0))
    state = jax.eval_shape(of_network(MUON, STEPS).init, shapes["params"])
    moved = jax.tree.leaves(state.inner_states["convolutions"].inner_state[0].mu)
    kernels = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"])
        if path[-1].key == "kernel" and path[0].key != "head"
    ]
    assert [leaf.shape for leaf in moved] == [leaf.shape for leaf in kernels]
    assert len(kernels) > 5
