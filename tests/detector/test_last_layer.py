"""FEVER-OOD's settings: the regularisers of the last layer, and fewer features before it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shown import weights_of

from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images
from dream_jax.detector.batches import make_batches
from dream_jax.detector.classifier import Classifier, Variables
from dream_jax.detector.extra_images import ExtraImages
from dream_jax.detector.last_layer import KINDS, OPTIONS, regulariser
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.methods.base import Shape
from dream_jax.detector.objective import make_objective
from dream_jax.detector.options import resolve
from dream_jax.detector.recipe import Recipe
from dream_jax.models.resnet import build_model, init_model
from dream_jax.settings import ModelSettings, OptimizerSettings
from dream_jax.training import devices
from dream_jax.training.loop import create_state, make_steps, transfer_calls
from dream_jax.training.optimizers import sgd

WITH = [name for name, training in TRAININGS.items() if training.linear]
STEPS, FEATURES, CLASSES = 30, 12, 4
OPTIMIZER = OptimizerSettings(0.02, 1e-3, 0.0, 0.9, 5e-4, 0.0)
RECIPE = Recipe(0, 1, 12, 6, "none", 0.0, OPTIMIZER, 1, 1, 0)
MODEL = ModelSettings("resnet8", 4, "stride2", "float32")


def values(kernel) -> np.ndarray:
    return np.linalg.svd(np.asarray(kernel, np.float64), compute_uv=False)


EXPECTED = {
    "smallest_singular_value": lambda kernel: 1 / values(kernel)[-1],
    "condition_number": lambda kernel: values(kernel)[0] / values(kernel)[-1],
}


@pytest.mark.parametrize("shape", [(12, 4), (5, 5), (3, 7)])
@pytest.mark.parametrize("kind", KINDS)
def test_regulariser_and_its_gradient_are_those_of_numpy(kind, shape):
    """The gradient is compared with finite differences of NumPy's singular values."""
    kernel = np.random.default_rng(0).normal(size=shape)
    value, gradient = jax.value_and_grad(lambda k: regulariser(kind, k))(jnp.float32(kernel))
    assert value == pytest.approx(EXPECTED[kind](kernel), rel=1e-4)
    differences, step = np.empty(shape), 1e-5
    for place in np.ndindex(shape):
        moved = np.zeros(shape)
        moved[place] = step
        above, below = (EXPECTED[kind](kernel + sign * moved) for sign in (1, -1))
        differences[place] = (above - below) / (2 * step)
    np.testing.assert_allclose(gradient, differences, rtol=2e-3, atol=2e-3 * np.abs(value))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_finite_where_singular_values_are_equal(kind):
    gradient = jax.grad(lambda k: regulariser(kind, k))(2 * jnp.eye(6, 4))
    assert np.isfinite(gradient).all()


def test_trainings_whose_logits_come_from_the_last_layer_have_the_settings():
    assert {"cross_entropy", "vos", "outlier_exposure", "dream_id", "dream_ood"} <= set(WITH)
    for name, training in TRAININGS.items():
        own = {option: training.options.get(option) for option in OPTIONS}
        assert own == (dict(OPTIONS) if name in WITH else dict.fromkeys(OPTIONS)), name
        if name in WITH:
            assert resolve(name, training.options, {})["regulariser_weight"] == 0


class Network(nn.Module):
    """Two layers, in the shape of the project's ResNet: (logits, features)."""

    @nn.compact
    def __call__(self, images, train=False, mask=None):
        x = images.reshape(len(images), -1) - 0.5
        features = nn.relu(nn.Dense(FEATURES)(x * 4))
        return nn.Dense(CLASSES, name="head")(features), features


