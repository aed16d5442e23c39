"""The library: a run opened by `load_run`, and detectors for features and logits of any network."""

import re
from itertools import pairwise

import jax
import numpy as np
import pytest
import toy as toy_module

import dream_jax
from dream_jax import detectors, exploring, plots
from dream_jax.detector.detectors import DETECTORS
from dream_jax.errors import UserError
from dream_jax.files import read_json, write_json
from dream_jax.record import seal
from dream_jax.vectors import unit_on_host as unit


@pytest.fixture(scope="module")
def run(toy_run):
    return dream_jax.load_run(toy_run.workdir)


def test_the_parts_of_a_run(run, toy_run):
    assert run.class_names[:2] == ("zero", "one")
    assert run.rows == {"energy": "Energy", "dream_ood": "Dream-OOD"}
    width = run.features.anchors.shape[1]
    assert run.features.features.shape == (400, width) and run.features.labels.shape == (400,)
    assert run.embeddings.shape[0] == 10 and run.embeddings.shape[2] == width
    for kind, count in {"outliers": 20, "by_name_test": 10, "train": 400, "test": 200}.items():
        images, labels = run.images(kind)
        assert images.shape == (count, 32, 32, 1) and labels.shape == (count,)
    letters, none = run.images("letters")
    assert len(letters) == 50 and not len(none)


def test_the_metrics_are_those_of_the_file(run, toy_run):
    stored = read_json(toy_run.workdir / "metrics.json")["methods"]
    frame = run.metrics
    assert list(frame.index) == [("energy", 0), ("dream_ood", 0)]
    for row in run.rows:
        line = frame.loc[(row, 0)]
        for name in ("letters", "faces", "mean"):
            for measure, value in stored[row]["ood"][name].items():
                assert line[name, measure] == value
        assert line["id", "accuracy"] == stored[row]["id_accuracy"]
        assert line["kept", "round_trips"] == stored[row]["kept"]["round_trips"]


@pytest.mark.parametrize("row", ["energy", "dream_ood"])
def test_scores_are_those_of_the_evaluation(run, row):
    stored = run.scores(row)
    assert [*stored] == ["id", "letters", "faces", "round_trips", "sampled_by_name"]
    for kind, name in {"test": "id", "faces": "faces", "by_name_test": "sampled_by_name"}.items():
        images, _ = run.images(kind)
        assert np.allclose(run.score(images, row), stored[name], atol=1e-5)
    assert np.allclose(run.score(images.pixels(slice(3)), row), stored[name][:3], atol=1e-5)
    assert np.allclose(run.score(images[:3], row), stored[name][:3], atol=1e-5)


@pytest.fixture(scope="module")
def outside(run):
    """Arrays as another network would give them, and the classifier that gave these."""
    classifier = run.classifier("energy")

    def outputs(images):
        forward = jax.jit(lambda x: classifier.forward(classifier.variables, x))
        found = jax.tree.map(np.asarray, forward(images[:]))
        return {"features": found.features, "logits": found.logits, "layers": found.layers}

    (train, labels), (test, _) = run.images("train"), run.images("test")
    return classifier, outputs(train), labels, outputs(test)


# The toy's classifier never gives some classes, without which SHE cannot be fitted: see below.
@pytest.mark.parametrize("name", [name for name in detectors.NAMES if name != "she"])
def test_a_detector_outside_scores_as_in_a_run(run, outside, name):
    """By features, logits and the head alone it gives what it gives inside, by the images."""
    classifier, known, labels, new = outside
    small = {"k": 5, "powers": 2, "blocks": "last"}
    options = {key: value for key, value in small.items() if key in DETECTORS[name].options}
    options |= {"layers": "penultimate"} if name == "nac_ue" else {}
    given = getattr(detectors, name)(**options).fit(**known, labels=labels, head=classifier.head)
    work = run._run.work("learn")
    inside = classifier.fit({name: (name, options)}, work.train)
    expected = inside(work.test.images)[1][name]
    scale = np.abs(expected).max()
    # The programs round differently. By it a value may fall into the next bin of a histogram, and
    # with k of 1 it is its root that counts.
    coarse = {"weiper": 2e-3, "nac_ue": 2e-3, "knn_chosen": 1e-4}

    def close(scores):
        return np.allclose(scores / scale, expected / scale, atol=coarse.get(name, 2e-5))

    assert close(given.score(**new))
    # The head makes the logits.
    by_head = given.score(features=new["features"], layers=new["layers"])
    assert close(by_head)


