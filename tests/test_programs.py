"""Compiled programs are shared, and a process does not gather them until the system refuses."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax import pipeline, programs
from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images
from dream_jax.detector.classifier import Classifier
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.recipe import Recipe
from dream_jax.detector.train import load_variables, train_classifier
from dream_jax.settings import ModelSettings, OptimizerSettings


@pytest.fixture
def held():
    """A program that JAX holds."""
    program = jax.jit(lambda x: x + 1)
    program(jnp.zeros(3))
    return program


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is that of Linux")
def test_many_programs_are_dropped_and_few_are_kept(held):
    programs.drop_programs(10**9)
    assert held._cache_size() == 1
    programs.drop_programs(0)
    assert held._cache_size() == 0
    assert held(jnp.ones(3)).tolist() == [2, 2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is that of Linux")
def test_they_are_dropped_between_stages(toy, toy_run, copied_run, held, monkeypatch):
    workdir = copied_run("metrics.json")
    monkeypatch.setattr(programs, "MOST_MAPPINGS", 0)
    pipeline.run(toy.config(), workdir)
    assert (workdir / "metrics.json").exists()
    assert held._cache_size() == 0


GIVEN = ("a", {"k": 1, "layers": [1, 2]}, (3,))


@pytest.mark.parametrize(
    "other",
    [
        ("b", *GIVEN[1:]),
        ("a", {"k": 2, "layers": [1, 2]}, (3,)),
        ("a", {"k": 1.0, "layers": [1, 2]}, (3,)),
        ("a", {"k": True, "layers": [1, 2]}, (3,)),
        ("a", {"k": 1, "layers": (1, 2)}, (3,)),
        ("a", {"k": 1, "layers": [1, 2], "more": None}, (3,)),
        GIVEN[:2],
    ],
)
def test_equal_arguments_give_the_same_thing_and_others_do_not(other):
    make = programs.shared(lambda *given: [given])
    first = make(*GIVEN)
    assert first == [GIVEN]
    assert make("a", {"layers": [1, 2], "k": 1}, (3,)) is first
    assert make(*other) == [other] and make(*GIVEN) is first


def test_the_last_things_are_kept():
    make = programs.shared(lambda number: [number])
    first, second = make(0), make(1)
    for number in range(2, programs.KEPT + 1):
        make(number)
    assert make(1) is second and make(0) is not first


@pytest.fixture
def compiled():
    """The seconds that each program took which was compiled."""
    seconds = []

    def note(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(note)


def test_the_second_seed_of_a_training_compiles_nothing(compiled, tmp_path):
    """Neither its training nor the logits and scores of its classifier."""
    rng = np.random.default_rng(0)
    images = Images.of(rng.integers(0, 256, (24, 8, 8, 1), np.uint8))
    sets = ImageSet("noise", images, np.arange(24, dtype=np.int32) % 2, ("one", "two"))
    model = ModelSettings("resnet8", 4, "stride2", "float32")
    training, options = TRAININGS["cross_entropy"], {}
    weights, counts = [], []
    for seed in range(2):
        rates = OptimizerSettings(0.1, 0.0, 0.0, 0.9, 0.0, 0.0)
        own = Recipe(seed, 1, 8, 0, "none", 0.0, rates, 3, 8, 0, test_every=1)
        folder = tmp_path / str(seed)
        train_classifier(model, training, options, own, (sets, sets), None, folder)
        variables = load_variables(model, training, options, own, sets, folder)
        classifier = Classifier(model, training, options, variables, 2, 8)
        scores = classifier.fit({"react": ("react", {})}, sets)
        assert np.allclose(scores(images)[0], classifier.logits(images), atol=1e-5)
        weights.append(variables.network["params"]["head"]["kernel"])
        counts.append(len(compiled))
    assert not np.allclose(*weights)
    assert counts[0] > 4 and counts[1] == counts[0]
