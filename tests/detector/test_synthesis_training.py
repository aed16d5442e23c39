"""Short trainings by the methods that make outliers of features, also on several devices."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np
import pytest

from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images
from dream_jax.detector.batches import make_batches
from dream_jax.detector.detectors import DETECTORS, FitData
from dream_jax.detector.inputs import Head, Outputs, make_inputs
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.methods.base import Own, Shape
from dream_jax.detector.objective import make_objective
from dream_jax.detector.options import resolve
from dream_jax.detector.recipe import Recipe
from dream_jax.settings import OptimizerSettings
from dream_jax.training import devices
from dream_jax.training.loop import create_state, make_steps, transfer_calls
from dream_jax.training.optimizers import sgd

STEPS = 100
OPTIONS = {
    "vos": {"queue": 20, "candidates": 200, "weight": 1.0, "start": 0.02},
    "npos": {
        **{"queue": 20, "k": 5, "boundary": 8, "candidates": 40, "keep": 5, "scale": 0.3},
        **{"phi_hidden": 16, "projection": 8, "start": 0.02},
    },
}
CENTRES = 0.5 + 0.25 * np.array([[1, 0, 0, 0], [-0.5, 0.87, 0, 0], [-0.5, -0.87, 0, 0]])
OPTIMIZER = OptimizerSettings(0.05, 1e-6, 0.0, 0.9, 5e-4, 0.0)
SETTINGS = Recipe(0, 1, 31, 0, "none", 0.0, OPTIMIZER, 1, 1, 0)
# Detectors that use what a training has of its own.
SCORED_BY = {"vos": ("phi", {}), "npos": ("knn", {"k": 5})}


class Network(nn.Module):
    """Two layers, in the shape of the project's ResNet: (logits, features)."""

    @nn.compact
    def __call__(self, images, train=False, mask=None):
        x = images.reshape(len(images), -1) - 0.5
        features = nn.relu(nn.Dense(16)(x * 4))
        return nn.Dense(3, name="head")(features), features


def points(rng, labels) -> np.ndarray:
    """Images of 2 by 2 pixels around the centres of their classes."""
    return np.float32(CENTRES[labels] + 0.04 * rng.normal(size=(len(labels), 4))).reshape(
        -1, 2, 2, 1
    )


def train(name: str, until: Sequence[int]) -> list:
    """The state of a training, on the host, after each of so many steps."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    data = ImageSet("toy", Images.of(points(rng, labels)), labels, ("a", "b", "c"))
    method, model = TRAININGS[name], Network()
    options = resolve(f"method {name}", method.options, OPTIONS[name])
    variables = model.init(jax.random.key(0), data.images[:1])
    own = method.init(jax.random.key(1), Shape((2, 2, 1), 16, 3), options)
    variables = {"params": {"network": variables["params"], "method": own.params}}
    variables["method"] = own.state
    optimizer = sgd(OPTIMIZER, STEPS)
    if method.optimizer is not None:
        optimizer = method.optimizer(optimizer, OPTIMIZER, STEPS, options)
    batches = make_batches(SETTINGS, data, None)
    table = devices.replicate(batches.whole())
    state = devices.replicate(create_state(variables, optimizer, jax.random.key(2)))
    run = make_steps(make_objective(model, method, options, SETTINGS, STEPS), optimizer, None)
    calls = [range(step, step + 10) for step in range(0, max(until), 10)]
    states = []
    for done, batch in transfer_calls(batches, calls, hold=True):
        state, _ = run(table, state, batch)
        if done in until:
            states.append(devices.unreplicate(state))
    return states


def arrays(state) -> dict[str, np.ndarray]:
    """All that a training leaves, by name."""
    tree = {"params": state.params, "state": state.model_state}
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def first_steps() -> dict[str, np.ndarray]:
    """The arrays of all methods after ten steps."""
    trained = {name: arrays(train(name, [10])[0]) for name in OPTIONS}
    return {name + key: leaf for name, own in trained.items() for key, leaf in own.items()}


@pytest.fixture(scope="module")
def trained():
    """By method the states after ten steps and after all."""
    return {name: train(name, [10, STEPS]) for name in OPTIONS}


def test_the_number_of_devices_does_not_matter(on_devices, trained):
    # 31 rows and 3 classes do not divide by 2 devices; outliers come from the third step on.
    two = on_devices(2, first_steps)
    for name, (after_ten, _) in trained.items():
        for key, value in arrays(after_ten).items():
            np.testing.assert_allclose(
                two[name + key], value, atol=2e-4, rtol=2e-3, err_msg=name + key
            )


@pytest.mark.parametrize("name", OPTIONS)
def test_training_tells_outliers_by_their_score(name, trained):
    state = trained[name][1]
    method = TRAININGS[name]
    options = resolve(f"method {name}", method.options, OPTIONS[name])
    own = Own(state.params["method"], state.model_state["method"])
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3

    def forward(_, images) -> Outputs:
        outputs = Outputs(*Network().apply({"params": state.params["network"]}, images))
        return method.outputs(own, outputs, options)

    known, unknown = (
        make_inputs(forward, None, images)
        for images in (
            points(rng, labels),
            np.float32(0.5 + 0.03 * rng.normal(size=(60, 2, 2, 1))),  # between the classes
        )
    )
    assert np.mean(np.argmax(known.logits, 1) == labels) > 0.95
    key, settings = SCORED_BY[name]
    head = Head(*(np.zeros(shape) for shape in ((16, 3), 3)))
    fitted = DETECTORS[key].fit(FitData(np.asarray(known.features), labels, head), settings)
    score = [np.asarray(DETECTORS[key].score(fitted, x, settings)) for x in (known, unknown)]
    assert np.mean(score[0][:, None] > score[1][None]) > 0.95  # AUROC
