"""Short trainings by the methods that make outliers of features: what they learn, where they run."""

import tempfile
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from dream_jax.data.registry import ImageSet
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.methods import METHODS
from dream_jax.detector.methods.base import Own, Shape
from dream_jax.detector.options import resolve
from dream_jax.detector.train import make_batches, make_objective
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.loop import create_state, fit
from dream_jax.training.optimizers import sgd

OPTIONS = {
    "vos": {"queue": 20, "candidates": 200, "weight": 1.0, "start": 0.3},
    "npos": {
        **{"queue": 20, "k": 5, "boundary": 8, "candidates": 40, "keep": 5, "scale": 0.3},
        **{"phi_hidden": 16, "projection": 8, "score_k": 5, "start": 0.3},
    },
}
CENTRES = 0.5 + 0.25 * np.array([[1, 0, 0, 0], [-0.5, 0.87, 0, 0], [-0.5, -0.87, 0, 0]])
SETTINGS = ConfigDict(
    {
        "seed": 0,
        "data": {"workers": 0},
        "classifier": {"batch_size": 31, "augment": "none", "degrade": 0.0},
    }
)
OPTIMIZER = ConfigDict(
    {
        "learning_rate": 0.05,
        "final_learning_rate": 1e-6,
        "warmup": 0.0,
        "momentum": 0.9,
        "weight_decay": 5e-4,
    }
)


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


def train(name: str, steps: int):
    """(method, options, trained network parameters, its own)."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    data = ImageSet("toy", points(rng, labels), labels, ("a", "b", "c"))
    method, model = METHODS[name], Network()
    options = resolve(f"method {name}", method.options, OPTIONS[name])
    variables = model.init(jax.random.key(0), data.images[:1])
    own = method.init(jax.random.key(1), Shape((2, 2, 1), 16, 3), options)
    variables = {"params": {"network": variables["params"], "method": own.params}}
    variables["method"] = own.state
    optimizer = sgd(OPTIMIZER, steps)
    if method.optimizer is not None:
        optimizer = method.optimizer(optimizer, OPTIMIZER, steps, options)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder)) as checkpoints:
        state = fit(
            make_objective(model, method, options, SETTINGS, steps),
            create_state(variables, optimizer, jax.random.key(2)),
            make_batches(SETTINGS, data, None),
            optimizer,
            steps=steps,
            checkpoints=checkpoints,
            save_every=steps,
            progress="test",
        )
    own = Own(state.params["method"], state.model_state["method"])
    return method, options, state.params["network"], own


def arrays(name: str, steps: str) -> dict[str, np.ndarray]:
    """All that a training leaves, by name."""
    _, _, network, own = train(name, int(steps))
    leaves = jax.tree_util.tree_leaves_with_path({"network": network, "own": own})
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_number_of_devices_does_not_matter(on_devices, name):
    # 31 rows and 3 classes do not divide by 2 devices; outliers come from the third step on.
    one, two = (on_devices(count, arrays, name, 10) for count in (1, 2))
    assert set(one) == set(two)
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, atol=2e-4, rtol=2e-3, err_msg=key)


@pytest.mark.parametrize("name", OPTIONS)
def test_training_tells_outliers_by_their_score(name):
    method, options, network, own = train(name, 150)
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    apply = partial(Network().apply, {"params": network})

    def outputs(images):
        return method.outputs(own, *apply(images))

    known = ImageSet("known", points(rng, labels), labels, ()).images
    unknown = np.float32(0.5 + 0.03 * rng.normal(size=(60, 2, 2, 1)))  # between the classes
    evaluate = lambda function: function(Inputs(*outputs(known), None, None))  # noqa: E731
    state = method.fit(own, evaluate, options)
    logits, _ = outputs(known)
    assert np.mean(np.argmax(logits, 1) == labels) > 0.95
    score = [
        np.asarray(method.score(state, Inputs(*outputs(x), None, None), options))
        for x in (known, unknown)
    ]
    assert np.mean(score[0][:, None] > score[1][None]) > 0.95  # AUROC
