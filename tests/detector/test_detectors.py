"""Post-hoc detectors against pytorch-ood's scores, NumPy, and what all of them promise."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import rankdata
from shown import evaluate_on, weights_of, with_layers

from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images
from dream_jax.detector import classifier as classifier_module
from dream_jax.detector.classifier import Classifier, Variables
from dream_jax.detector.detectors import DETECTORS, FitData, base
from dream_jax.detector.detectors.ash import shape_activations
from dream_jax.detector.detectors.odin import perturb
from dream_jax.detector.detectors.statistics import quantile, scatter, whitening
from dream_jax.detector.inputs import NEEDS, Head, Inputs, Outputs, visible
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.methods.base import Shape
from dream_jax.detector.methods.npos import mlp
from dream_jax.detector.options import resolve
from dream_jax.detector.scores import max_softmax
from dream_jax.detector.scoring import fit_detectors, fit_head, scorer
from dream_jax.errors import UserError
from dream_jax.evaluation.metrics import ood_metrics
from dream_jax.models.resnet import build_model, init_model
from dream_jax.settings import ModelSettings
from dream_jax.training.devices import MappedFunction
from dream_jax.vectors import unit

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "detectors.npz"))
HEAD = Head(GOLDEN["w2"], GOLDEN["b2"])
WEIGHTS = {name: GOLDEN[name] for name in ("w0", "b0", "w1", "b1", "w2", "b2")}
# Those that are fitted to images alone are tested with the trainings that they were made for.
OF_FEATURES = {name: d for name, d in DETECTORS.items() if not d.made_for}
# The settings of the golden file.
SETTINGS = {
    **{name: {} for name in OF_FEATURES},
    "odin": {"epsilon": 0.0014, "temperature": 1000.0},
    "knn": {"k": 50},
    "vim": {"dimension": 24},
    "react": {"quantile": 0.9},
    "dice": {"sparsity": 0.7},
    "gen": {"gamma": 0.1},
    "nnguide": {"k": 10},
}


def chosen(settings: dict) -> dict:
    """Settings by the name of a detector, as `fit_detectors` takes them."""
    return {name: (name, own) for name, own in settings.items()}


def network(weights, x, added=None) -> Outputs:
    """The golden file's encoder and head; vectors in the place of images."""
    x = jax.nn.relu(x @ weights["w0"] + weights["b0"])
    features, layers = with_layers(jax.nn.relu(x @ weights["w1"] + weights["b1"]), added)
    return Outputs(features @ weights["w2"] + weights["b2"], features, layers=layers)


def features_of(images) -> np.ndarray:
    run = MappedFunction(lambda v, batch: network(v, batch["images"]).features, WEIGHTS, 1000)
    return run({"images": images})


def fit_data(features, labels=GOLDEN["train_y"], **given) -> FitData:
    run = evaluate_on(network, WEIGHTS, GOLDEN["train_x"])
    return FitData(features, labels, **({"head": HEAD, "evaluate": run} | given))


def scores_by(fitted, batch_size=600, rows=slice(None)) -> dict[str, np.ndarray]:
    logits, scores = scorer(network, WEIGHTS, fitted, batch_size)(GOLDEN["test_x"][rows])
    return scores | {"logits": logits}


@pytest.fixture(scope="module")
def features():
    return features_of(GOLDEN["train_x"])


@pytest.fixture(scope="module")
def data(features):
    return fit_data(features)


@pytest.fixture(scope="module")
def fitted(data):
    """All of them with the settings of the golden file; not to be changed."""
    return fit_detectors(chosen(SETTINGS), data)


@pytest.fixture(scope="module")
def scores(fitted):
    return scores_by(fitted)


# Largest differences allowed, in the scale of the other library. ViM's small eigenvalues are close
# to each other, beside a largest one of 4,000 times their size: float32 rounding turns the residual
# subspace by some 1e-3.
VALUES = {
    "msp": 1e-6,
    "max_logit": 1e-5,
    "energy": 1e-5,
    "odin": 2e-7,
    "knn": 5e-6,
    "vim": 0.01,
    "react": 1e-5,
    "dice": 1e-5,
    "gen": 2e-6,
    "she": 1e-3,
    "kl_matching": 1e-5,
    "nnguide": 2e-4,
}


def golden(name):
    return -GOLDEN[f"score_{'klm' if name == 'kl_matching' else name.replace('_', '')}"]