def trained(name: str, given: dict, plain: bool = False, steps: int = STEPS) -> dict:
    """The network's parameters after a short training.

    Args:
      given: settings of the training.
      plain: whether to leave out all settings of the last layer, as if there were none.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(48) % CLASSES
    data = ImageSet("toy", Images.of(rng.random((48, 4, 4, 1))), labels, ("a", "b", "c", "d"))
    method, model, extra = TRAININGS[name], Network(), None
    options = resolve(name, method.options, given)
    if plain:
        options = {key: value for key, value in options.items() if key not in OPTIONS}
    if method.extra:
        of_class = np.arange(10) % CLASSES if method.extra == "inliers" else None
        extra = ExtraImages([Images.of(rng.random((10, 4, 4, 1)))], of_class)
    variables = model.init(jax.random.key(0), data.images[:1])
    own = method.init(jax.random.key(1), Shape((4, 4, 1), FEATURES, CLASSES), options)
    variables = {"params": {"network": variables["params"], "method": own.params}}
    variables |= {"method": own.state} if own.state else {}
    optimizer = sgd(OPTIMIZER, STEPS)
    if method.optimizer is not None:
        optimizer = method.optimizer(optimizer, OPTIMIZER, STEPS, options)
    batches = make_batches(RECIPE, data, extra)
    table = devices.replicate(batches.whole())
    state = devices.replicate(create_state(variables, optimizer, jax.random.key(2)))
    run = make_steps(make_objective(model, method, options, RECIPE, STEPS), optimizer, None)
    for _, batch in transfer_calls(batches, [range(0, steps)], hold=True):
        state, _ = run(table, state, batch)
    return devices.unreplicate(state).params["network"]


OWN = {"vos": {"queue": 4, "candidates": 20, "start": 0.1}}


@pytest.mark.parametrize("name", [name for name in WITH if name != "gan"])  # slow to compile
def test_regularisers_raise_the_smallest_singular_value_in_every_training(name):
    given = OWN.get(name, {})
    without = values(trained(name, given)["head"]["kernel"])
    kinds = KINDS if name == "dream_ood" else KINDS[:1]
    for kind in kinds:
        own = given | {"regulariser": kind, "regulariser_weight": 0.1}
        found = values(trained(name, own)["head"]["kernel"])
        assert found[-1] > 1.1 * without[-1], kind
        assert found[0] / found[-1] < 0.95 * without[0] / without[-1], kind


@pytest.mark.parametrize("name", ["cross_entropy", "dream_ood"])
def test_without_a_weight_the_training_is_the_same_to_the_bit(name):
    plain = trained(name, {}, plain=True, steps=5)
    for given in ({}, {"regulariser": "condition_number", "regulariser_weight": 0.0}):
        jax.tree.map(np.testing.assert_array_equal, trained(name, given, steps=5), plain)


def first_steps() -> dict[str, np.ndarray]:
    given = {"regulariser_weight": 0.1, "regulariser": "condition_number"}
    return {"kernel": trained("dream_ood", given, steps=5)["head"]["kernel"]}


def test_the_number_of_devices_does_not_matter(on_devices):
    np.testing.assert_allclose(
        on_devices(2, first_steps)["kernel"], first_steps()["kernel"], atol=2e-5
    )


def test_fewer_features_before_the_last_layer():
    images = np.random.default_rng(0).random((5, 16, 16, 1), np.float32)
    for reduced, width in ((0, 16), (3, 3)):
        network = build_model(MODEL, CLASSES, reduced)
        init = partial(init_model, network, image_shape=(16, 16, 1))
        variables = weights_of(jax.eval_shape(init, jax.random.key(0)))
        assert ("reduction" in variables["params"]) == bool(reduced)
        assert variables["params"]["head"]["kernel"].shape == (width, CLASSES)
        training = TRAININGS["cross_entropy"]
        options = resolve("cross_entropy", training.options, {"feature_dimension": reduced})
        own = Variables(variables)
        classifier = Classifier(MODEL, training, options, own, CLASSES, 5)
        logits, features = jax.jit(lambda v, x, run=classifier.forward: run(v, x)[:2])(own, images)
        assert features.shape == (5, width) and features.min() >= 0
        np.testing.assert_allclose(logits, classifier.head(features), atol=1e-5)
    pooled = jax.jit(build_model(MODEL, CLASSES).apply)(
        {**variables, "params": {**variables["params"], "head": {
            "kernel": np.zeros((16, CLASSES)), "bias": np.zeros(CLASSES)}}}, images)[1]  # fmt: skip
    layer = variables["params"]["reduction"]
    expected = np.maximum(np.asarray(pooled) @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(features, expected, atol=1e-5)
