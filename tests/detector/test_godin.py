"""GODIN against NumPy: its similarities, its divisor, the choice of ε, and a toy training."""

import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dream_jax.detector.classifier import Variables
from dream_jax.detector.detectors import FitData
from dream_jax.detector.detectors.deconf import EPSILONS
from dream_jax.detector.inputs import Head, Outputs, make_inputs
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.methods.base import Examples, Own, Shape
from dream_jax.detector.methods.godin import SIMILARITIES
from dream_jax.detector.scoring import fit_detectors, scorer
from dream_jax.errors import UserError
from dream_jax.settings import OptimizerSettings
from dream_jax.training.batches import Batches, epoch_index
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.devices import MappedFunction, pmap, shard, unreplicate
from dream_jax.training.loop import create_state, fit
from dream_jax.training.optimizers import sgd

TRAINING = TRAININGS["godin"]
FEATURES = np.random.default_rng(0).normal(size=(23, 6)).astype(np.float32) + 0.5
LABELS = np.arange(23) % 4
REAL = 20  # the rows behind are padding
SETTINGS = OptimizerSettings(0.1, 0.0, 0.0, 0.9, 0.01, 0.0)


def fresh(similarity: str, features: int = 6) -> Own:
    options = {"similarity": similarity}
    return TRAINING.init(jax.random.key(3), Shape((8, 8, 1), features, 4), options)


def numpy_h(own: Own, similarity: str, features) -> np.ndarray:
    h, features = own.params["h"][similarity], np.asarray(features, np.float64)
    kernel = np.asarray(h["kernel"], np.float64)
    if similarity == "inner":
        return features @ kernel + h["bias"]
    if similarity == "euclidean":
        return -cdist(features, kernel.T, "sqeuclidean")
    return 1 - cdist(features, kernel.T, "cosine")