def test_she_outside(outside):
    _, known, _, new = outside
    labels, features = np.arange(40) % 4, known["features"][:40]
    logits = np.eye(4)[labels]
    patterns = [features[labels == y].mean(0) for y in range(4)]
    given = detectors.she().fit(features, labels, logits=logits)
    predicted = np.arange(len(new["features"])) % 4
    expected = np.sum(new["features"] * np.asarray(patterns)[predicted], -1)
    assert np.allclose(given.score(new["features"], np.eye(4)[predicted]), expected, rtol=1e-5)


class Linear:
    """As PyTorch's: a weight (classes, d)."""

    def __init__(self, head):
        self.weight, self.bias = np.asarray(head.kernel).T, np.asarray(head.bias)


def test_heads_of_other_libraries(outside):
    classifier, known, labels, new = outside
    known, new = ({key: of[key] for key in ("features", "logits")} for of in (known, new))
    expected = detectors.react().fit(**known, labels=labels, head=classifier.head).score(**new)
    given = detectors.react().fit(**known, labels=labels, head=Linear(classifier.head))
    assert np.array_equal(given.score(**new), expected)
    fitted = detectors.react().fit(**known, labels=labels, head=detectors.fit_head(**known))
    assert np.allclose(fitted.score(**new), expected, rtol=1e-2, atol=1e-2)