@pytest.mark.parametrize("name", VALUES)
def test_golden_by_value(scores, name):
    np.testing.assert_allclose(scores[name], golden(name), rtol=0, atol=VALUES[name])


@pytest.mark.parametrize("name", ["mahalanobis", "rmd"])
def test_golden_by_rank(scores, name):
    """pytorch-ood leaves out the division by n: ours are larger by it (and by 2, Mahalanobis)."""
    assert np.abs(rankdata(scores[name]) - rankdata(golden(name))).max() <= 2
    factor = 2000 * (2 if name == "mahalanobis" else 1)
    np.testing.assert_allclose(scores[name], factor * golden(name), rtol=2e-4, atol=0.02)


def test_every_golden_score_is_compared():
    stored = {name for name in GOLDEN if name.startswith("score_")}
    compared = {*VALUES, "mahalanobis", "rmd"}
    assert len(stored) == len(compared)
    assert compared < set(OF_FEATURES)


def test_higher_is_more_id(scores):
    ids = int(GOLDEN["n_id"])
    for name in OF_FEATURES:
        assert scores[name].shape == (600,)
        measured = ood_metrics(scores[name][:ids], scores[name][ids:])
        least = {"ash_s": 0.65, "residual": 0.85, "nac_ue": 0.8}.get(name, 0.95)
        assert measured["auroc"] > least, name


def test_every_detector_says_what_it_is():
    for name, detector in DETECTORS.items():
        assert detector.name == name
        assert detector.title and detector.paper
        assert detector.needs and detector.needs <= set(NEEDS)
        assert all(option.rule.holds(option.default) for option in detector.options.values())


def test_a_score_sees_only_what_its_detector_needs():
    inputs = Inputs("logits", "features", "numerators", "certainty", "images", "forward", 2.0)

    def seen(*needs: str) -> set[str]:
        found = visible(inputs, frozenset(needs))
        assert found.image_scale == 2.0
        return {name for name, value in found._asdict().items() if value == name}

    assert seen("logits") == {"logits"}
    assert seen("features", "head") == {"features"}
    assert seen("gradients") == {"images", "forward"}
    assert seen("certainty", "numerators") == {"certainty", "numerators"}


def test_fitting_in_parts_is_fitting_at_once(fitted, data, monkeypatch):
    monkeypatch.setattr(base, "ROWS_AT_ONCE", 333)
    parts = fit_detectors(chosen(SETTINGS), data)
    # Eigenvectors have no sign: what is made of them is compared by scores.
    eigen = ("mahalanobis", "rmd", "vim", "residual", "gmm")
    for name in set(OF_FEATURES) - set(eigen):
        both = (jax.tree.leaves(own[name].state) for own in (fitted, parts))
        for a, b in zip(*both, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7, err_msg=name)
    both = [
        scorer(network, WEIGHTS, {name: f[name] for name in eigen}, 300)(GOLDEN["test_x"])[1]
        for f in (fitted, parts)
    ]
    for name in eigen:
        np.testing.assert_allclose(both[0][name], both[1][name], rtol=1e-4, atol=1e-3)


def test_features_may_lie_in_a_file(features, data, tmp_path):
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    both = chosen({"react": {}, "knn": {}})
    here = fit_detectors(both, data)
    there = fit_detectors(both, FitData(mapped, data.labels, HEAD))
    assert here["react"].state["threshold"] == there["react"].state["threshold"]
    np.testing.assert_array_equal(here["knn"].state, there["knn"].state)


def scores_of_some_rows():
    """For `on_devices`: a batch that does not divide the rows, nor the devices the batch."""
    fitted = fit_detectors(chosen(SETTINGS), fit_data(features_of(GOLDEN["train_x"])))
    return scores_by(fitted, batch_size=64, rows=slice(0, 150))


def test_batches_and_devices_do_not_matter(scores, on_devices):
    for name, found in on_devices(3, scores_of_some_rows).items():
        # GEN raises 1 - p, of which float32 has few digits, to the power of 0.1. Gram divides by
        # the ends of ranges, which may be nearly 0.
        close = {"gen": {"atol": 5e-4}, "gram": {"rtol": 5e-4, "atol": 2e-4}}
        close = close.get(name, {"rtol": 2e-5, "atol": 2e-4})
        np.testing.assert_allclose(found, scores[name][:150], **close, err_msg=name)


