"""Features, logits and scores that are not finite end in one line that names the first image."""

import jax
import numpy as np
import pytest
from shown import evaluate_on, with_layers

from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images
from dream_jax.detector.classifier import Classifier, Variables
from dream_jax.detector.detectors import DETECTORS
from dream_jax.detector.detectors.base import FitData
from dream_jax.detector.inputs import Head, Outputs
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.scoring import fit_detectors, scorer
from dream_jax.errors import UserError
from dream_jax.latent_space.features import extract_features
from dream_jax.latent_space.learn import learn_latent_space
from dream_jax.models.resnet import build_model, init_model
from dream_jax.sampling.rounds import sample_embeddings
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.settings import ModelSettings
from dream_jax.training.finite import NotFinite

MODEL = ModelSettings(arch="resnet8", width=4, stem="stride2", precision="bfloat16")


def images() -> Images:
    """Five grey images, which are nearly 0 to the network, and two others."""
    pixels = np.full((7, 8, 8, 1), 128, np.uint8)
    pixels[5:] = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1))
    return Images.of(pixels)


def overflowing(outputs: int) -> dict:
    """Variables of a network whose outputs leave float32 for images that are not grey."""
    network = build_model(MODEL, outputs)
    variables = init_model(network, jax.random.key(0), (8, 8, 1))
    variables["params"]["stem"]["kernel"] *= 100
    features = np.asarray(jax.jit(network.apply)(variables, images()[:])[1], np.float64)
    grey, other = features[:5].sum(1).max(), features[5:].sum(1).min()
    assert other > 9 * grey and np.sqrt(grey * other) > 1
    head = variables["params"]["head"]
    head["kernel"] = np.full(head["kernel"].shape, 3.4e38 / np.sqrt(grey * other), np.float32)
    return variables


PRECISION = "that are not finite (NaN or infinity); config.model.precision is bfloat16: try float32"


def test_features_and_logits_name_the_first_image():
    variables = overflowing(3)
    with pytest.raises(NotFinite) as caught:
        extract_features(MODEL, variables, images(), 3, 2)
    assert str(caught.value) == (
        f"image 5 of an array: the feature extractor gives outputs {PRECISION}"
    )
    classifier = Classifier(MODEL, TRAININGS["cross_entropy"], {}, Variables(variables), 3, 2)
    assert np.isfinite(classifier.logits(images().take(slice(5)))).all()
    with pytest.raises(NotFinite) as caught:
        classifier.logits(images().take(slice(3, None)))  # named as in the whole set
    assert str(caught.value) == (
        f"image 5 of an array: classifier cross_entropy gives logits {PRECISION}"
    )
    train = ImageSet("train", images(), np.arange(7) % 3, ("a", "b", "c"))
    score = classifier.fit({"energy": ("energy", {"temperature": 1.0})}, train)
    with pytest.raises(NotFinite, match="classifier cross_entropy gives logits, scores of energy"):
        score(images())


def forward(size, rows, added=None) -> Outputs:
    """Features and logits that are as large as asked for, and finite."""
    features, layers = with_layers(jax.nn.relu(rows) * size, added)
    return Outputs(features[:, :3], features, layers=layers)


def fit_data(size: float) -> FitData:
    features = np.abs(np.random.default_rng(0).normal(size=(60, 6))).astype(np.float32)
    run = evaluate_on(forward, np.float32(size), features)
    head = Head(np.eye(6, 3, dtype=np.float32), np.zeros(3, np.float32))
    labels = features[:, :3].argmax(1)
    return FitData(features * np.float32(size), labels, head, evaluate=run)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("size", [1.0, 1e18, 1e30, 1e37])
def test_extreme_features_give_finite_scores_or_one_line(name, size):
    """And a detector is not refused for features of the usual size."""
    detector = DETECTORS[name]
    small = {"k": 3, "components": 3, "dimension": 2}
    given = {key: value for key, value in small.items() if key in detector.options}
    rows = np.abs(np.random.default_rng(1).normal(size=(9, 6))).astype(np.float32)
    try:
        fitted = fit_detectors({"row": (name, given)}, fit_data(size))
        logits, scores = scorer(forward, np.float32(size), fitted, 4)(rows)
    except UserError as error:
        assert size > 1
        assert "\n" not in str(error)
        assert "scores of row" in str(error) or str(error).startswith(f"detector {name}: ")
    else:
        assert np.isfinite(logits).all() and np.isfinite(scores["row"]).all()


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("mahalanobis", {}, 1e30),  # a squared length
        ("she", {}, 3e38),  # a product of features
        ("ash_s", {"share": 0.95}, 1e37),  # an exponential
        ("energy", {"temperature": 1e-3}, 1e37),  # a quotient
    ],
)
def test_infinite_scores_of_finite_logits_name_score_and_image(name, options, size):
    fitted = fit_detectors({"row": (name, options)}, fit_data(1.0))
    rows = np.full((9, 6), 0.5, np.float32)
    rows[:7] /= size
    with pytest.raises(NotFinite) as caught:
        scorer(forward, np.float32(size), fitted, 4)(rows)
    message = str(caught.value)
    assert message.startswith("image 7: the network gives scores of row that are not finite")


def test_statistics_that_float32_cannot_hold_are_named():
    """Features that hardly vary, by whose standard deviation Mahalanobis divides."""
    with pytest.raises(UserError) as caught:
        fit_detectors({"row": ("mahalanobis", {})}, fit_data(1e-40))
    assert str(caught.value).startswith("detector mahalanobis: statistic ")
    assert "NaN or infinite" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("noise", "selection"), [("own", "paper"), ("shared", "paper"), ("shared", "published")]
)
@pytest.mark.parametrize("scale", [1e19, 3e38])  # whose squares overflow, and they themselves
def test_candidates_that_leave_float32_are_refused(noise, selection, scale):
    """Their length overflows, and they would all be zero."""
    features = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    settings = SamplerSettings(
        k=3, boundary=5, per_round=4, candidates=10, keep=2, rounds=2, scale=scale,
        noise=noise, selection=selection,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"^(config\.)?sampling\.scale is .*lower it"):
        sample_embeddings(features, jax.random.key(0), settings)


def test_anchors_that_are_not_finite_are_refused_before_training(tmp_path):
    train = ImageSet("train", images(), np.arange(7) % 2, ("cat", "dog"))
    anchors = np.ones((2, 4), np.float32)
    anchors[1, 2] = np.nan
    with pytest.raises(UserError, match=r"^token embeddings of the class names: dog has numbers"):
        learn_latent_space(None, train, train, anchors, tmp_path)
    assert not list(tmp_path.iterdir())
