"""Other ways to outliers in whole stages: what is decoded, taken, read, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from slow import takes_a_minute

from dream_jax import pipeline
from dream_jax.checks import check
from dream_jax.data.parts import read_listing
from dream_jax.data.sets.digits import CLASS_NAMES
from dream_jax.decoding.prompts import check_plain_prompt
from dream_jax.decoding.stage import _sampling
from dream_jax.errors import UserError
from dream_jax.exploring import by_scale
from dream_jax.files import read_json, read_npz
from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator, load_vocabulary
from dream_jax.generator.stable_diffusion import add_text_noise
from dream_jax.keys import stage_key
from dream_jax.results import FROM_TEXT
from dream_jax.run import Run
from dream_jax.settings import expand

DOWNSTREAM = ("embeddings", "images/outliers", "classifier/dream_ood", "evaluation", "report",
              "metrics.json")  # fmt: skip
FIXED = ("an object", "not {name}")


def changed(config: ConfigDict, **changes) -> ConfigDict:
    config.methods = ("dream_ood",)
    for field, value in changes.items():
        section, _, name = field.rpartition("__")
        with config.ignore_type():
            (config[section] if section else config)[name] = value
    return config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"decoding__prompts": FIXED},
            "config.decoding.prompts is ('an object', 'not {name}'); 'an o",
        ),
        (
            {"decoding__prompts": FIXED, "sampling__method": "core"},
            "where the embeddings of sampling.method = 'core' stand; only with",
        ),
        (
            {"decoding__prompts": FIXED, "sampling__method": "text", "methods": ("bood",)},
            "where the embeddings of the row 'bood' stand; only with",
        ),
        (
            {"latent_space__loss": "cross_entropy", "methods": ("bood",)},
            "with the row 'bood' it must be 'alignment'",
        ),
        *(
            (
                {"decoding__prompts": FIXED, "sampling__method": "text", "methods": (selection,)},
                "where the embeddings of the row 'bood' stand; only with",
            )
            for selection in ("all", "every")
        ),
        (
            {"latent_space__loss": "cross_entropy", "sampling__method": "bood"},
            "with sampling.method = 'bood' it must be 'alignment'",
        ),
        ({"sampling__method": "edge"}, "config.sampling.method is 'edge'; it must be one of bood,"),
        ({"sampling__method": "core", "sampling__k": 41}, "config.sampling.k is 41"),
        ({"classifier__outliers_used": 0.0}, "config.classifier.outliers_used is 0.0"),
        ({"decoding__prompts": ("a {colour}",), "sampling__method": "text"}, "no other braces"),
    ],
)
def test_what_does_not_go_together_is_one_line(toy, changes, said):
    with pytest.raises(UserError) as caught:
        check(changed(toy.config(), **changes))
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_methods_without_distances_need_no_neighbours(toy):
    for method in ("random", "mean", "token", "interpolation", "prompts", "text"):
        check(changed(toy.config(), sampling__method=method, sampling__k=41))


def test_outliers_by_scale_are_those_of_a_run_that_samples_by_distance(toy):
    settings = check(changed(toy.config(), sampling__method="token"))
    with pytest.raises(UserError, match="is 'token'; by_scale samples by distance"):
        by_scale(SimpleNamespace(settings=settings), "one", [0.1])


def test_pictures_are_sampled_by_the_settings_of_their_names(toy):
    config = changed(toy.config(), decoding__cache_interval=3, decoding__resize="nearest")
    sampling, _ = _sampling(pipeline.make_run(check(config), Path("run")).work("decode"))
    assert (sampling.cache.interval, sampling.resize, sampling.text_noise) == (3, "nearest", 0.0)


class Words:
    """A vocabulary whose prompts have five positions."""

    def name_ids(self, text: str) -> list[int]:
        return list(range(len(text.split())))

    def prompt_ids(self, ids) -> np.ndarray:
        return np.zeros(5, np.int32)


def test_a_text_that_does_not_fit_is_refused_as_a_whole():
    check_plain_prompt(Words(), "an unknown object", "cat")
    with pytest.raises(UserError, match="'a very unknown object' has 4 tokens; the text"):
        check_plain_prompt(Words(), "a very unknown object", "cat")
    check_plain_prompt(Words(), "not a {name} at all", "cat")  # what follows a name may be cut


def test_noise_on_the_text_is_that_of_its_definition():
    states = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32) * 4
    keys = jax.random.split(jax.random.key(1), 3)
    made = add_text_noise(None, states, jax.random.key_data(keys), scale=0.2)
    for row in range(3):
        noise = np.asarray(jax.random.normal(jax.random.fold_in(keys[row], 2), (5, 8)))
        length = np.linalg.norm(states[row], axis=1, keepdims=True)
        moved = states[row] / length + 0.2 * noise
        moved *= length / np.linalg.norm(moved, axis=1, keepdims=True)
        np.testing.assert_allclose(made[row], moved, rtol=1e-5, atol=1e-5)
    alone = add_text_noise(None, states[1:2], jax.random.key_data(keys[1:2]), scale=0.2)
    np.testing.assert_allclose(alone[0], made[1], rtol=1e-6)


def made(toy, workdir: Path, method: str) -> Run:
    """Makes embeddings and outliers, and checks that the stages read what they declare."""
    prompts = FIXED if method in FROM_TEXT else ("a handwritten {name}",)
    config = changed(toy.config(), sampling__method=method, decoding__prompts=prompts)
    run = pipeline.make_run(check(config), workdir)
    for name in ("sample", "decode"):
        read: set[str] = set()
        work = run.work(name, read)
        run.stages[name].check(work)
        with run.record(name).running():
            run.stages[name].make(work)
        assert read == set(expand(run.stages[name].reads)), name
    return run


def test_outliers_are_pictures_of_the_texts(toy, copied_run):
    """Through the run, and straight from the generator with the same keys."""
    run = made(toy, copied_run(*DOWNSTREAM), "prompts")
    listed = [entry for _, entry in read_listing(run.folder("decode"), 20)]
    assert {(e["prompt"], e["embedding"]) for e in listed} == {(p, 0) for p in FIXED}
    known, found = run.features.anchors, run.embeddings()
    np.testing.assert_allclose(found[:, 0], known, rtol=1e-5, atol=1e-6)
    images, _ = run.decoded("outliers")
    generator = load_generator(str(toy.generator), "", "float32")
    ids = np.stack([generator.prompt_ids(generator.name_ids("an object"))] * 2)
    key = stage_key(0, "decode", "outliers")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(2))
    sampling = Sampling("dpmsolver++", 2, 3.0, 10, 4)
    (expected,) = generator.decode(ids, None, keys, sampling, (32, 32, 1))
    np.testing.assert_allclose(images[:2], expected, atol=0.6 / 255)  # bytes are rounded


def test_outliers_are_words_of_the_generators_vocabulary(toy, copied_run, capsys):
    """The same for every class, and one line says which."""
    run = made(toy, copied_run(*DOWNSTREAM), "vocabulary")
    vocabulary, found = load_vocabulary(str(toy.generator)), run.embeddings()
    words = read_npz(run.folder("sample") / "outliers.npz")["words"]
    known, count = vocabulary.words(), len(words)
    assert found.shape == (10, count, vocabulary.table.shape[1])
    assert len(set(words)) == count and not set(words) & set(CLASS_NAMES)
    assert count == 16 and not {"handwritten", "a"} & set(words)  # of the prompt
    assert f"outliers are of 16 words: {', '.join(words)}" in capsys.readouterr().out
    rows = np.stack([vocabulary.table[known[word]] for word in words])
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    rows = np.linalg.norm(run.features.anchors, axis=1)[:, None, None] * rows
    np.testing.assert_allclose(found, rows, rtol=1e-4, atol=1e-7)
    listed = [entry for _, entry in read_listing(run.folder("decode"), 20)]
    assert {entry["prompt"] for entry in listed} == {"a handwritten {name}"}
    assert all(0 <= entry["embedding"] < count for entry in listed)


@takes_a_minute
@pytest.mark.parametrize("method", ["text", "interpolation", "mean"])
def test_other_ways_read_what_they_declare(toy, copied_run, method):
    run = made(toy, copied_run(*DOWNSTREAM), method)
    assert len(run.decoded("outliers")[0]) == 20


@takes_a_minute
@pytest.mark.parametrize("method", ["text", "core", "vocabulary"])
def test_the_report_of_a_run_shows_them(toy, copied_run, method):
    workdir = copied_run(*DOWNSTREAM)
    prompts = FIXED if method in FROM_TEXT else ("a handwritten {name}",)
    config = changed(toy.config(), sampling__method=method, decoding__prompts=prompts,
                     classifier__outliers_used=0.6)  # fmt: skip
    pipeline.run(config, workdir)
    metrics = read_json(workdir / "metrics.json")
    rank = metrics["embeddings"]["mean"]["effective_rank"]
    assert (rank == 1) == (method in FROM_TEXT)
    assert read_json(workdir / "classifier/dream_ood/outliers.json")["outliers"] == 12
    page = (workdir / "report" / "index.html").read_text()
    sources = {"text": "texts", "core": "embeddings around its core"}
    sources["vocabulary"] = "embeddings at the tokens of words far from all classes"
    assert f"outliers decoded from {sources[method]}." in page
    for name in ("outliers.png", "tsne_outliers.png"):
        assert (workdir / "report" / name).stat().st_size > 1000