X = np.random.default_rng(0).normal(size=(30, 4))
Y = np.arange(30) % 3
HEAD = (np.ones((4, 3)), np.zeros(3))
MAPS = detectors.gram(powers=1).fit(X, Y, HEAD, layers={"a": X[:, None, None]})


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: detectors.knn(k=3).score(features=X), "knn: is not fitted"),
        (lambda: detectors.knn(j=3), "has no setting 'j'; allowed: k"),
        (lambda: detectors.knn(k=31).fit(X), "k is 31; it must be at most 30"),
        (lambda: detectors.knn(k=3).fit(), "knn: fit needs features"),
        (lambda: detectors.knn(k=3).fit(X[0]), "knn: fit: features have the shape"),
        (lambda: detectors.knn(k=3).fit(X * np.nan), "features have numbers that are NaN"),
        (lambda: detectors.knn(k=3).fit(["a"]), "cannot be made a NumPy array"),
        (lambda: detectors.knn(k=3).fit(X).score(), "knn: score needs features"),
        (
            lambda: detectors.knn(k=3).fit(X).score(features=X[:, 1:]),
            "have 3 columns; .* 4",
        ),
        (lambda: detectors.react().fit(X, Y), "react: fit needs head"),
        (lambda: detectors.react().fit(X, Y, head=(HEAD[0].T, HEAD[1])), "react: the head has"),
        (lambda: detectors.react().fit(X, Y, head=(HEAD[0][1:], HEAD[1])), "do not fit together"),
        (lambda: detectors.mahalanobis().fit(X), "mahalanobis: fit needs labels"),
        (lambda: detectors.mahalanobis().fit(X, Y / 2), "labels are float64"),
        (lambda: detectors.mahalanobis().fit(X, Y[1:]), r"of the shape \(30,\)"),
        (lambda: detectors.she().fit(X, Y), "she: fit needs logits"),
        (lambda: detectors.msp().score(), "msp: score needs logits"),
        (
            lambda: detectors.vim().fit(X, Y, head=HEAD).score(features=X, logits=X[1:, 1:]),
            "30 features, 29 logits",
        ),
        (lambda: detectors.fit_head(X, X[1:]), "30 features and 29 logits"),
        (lambda: detectors.gram().fit(X, Y, HEAD), "gram: fit needs layers"),
        (lambda: detectors.gram().fit(X, Y, HEAD, layers={}), "gram: fit: layers are empty"),
        (lambda: detectors.gram().fit(X, Y, HEAD, layers=[X]), "layers are a list; they must"),
        (
            lambda: detectors.gram().fit(X, Y, HEAD, layers={"a": X}),
            r"'a' have the shape \(30, 4\)",
        ),
        (
            lambda: detectors.gram().fit(X, Y, HEAD, layers={"a": X[1:, None, None]}),
            "30 images, 29 activations of layer 'a'",
        ),
        (
            lambda: MAPS.score(X, layers={"b": X[:, None, None]}),
            "layers are 'b'; those that the detector was fitted to are 'a'",
        ),
        (
            lambda: MAPS.score(X, layers={"a": X[:, None, None, 1:]}),
            "activations of layer 'a' have 3 columns; those that the detector was fitted to have 4",
        ),
        (lambda: detectors.rankfeat().fit(X, Y, HEAD), "{'blocks': 'both', .* the network itself"),
        (lambda: detectors.nac_ue().score(X), "it needs the network itself"),
        (lambda: detectors.react().fit(X, Y, head=3), "the head is a int; it must be"),
        (lambda: detectors.react().fit(X, Y, head=(*HEAD, 0)), "the head is a tuple; it must be"),
        (lambda: detectors.react().fit(X, Y, head="ab"), "the head is a str; it must be"),
        (lambda: detectors.react().fit(X, Y, head=("a", "b")), "head's weights cannot be made"),
        (lambda: detectors.phi().fit(head=(HEAD[0], HEAD[1] * np.nan)), "head's biases have"),
        (lambda: detectors.energy().fit(X * np.nan, Y), "energy: fit: features have numbers"),
        (lambda: detectors.energy().fit(X, Y[1:], logits=X), r"of the shape \(30,\)"),
        (lambda: detectors.energy().fit(X, head=HEAD).score(logits=X), "logits have 4 columns"),
        # One column would be broadcast to scores that mean nothing.
        (lambda: detectors.mahalanobis().fit(X, Y).score(X[:, :1]), "features have 1 columns"),
        (lambda: detectors.mahalanobis().fit(X, Y - 9), "labels go from -9 to -7; they must be"),
        (lambda: detectors.mahalanobis().fit(X, Y + 10**12), "labels go from 1000000000000 to"),
        (lambda: detectors.knn(k=3).fit(X + 1j), "features are complex128; they must be real"),
        (lambda: dream_jax.ood_metrics("abc", Y), "ID scores: cannot be made an array of numbers"),
        (lambda: dream_jax.ood_metrics(Y, [[1], [1, 2]]), "OOD scores: cannot be made"),
        (lambda: dream_jax.ood_metrics(X, Y), r"ID scores: have the shape \(30, 4\); it must be"),
        (lambda: dream_jax.ood_metrics(Y, 1.0), r"OOD scores: have the shape \(\); it must be"),
    ],
)
def test_what_a_detector_cannot_use_is_named(call, line):
    with pytest.raises(UserError, match=line) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_detectors_that_need_the_network_say_so():
    with pytest.raises(AttributeError, match="odin needs the network itself"):
        detectors.odin  # noqa: B018
    with pytest.raises(AttributeError, match="there is no detector 'magic'; there are msp, "):
        detectors.magic  # noqa: B018


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda run: run.score(np.zeros((2, 32, 32, 3), np.uint8)), r"\(n, 32, 32, 3\); those of"),
        (lambda run: run.score(np.full((2, 32, 32, 1), 2.0)), "images are float64 from 2 to 2"),
        (lambda run: run.score(np.zeros((32, 32, 1))), r"shape \(32, 32, 1\); it must be"),
        (lambda run: run.score(np.zeros((1, 32, 32, 1)), "vos"), "no row 'vos'; it has energy, "),
        (lambda run: run.classifier(seed=5), "has no seed 5"),
        (lambda run: run.images("cats"), "no images 'cats'; allowed: train, test, outliers"),
        (lambda run: run.inlier_embeddings, "has no stage 'sample inliers'"),
        (lambda run: exploring.walk_beyond(run, "ten"), "the run has no class 'ten'; it has zero"),
        (lambda run: plots.outlier_embeddings(run, "ten"), "the run has no class 'ten'; it has z"),
        (lambda run: plots.outlier_embeddings(run, "one", method="pca"), "method is 'pca'; it mu"),
        (lambda run: exploring.walk_beyond(run, "one", outlier=40), "there is no outlier 40"),
        (lambda run: exploring.walk_beyond(run, "one", steps=1), "steps is 1; it must be at"),
        (lambda run: exploring.by_scale(run, "one", ()), r"scales are \(\) and count is 8"),
        (lambda run: exploring.by_scale(run, "one", (-1.0,)), "sampling.scale is -1.0"),
        (lambda run: exploring.disagreements(run, "energy", "dream_ood", "x"), "no scores of 'x'"),
    ],
)
def test_what_a_run_does_not_have_is_named(run, call, line):
    with pytest.raises(UserError, match=line):
        call(run)