@pytest.mark.parametrize("q", [0.0, 0.013, 0.5, 0.9, 0.99999, 1.0])
def test_quantile_is_numpys(q):
    rng = np.random.default_rng(0)
    values = rng.normal(size=3001).astype(np.float32) * 10.0 ** rng.integers(-9, 9, 3001)
    values = np.concatenate([values, np.zeros(500), [7.5] * 400]).astype(np.float32)
    found = quantile(lambda: np.array_split(values, 5), q)
    np.testing.assert_allclose(found, np.quantile(values.astype(np.float64), q), rtol=1e-12)


def test_react_threshold_is_the_exact_quantile(features, data):
    threshold = fit_detectors(chosen({"react": {}}), data)["react"].state["threshold"]
    np.testing.assert_allclose(threshold, np.quantile(features, 0.9), rtol=1e-6)


def test_scatter_is_numpys(features, data):
    found = scatter(data, "rmd")
    z, y = features.astype(np.float64), data.labels
    means = np.stack([z[y == c].mean(0) for c in range(10)])
    np.testing.assert_allclose(found.class_means, means, rtol=1e-12)
    np.testing.assert_allclose(found.within, np.cov((z - means[y]).T, bias=True), atol=1e-9)
    np.testing.assert_allclose(found.total, np.cov(z.T, bias=True), atol=1e-9)


def test_covariance_without_full_rank():
    """Two features that are one, and a dead one: directions without variance get the smallest."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 3))
    z = np.column_stack([z, z[:, 0], np.zeros(50)])
    covariance = np.cov(z.T, bias=True)
    factor = whitening(covariance)
    least = np.linalg.eigvalsh(covariance)[2]
    dead = np.eye(5)[4]
    apart = np.array([1, 0, 0, -1, 0]) / np.sqrt(2)
    expected = np.linalg.pinv(covariance, rcond=1e-10)
    expected += (np.outer(dead, dead) + np.outer(apart, apart)) / least
    np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-9)
    full = np.cov(z[:, :3].T)
    factor = whitening(full)
    np.testing.assert_allclose(factor @ factor.T, np.linalg.inv(full), atol=1e-9)
    assert not whitening(np.zeros((3, 3))).any()


@pytest.mark.parametrize("name", ["mahalanobis", "rmd", "vim", "residual"])
def test_a_unit_that_never_fired_and_fires_now_is_evidence(name):
    """The more it fires, the lower the score; next to the same image without it."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    z = (np.eye(3, 6)[labels] * 4 + np.abs(rng.normal(size=(300, 6)))).astype(np.float32)
    z[:, 5] = 0
    head = Head(np.eye(6, 3, dtype=np.float32), np.zeros(3, np.float32))  # which does not see it
    given = {"dimension": 3} if "dimension" in DETECTORS[name].options else {}
    fitted = fit_detectors({"row": (name, given)}, FitData(z, labels, head))
    test = np.repeat(z[:1], 3, axis=0)
    test[:, 5] = 0, 1, 4
    _, found = scorer(lambda _, x: Outputs(head(x), x), {}, fitted, 3)(test)
    assert np.all(np.diff(found["row"]) < {"vim": -0.01, "rmd": -0.05}.get(name, -0.5)), found


def test_ash_keeps_the_largest_and_scales_them():
    rows = np.random.default_rng(0).random((6, 20)).astype(np.float32)
    rows[5] = 0
    expected = np.zeros((6, 20))
    for i, row in enumerate(rows.astype(np.float64)):
        kept = np.argsort(row)[-4:]
        if row.any():
            expected[i, kept] = row[kept] * np.exp(row.sum() / row[kept].sum())
    np.testing.assert_allclose(shape_activations(rows, 0.8), expected, rtol=1e-5)
    assert np.count_nonzero(shape_activations(rows[:1], 0.98)) == 1


def test_ash_score(features, scores):
    test = features_of(GOLDEN["test_x"])
    shaped = np.asarray(shape_activations(test, 0.9), np.float64)
    assert np.all(np.count_nonzero(shaped, axis=1) <= 6)
    energies = logsumexp(shaped @ HEAD.kernel + HEAD.bias, axis=1)
    np.testing.assert_allclose(scores["ash_s"], energies, rtol=1e-4)