def numpy_g(own: Own, features, mean=None, var=None):
    """g with the statistics given, or those of the features; and what was normalised."""
    dense, norm = (own.params["g"][name] for name in ("Dense_0", "BatchNorm_0"))
    x = (np.asarray(features, np.float64) @ dense["kernel"] + dense["bias"])[:, 0]
    mean, var = (x.mean(), x.var()) if mean is None else (mean, var)
    normal = (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
    return 1 / (1 + np.exp(-normal)), x


def rows(features, labels, mask) -> Examples:
    n = len(features)
    nothing = jnp.zeros(n)
    return Examples(
        images=nothing,
        logits=nothing,
        features=features,
        labels=labels,
        is_id=jnp.ones(n),
        mask=mask,
        keys=nothing,
        key=nothing,
        progress=jnp.zeros(()),
        head=Head(nothing, nothing),
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_similarities_are_numpys(similarity):
    own = fresh(similarity)
    weights = own.params["h"][similarity]
    assert ("bias" in weights) == (similarity == "inner")
    if similarity == "inner":
        weights["bias"] = jnp.arange(4.0)
    h = SIMILARITIES[similarity](weights, FEATURES)
    np.testing.assert_allclose(h, numpy_h(own, similarity, FEATURES), rtol=1e-5, atol=1e-5)


def test_features_that_are_all_zero_have_a_finite_cosine():
    weights = fresh("cosine").params["h"]["cosine"]
    value, grad = jax.value_and_grad(lambda f: SIMILARITIES["cosine"](weights, f).sum())(
        jnp.zeros((2, 6))
    )
    assert value == 0 and np.all(np.isfinite(grad))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_loss_statistics_and_logits_are_numpys(similarity):
    """In training g has the statistics of the real rows, in evaluation the running ones."""
    own = fresh(similarity)
    own = own._replace(state={"BatchNorm_0": {"mean": jnp.array([0.3]), "var": jnp.array([2.0])}})

    def program(batch):
        def loss(params):
            shown = rows(batch["features"], batch["labels"], batch["real"])
            terms, state = TRAINING.terms(own._replace(params=params), shown, {})
            ce = terms["ce"]
            return jnp.sum(ce.values * ce.mask) / REAL, (terms["accuracy"], state)

        return jax.value_and_grad(loss, has_aux=True)(own.params)

    real = (np.arange(23) < REAL).astype(np.float32)
    batch = shard({"features": FEATURES, "labels": LABELS, "real": real})
    (loss, (accuracy, state)), grads = unreplicate(pmap(program)(batch))
    g, x = numpy_g(own, FEATURES[:REAL])
    logits = numpy_h(own, similarity, FEATURES[:REAL]) / g[:, None]
    own_logit = logits[np.arange(REAL), LABELS[:REAL]]
    np.testing.assert_allclose(loss, np.mean(np.log(np.exp(logits).sum(1)) - own_logit), rtol=1e-4)
    correct = np.argmax(logits, 1) == LABELS[:REAL]
    assert np.array_equal(accuracy.values[:REAL], correct) and accuracy.weight == 0
    for reached in (grads["h"][similarity]["kernel"], grads["g"]["Dense_0"]["kernel"]):
        assert np.abs(reached).max() > 1e-3
    running = state["BatchNorm_0"]
    np.testing.assert_allclose(running["mean"][0], 0.9 * 0.3 + 0.1 * x.mean(), rtol=1e-4)
    np.testing.assert_allclose(running["var"][0], 0.9 * 2.0 + 0.1 * x.var(), rtol=1e-4)

    own = own._replace(state=state)
    logits, features, *_ = TRAINING.outputs(own, Outputs(FEATURES, FEATURES), {})
    g, _ = numpy_g(own, FEATURES, running["mean"], running["var"])
    expected = numpy_h(own, similarity, FEATURES) / g[:, None]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert features is FEATURES


def test_h_alone_has_no_weight_decay():
    params = {"network": {"kernel": jnp.ones(3)}, "method": fresh("cosine").params}
    optimizer = TRAINING.optimizer(sgd(SETTINGS, 10), SETTINGS, 10, {})
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(still, optimizer.init(params), params)
    # lr · decay · (1 + momentum), as the momentum is Nesterov's
    decayed = jax.tree.map(lambda p: -0.1 * 0.01 * 1.9 * p, params)
    decayed["method"]["h"] = still["method"]["h"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, decayed)


# A network whose score rises and falls again along the gradient, on "images" that are vectors.
WAVES = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
IMAGES = np.random.default_rng(2).random((45, 5)).astype(np.float32)


def waves(classifier, images):
    features = jnp.sin(20 * (images @ WAVES)) + 1.5
    return TRAINING.outputs(classifier.own, Outputs(features, features), {})


def fit_deconf(forward, classifier, images, batch_size, image_scale=1.0):
    """The detector of the paper, fitted to images."""

    def evaluate(function, rows):
        def program(variables, batch):
            return function(make_inputs(forward, variables, batch["images"], image_scale))

        return [MappedFunction(program, classifier, batch_size)({"images": images[rows]})]

    head = Head(np.zeros((1, 1)), np.zeros(1))
    features, labels = np.zeros((len(images), 1)), np.zeros(len(images), int)
    data = FitData(features, labels, head, evaluate=evaluate)
    return fit_detectors({"godin": ("deconf", {})}, data)["godin"]


def numpy_score(own: Own, similarity: str, images) -> np.ndarray:
    features = np.sin(20 * (np.asarray(images, np.float64) @ WAVES)) + 1.5
    return numpy_h(own, similarity, features).max(1)


def numpy_moved(own: Own, similarity: str, epsilon: float, scale: float) -> np.ndarray:
    """The step against the numerical gradient, ε in units of `scale` times those of images."""
    gradient = [
        numpy_score(own, similarity, IMAGES + step) - numpy_score(own, similarity, IMAGES - step)
        for step in 1e-6 * np.eye(5)
    ]
    return IMAGES + epsilon / scale * np.sign(np.stack(gradient, 1))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_epsilon_is_the_best_of_the_list_on_id_images(similarity):
    own = fresh(similarity)
    classifier = Variables({}, own)
    fitted = fit_deconf(waves, classifier, IMAGES, 20, image_scale=2.0)
    means = [
        numpy_score(own, similarity, numpy_moved(own, similarity, epsilon, 2.0)).mean()
        for epsilon in EPSILONS
    ]
    best = np.argmax(means)
    assert 0 < best < len(EPSILONS) - 1  # so that taking the first or the last would fail
    np.testing.assert_allclose(fitted.state["epsilon"], [EPSILONS[best]])
    _, scores = scorer(waves, classifier, {"godin": fitted}, 20, 2.0)(IMAGES)
    moved = numpy_moved(own, similarity, EPSILONS[best], 2.0)
    expected = numpy_score(own, similarity, moved)
    np.testing.assert_allclose(scores["godin"], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("count", "rows"), [(3, [0, 15, 30]), (4, [0, 11, 22, 33]), (5000, list(range(45)))]
)
def test_epsilon_is_chosen_on_images_from_all_over_the_training_set(count, rows):
    shown = []

    def evaluate(function, some):
        shown.extend(some)
        return [np.zeros((len(some), len(EPSILONS)))]

    head = Head(np.zeros((1, 1)), np.zeros(1))
    data = FitData(np.zeros((45, 1)), np.zeros(45, int), head, evaluate=evaluate)
    fit_detectors({"godin": ("deconf", {"images": count})}, data)
    assert shown == rows


def test_a_small_step_raises_the_score():
    own = fresh("cosine")
    fitted = fit_deconf(waves, Variables({}, own), IMAGES, 45, image_scale=2.0)
    fitted.state["epsilon"][:] = EPSILONS[0]
    _, scores = scorer(waves, Variables({}, own), {"godin": fitted}, 45, 2.0)(IMAGES)
    assert np.all(scores["godin"] >= numpy_score(own, "cosine", IMAGES) - 1e-5)


# A toy training: four clouds, an encoder of one layer.
CENTRES = 2 * np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
NOISE = np.random.default_rng(4).normal(size=(120, 5)).astype(np.float32)
CLOUDS = {"images": CENTRES[np.arange(120) % 4] + 0.5 * NOISE, "labels": np.arange(120) % 4}
STEPS = 80


def encode(network, images):
    return jax.nn.relu(images @ network["kernel"] + network["bias"])


def train(similarity: str, folder: str | None = None) -> dict[str, np.ndarray]:
    """Logits of the clouds after training, and the ε for them; 30 rows per step."""
    key = jax.random.key(0)
    network = {"kernel": jax.random.normal(key, (5, 16)) / 5**0.5, "bias": jnp.zeros(16)}
    own = fresh(similarity, 16)
    variables = {"params": {"network": network, "method": own.params}, "method": own.state}

    def objective(params, model_state, batch, keys):
        features = encode(params["network"], batch["images"])
        shown = rows(features, batch["labels"], batch["mask"])
        terms, state = TRAINING.terms(Own(params["method"], model_state["method"]), shown, {})
        return terms, {"method": state}

    settings = replace(SETTINGS, learning_rate=0.05, weight_decay=1e-4)
    optimizer = TRAINING.optimizer(sgd(settings, STEPS), settings, STEPS, {})
    with Checkpoints(Path(folder or tempfile.mkdtemp())) as checkpoints:
        state = fit(
            objective,
            create_state(variables, optimizer, key),
            Batches(CLOUDS, lambda step: epoch_index(120, step, 30, 0)),
            optimizer,
            steps=STEPS,
            checkpoints=checkpoints,
            save_every=STEPS,
            progress="toy",
        )
    own = Own(state.params["method"], state.model_state["method"])
    classifier = Variables(state.params["network"], own)

    def forward(classifier, images):
        features = encode(classifier.network, images)
        return TRAINING.outputs(classifier.own, Outputs(features, features), {})

    fitted = fit_deconf(forward, classifier, CLOUDS["images"], 50)
    logits, scores = scorer(forward, classifier, {"godin": fitted}, 50)(CLOUDS["images"])
    return {"logits": logits, "scores": scores["godin"], "epsilon": fitted.state["epsilon"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("godin")
    return folder, {name: train(name, str(folder / name)) for name in SIMILARITIES}


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_toy_training_is_accurate(trained, similarity):
    logits = trained[1][similarity]["logits"]
    assert np.mean(logits.argmax(1) == CLOUDS["labels"]) > 0.95


def test_four_devices_give_the_classifier_and_epsilon_of_one(trained, on_devices):
    four = on_devices(4, train, "cosine")  # 30 rows leave the last device's padded
    for name, expected in trained[1]["cosine"].items():
        np.testing.assert_allclose(four[name], expected, rtol=2e-3, atol=2e-4, err_msg=name)


def test_a_checkpoint_of_another_similarity_is_refused(trained):
    with pytest.raises(UserError, match=r"checkpoint .*h\.euclidean\.kernel"):
        train("euclidean", str(trained[0] / "cosine"))