def test_folders_that_hold_no_run(toy_run, copied_run, tmp_path):
    with pytest.raises(UserError, match=r"it has no config\.json; `make quickstart` makes"):
        dream_jax.load_run(tmp_path)
    workdir = copied_run("embeddings", "metrics.json")
    run = dream_jax.load_run(workdir)
    with pytest.raises(UserError, match="stage 'sample' of the run is not done; finish it"):
        run.embeddings  # noqa: B018
    assert len(run.features.labels) == 400
    config = read_json(workdir / "config.json")
    write_json(workdir / "config.json", seal(config | {"format": 99}))
    with pytest.raises(UserError, match="another version of this program"):
        dream_jax.load_run(workdir)
    write_json(workdir / "config.json", config | {"latent_space": []})
    with pytest.raises(UserError, match=r"config\.json: is damaged; delete it"):
        dream_jax.load_run(workdir)


def test_a_walk_and_its_pictures(run):
    anchor, outlier = run.features.anchors[3], run.embeddings[3, 0]
    way = dream_jax.walk(anchor, outlier, steps=5, reach=1.5)
    assert np.allclose(way[0], anchor, atol=1e-6)
    turns = [np.arccos(np.clip(unit(a) @ unit(b), -1, 1)) for a, b in pairwise(way)]
    whole = np.arccos(unit(anchor) @ unit(outlier))
    assert np.allclose(turns, whole * 1.5 / 4, rtol=1e-3)
    assert np.allclose(dream_jax.walk(anchor, outlier, 3)[-1], outlier, atol=1e-6)
    same = np.stack([outlier, outlier])
    pictures = run.decode(same, np.array([3, 3]), noise=np.array([7, 7]))
    assert pictures.shape == (2, 32, 32, 1)
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(*run.decode(same, np.array([3, 3])))
    with pytest.raises(UserError, match=r"must be \(n, d\), \(n,\) and \(n,\)"):
        run.decode(outlier, np.array([3]))


def test_the_examples_of_the_docs(toy_run, tmp_path, monkeypatch, capsys):
    """In order, in one program, on a run at toy size."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(toy_run.workdir)
    monkeypatch.chdir(tmp_path)
    text = (toy_module.REPOSITORY / "docs" / "library.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) > 5
    names: dict = {}
    for example in examples:
        exec(compile(example, "docs/library.md", "exec"), names)
    assert "vim" in capsys.readouterr().out