def test_odin_steps_in_the_space_of_normalised_images():
    x = np.random.default_rng(0).random((20, 48)).astype(np.float32)

    def forward(images):
        return network(WEIGHTS, 2 * images - 1)

    moved = perturb(Inputs(None, None, None, None, x, forward, image_scale=2.0), 0.02, 1000.0)
    step = (2 * np.asarray(moved) - 1) - (2 * x - 1)
    np.testing.assert_allclose(np.abs(step), 0.02, atol=1e-6)
    before, after = (max_softmax(forward(images)[0], 1000.0) for images in (x, moved))
    assert np.all(after > before)


MODEL = ModelSettings(arch="resnet8", width=4, stem="stride2", precision="float32")
IMAGES = Images.of(np.random.default_rng(0).random((30, 16, 16, 1)).astype(np.float32))
TRAIN = ImageSet("toy", IMAGES, np.arange(30) % 3, ("a", "b", "c"))


def resnet() -> dict:
    model, key = build_model(MODEL, 3), jax.random.key(0)
    return weights_of(jax.eval_shape(lambda key: init_model(model, key, (16, 16, 1)), key))


def test_scores_of_a_resnet_in_one_pass():
    """Of a network as it is trained here: its head, its normalisation, its gradients."""
    training = TRAININGS["cross_entropy"]
    classifier = Classifier(MODEL, training, {}, Variables(resnet()), 3, 8)
    settings = {"max_logit": {}, "odin": {"epsilon": 0.01}, "mahalanobis": {}, "react": {}}
    logits, found = classifier.fit(chosen(settings), TRAIN)(IMAGES)
    np.testing.assert_array_equal(logits, classifier.logits(IMAGES))
    expected, z, *_ = jax.jit(classifier.forward)(classifier.variables, IMAGES[:])
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(found["max_logit"], np.max(expected, axis=1), atol=1e-5)
    head = classifier.head
    cut = np.minimum(z, np.quantile(z, 0.9)) @ head.kernel + head.bias
    np.testing.assert_allclose(found["react"], logsumexp(cut, axis=1), atol=1e-5)
    plain = max_softmax(expected, 1000.0)
    assert np.all(found["odin"] >= plain) and np.any(found["odin"] > plain)


def without_mean(kernel: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Kernel (d, classes) that gives inputs (n, d) outputs of mean 0: no class always wins."""
    mean = inputs.mean(0) / np.linalg.norm(inputs.mean(0))
    return np.float32(kernel - np.outer(mean, mean @ kernel))


def trained(name: str, **given) -> Classifier:
    """A classifier of random weights that predicts every class for some of `IMAGES`."""
    training, variables = TRAININGS[name], resnet()
    small = {"queue": 5, "width": 2} | given
    small = {option: value for option, value in small.items() if option in training.options}
    options = resolve(name, training.options, small)
    _, features = jax.jit(build_model(MODEL, 3).apply)(variables, IMAGES[:])
    head = variables["params"]["head"]
    head |= {"kernel": without_mean(head["kernel"], features), "bias": np.zeros(3, np.float32)}
    own = training.init(jax.random.key(1), Shape((16, 16, 1), features.shape[1], 3), options)
    if name == "godin":
        ((similarity, h),) = own.params["h"].items()
        kernel = without_mean(h["kernel"], features)
        if similarity == "euclidean":  # the nearest of some features
            kernel = np.float32(features[:3].T)
        own.params["h"][similarity] = h | {"kernel": kernel}
    if name in ("npos", "cider"):
        projected = unit(mlp(own.params.get("projection", own.params), features))
        prototypes = unit(without_mean(np.eye(128, 3), np.asarray(projected)).T)
        own = own._replace(state=own.state | {"prototypes": prototypes})
    return Classifier(MODEL, training, options, Variables(variables, own), 3, 10)


# To a detector, trainings whose classifier gives the network's own outputs are the plain one.
PLAIN = TRAININGS["cross_entropy"]
OTHERS = [name for name, t in TRAININGS.items() if t.forward or t.outputs is not PLAIN.outputs]


@pytest.mark.parametrize(
    ("name", "given"),
    [*((name, {}) for name in ["cross_entropy", *OTHERS]), ("godin", {"similarity": "euclidean"})],
)
def test_every_detector_fits_every_training(name, given):
    classifier = trained(name, **given)
    small = {"knn": {"k": 3}, "vim": {"dimension": 2}, "residual": {"dimension": 2}}
    small |= {"gmm": {"components": 3}, "gram": {"powers": 2}}
    # Programs with layers and their gradients take long to compile: of three kinds of logits alone.
    kinds = ("cross_entropy", "godin", "npos")
    used = [key for key, one in DETECTORS.items() if name in kinds or "rerun" not in one.needed({})]
    rows = chosen({key: {} for key in used} | {key: small[key] for key in small if key in used})
    predicted = classifier.logits(IMAGES).argmax(-1)
    assert np.array_equal(np.unique(predicted), range(3))
    train = ImageSet("toy", IMAGES, predicted, TRAIN.class_names)
    logits, found = classifier.fit(rows, train)(IMAGES.take(np.arange(7)))
    assert logits.shape == (7, 3) and np.all(np.isfinite(logits))
    assert found.keys() == rows.keys()
    for key, scores in found.items():
        assert scores.shape == (7,) and np.all(np.isfinite(scores)), key


def test_what_a_training_has_of_its_own_reaches_the_detectors():
    godin, vos = trained("godin"), trained("vos")
    outputs = jax.jit(godin.forward)(godin.variables, IMAGES[:])
    assert not np.allclose(outputs.logits, outputs.numerators)
    _, found = godin.fit({"a": ("deconf", {}), "b": ("max_logit", {})}, TRAIN)(IMAGES)
    assert np.all(found["a"] >= np.max(outputs.numerators, axis=1) - 1e-4)
    np.testing.assert_allclose(found["b"], np.max(outputs.logits, axis=1), atol=1e-4)
    outputs = jax.jit(vos.forward)(vos.variables, IMAGES[:])
    _, found = vos.fit({"phi": ("phi", {}), "energy": ("energy", {})}, TRAIN)(IMAGES)
    np.testing.assert_allclose(found["phi"], outputs.certainty, atol=1e-5)
    assert not np.allclose(found["phi"], found["energy"])
    plain = Classifier(MODEL, TRAININGS["cross_entropy"], {}, Variables(resnet()), 3, 10)
    _, found = plain.fit({"phi": ("phi", {}), "energy": ("energy", {})}, TRAIN)(IMAGES)
    np.testing.assert_allclose(found["phi"], found["energy"], rtol=1e-6)


def test_the_head_of_logits_that_are_not_linear_is_the_nearest_linear_one():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 4)).astype(np.float32)
    kernel, bias = rng.normal(size=(4, 3)), rng.normal(size=3)
    head = fit_head(features, features @ kernel + bias)
    np.testing.assert_allclose(head.kernel, kernel, atol=1e-5)
    np.testing.assert_allclose(head.bias, bias, atol=1e-5)
    bent = features @ kernel + bias + np.sin(9 * features[:, :3])
    head, inputs = fit_head(features, bent), np.column_stack([features, np.ones(50)])
    error = inputs.T @ (features @ head.kernel + head.bias - bent)  # orthogonal to the inputs
    np.testing.assert_allclose(error, 0, atol=1e-4)
    godin = trained("godin")
    data = godin.fit_data(TRAIN)
    np.testing.assert_allclose(next(data.parts()).logits, godin.logits(IMAGES), rtol=1e-5)


def test_the_nearest_head_in_parts_is_numpys(features, monkeypatch):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(features), 3)).astype(np.float32)
    inputs = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    expected = np.linalg.lstsq(inputs, logits.astype(np.float64))[0]
    monkeypatch.setattr(base, "ROWS_AT_ONCE", 333)
    head = fit_head(features, logits)
    np.testing.assert_allclose(np.vstack([*head]), expected, atol=1e-8)


def test_the_nearest_head_is_fitted_only_where_a_detector_needs_it(monkeypatch):
    def fails(features, logits):
        raise AssertionError("called")

    monkeypatch.setattr(classifier_module, "fit_head", fails)
    godin = trained("godin")
    godin.fit(chosen({"deconf": {}, "knn": {"k": 3}, "kl_matching": {}}), TRAIN)
    with pytest.raises(AssertionError, match="called"):
        godin.fit(chosen({"knn": {"k": 3}, "react": {}}), TRAIN)


@pytest.mark.parametrize(("at_once", "shown"), [(len(TRAIN.labels), False), (3, True)])
def test_fitting_to_many_images_shows_how_far_it_is(at_once, shown, monkeypatch, capsys):
    monkeypatch.setattr(base, "ROWS_AT_ONCE", at_once)
    trained("godin").fit(chosen({"deconf": {}}), TRAIN)
    assert ("fitting a detector: 100%" in capsys.readouterr().err) is shown


def test_images_are_not_looked_at_where_nothing_is_fitted(monkeypatch):
    plain = Classifier(MODEL, TRAININGS["cross_entropy"], {}, Variables({}), 3, 10)

    def fails(train, head):
        raise AssertionError("called")

    monkeypatch.setattr(plain, "fit_data", fails)
    plain.fit(chosen({"msp": {}, "odin": {}, "gen": {}, "phi": {}}), TRAIN)
    with pytest.raises(AssertionError, match="called"):
        plain.fit(chosen({"knn": {}}), TRAIN)


def test_logits_take_the_place_of_a_head(features, data):
    labels, logits = GOLDEN["train_y"], features @ HEAD.kernel + HEAD.bias
    without = FitData(features, labels, given_logits=logits)
    settings = {"she": {}, "kl_matching": {}, "mahalanobis": {}, "nnguide": {}}
    states = [fit_detectors(chosen(settings), fitting) for fitting in (data, without)]
    for name in settings:
        both = (jax.tree.leaves(fitted[name].state) for fitted in states)
        for a, b in zip(*both, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=name)
    for name in (key for key, detector in DETECTORS.items() if "head" in detector.needs):
        with pytest.raises(ValueError, match="needs a linear head, and there are only logits"):
            fit_detectors(chosen({name: {}}), without)
    with pytest.raises(ValueError, match="neither a linear head nor logits"):
        FitData(features, labels)
    with pytest.raises(ValueError, match="fit together"):
        FitData(features, labels, HEAD, logits[:5])


def test_what_is_fitted_to_images_needs_images(data):
    for name in ("deconf", "gram", "nac_ue"):
        with pytest.raises(ValueError, match="there are only their features"):
            fit_detectors(chosen({name: {}}), FitData(data.features, data.labels, data.head))


def test_kl_matching_with_a_class_that_is_never_given():
    head = Head(np.eye(3, dtype=np.float32), np.array([0, 0, -50], np.float32))
    z = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    fitted = fit_detectors(chosen({"kl_matching": {}}), FitData(z, np.zeros(40, int), head))

    def identity(variables, x):
        return Outputs(head(x), x)

    _, found = scorer(identity, {}, fitted, 40)(z)
    assert np.all(np.isfinite(found["kl_matching"])) and np.all(found["kl_matching"] < 1e-5)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("msq", {}, "there is no detector 'msq'; allowed: ash_b, ash_p, ash_s, deconf"),
        ("msp", {"k": 1}, "detector msp has no setting 'k'; allowed: none"),
        ("knn", {"n": 1}, "detector knn has no setting 'n'; allowed: k"),
        ("knn", {"k": 0}, "detector knn: k is 0; it must be a whole number of at least 1"),
        ("knn", {"k": True}, "k is True"),
        ("react", {"quantile": 90}, "react: quantile is 90; it must be a number of at least 0 and"),
        ("odin", {"epsilon": float("nan")}, "odin: epsilon is nan"),
    ],
)
def test_bad_options_are_one_line(name, given, words):
    with pytest.raises(UserError, match=re.escape(words)) as error:
        fit_detectors({name: (name, given)}, None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("knn", {"k": 21}, "detector knn: k is 21; it must be at most 20"),
        ("nnguide", {"k": 21}, "detector nnguide: k is 21"),
        ("vim", {"dimension": 64}, "vim: dimension is 64; it must be below 64"),
        ("vim", {"dimension": 30}, "vim: dimension is 30; it must be lower, for the training"),
        ("mahalanobis", {}, "mahalanobis: class 9 has no training image"),
        ("she", {}, "she: class 9 has no training image that is classified correctly"),
    ],
)
def test_options_that_do_not_fit_the_data(features, name, given, words):
    labels = GOLDEN["train_y"]
    rows = np.concatenate([np.flatnonzero(labels == c)[: 2 + (c < 2)] for c in range(9)])
    few = FitData(features[rows], labels[rows], HEAD)
    with pytest.raises(UserError, match=re.escape(words)):
        fit_detectors({name: (name, given)}, few)


def test_fit_data_that_does_not_fit_together(features):
    for labels, head in [
        (GOLDEN["train_y"][:5], HEAD),
        (GOLDEN["train_y"] + 1, HEAD),
        (GOLDEN["train_y"], Head(HEAD.kernel.T, HEAD.bias)),
    ]:
        with pytest.raises(ValueError, match=r"fit together|labels must be"):
            FitData(features, labels, head)
