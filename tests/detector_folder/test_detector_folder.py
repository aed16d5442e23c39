"""A detector that was taken away scores as in its run, and needs JAX and NumPy alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from shown import evaluate_on, with_layers
from toy import REPOSITORY

import dream_jax
from dream_jax.detector.detectors import DETECTORS, FitData
from dream_jax.detector.inputs import Head, Outputs
from dream_jax.detector.scoring import fit_detectors, scoring_program
from dream_jax.detector_folder import folder as detector_folder
from dream_jax.detector_folder.folder import export_program, open_folder
from dream_jax.detector_folder.program import export
from dream_jax.errors import UserError
from dream_jax.files import read_json
from dream_jax.scoring_files import Calibration

# A process in which nothing beyond JAX, NumPy and what reads images can be imported.
ALONE = """
import runpy, sys
for name in ("flax", "optax", "orbax", "diffusers", "transformers", "sklearn", "pandas",
             "matplotlib", "ml_collections", "tensorflow_datasets", "jinja2", "pyarrow", "grain"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(toy_run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "detector"
    export(str(toy_run.workdir), "", str(out))
    return out


def test_scores_are_those_of_the_run(toy_run, exported):
    run, detector = dream_jax.load_run(toy_run.workdir), open_folder(exported)
    images, _ = run.images("test")
    expected = run.scores("dream_ood")["id"]
    for count in (1, 7, 200):  # any number of images
        made = detector.score(images[:count])
        np.testing.assert_allclose(made["score"], expected[:count], atol=1e-5)
        assert made["logits"].shape == (count, 10)
    assert detector.program.platforms == ("cpu", "cuda", "tpu")
    assert [*detector.scores] == ["id", "letters", "faces"]
    assert detector.class_names == run.class_names
    thresholds = detector.about["thresholds"]
    assert thresholds["0.95"] == Calibration(expected, 0.95).threshold
    with pytest.raises(UserError, match=r"shape \(2, 32, 32, 3\); .* takes \(n, 32, 32, 1\)"):
        detector.score(np.zeros((2, 32, 32, 3)))


def test_the_program_scores_with_jax_and_numpy_alone(toy_run, exported, tmp_path):
    images, _ = dream_jax.load_run(toy_run.workdir).images("faces")
    for row in range(9):
        Image.fromarray(images.pixels(row)[..., 0]).save(tmp_path / f"{row}.png")
    command = [sys.executable, "-c", ALONE, str(REPOSITORY / "launch" / "score.py")]
    flags = [f"--detector={exported}", f"--images={tmp_path}", f"--out={tmp_path / 'd.csv'}"]
    done = subprocess.run(
        [*command, *flags],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_NUM_CPU_DEVICES": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "scored: 9 images by Dream-OOD of run toy" in done.stdout
    lines = (tmp_path / "d.csv").read_text().splitlines()
    scores = np.asarray([float(line.split(",")[3]) for line in lines[1:]])
    expected = dream_jax.load_run(toy_run.workdir).scores("dream_ood")["faces"][:9]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def line_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_folder(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_and_damaged_folders_are_refused(exported, tmp_path):
    for name in ("detector.stablehlo", "weights.npz", "scores.npz"):
        copy = tmp_path / name
        shutil.copytree(exported, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        assert line_of(copy) == f"{copy / name}: is damaged; export the detector again"
        (copy / name).unlink()
        assert line_of(copy) == f"{copy / name}: is missing; export the detector again"
    copy = tmp_path / "about"
    shutil.copytree(exported, copy)
    about = read_json(copy / "detector.json")
    (copy / "detector.json").write_text(json.dumps(about | {"classes": ["other"]}))
    assert line_of(copy) == f"{copy / 'detector.json'}: is damaged; export the detector again"
    (copy / "detector.json").write_text(json.dumps(about | {"format": 9}))
    assert "holds a detector of format 9, and this program reads format 1" in line_of(copy)
    (copy / "detector.json").write_text("{")
    assert "cannot be read as JSON" in line_of(copy)


def test_bad_requests_are_refused(toy_run, copied_run, exported, tmp_path):
    run, out = str(toy_run.workdir), str(tmp_path / "new")
    unfinished = str(copied_run("evaluation/dream_ood"))
    for arguments, line in {
        ("", "", out): "--run is not given",
        (run, "", ""): "--out is not given; it must be a new folder",
        (run, "", str(exported)): "is there already; it must be a new folder",
        (run, "", str(tmp_path / "a" / "b")): "there is no folder",
        (run, "vim", out): "the run has no row 'vim'; it has energy, dream_ood",
        (unfinished, "", out): "stage 'evaluate dream_ood' of the run is not done",
        (str(tmp_path), "", out): "is no folder of a run",
    }.items():
        with pytest.raises(UserError) as caught:
            export(*arguments)
        assert line in str(caught.value) and "\n" not in str(caught.value)
    assert not Path(out).exists()


def test_the_card_has_the_hubs_header(toy_run, exported):
    from huggingface_hub import ModelCard

    text = (exported / "README.md").read_text()
    card = ModelCard(text)
    results = {(r.dataset_name, r.metric_type): r.metric_value for r in card.data.eval_results}
    stored = read_json(toy_run.workdir / "metrics.json")["methods"]["dream_ood"]
    assert results["digits_small", "accuracy"] == pytest.approx(stored["id_accuracy"], rel=1e-5)
    fpr95 = results["digits_small against faces", "fpr95"]
    assert fpr95 == pytest.approx(stored["ood"]["faces"]["fpr95"], abs=1e-5)
    assert card.data.library_name == "jax" and "dream-ood" in card.data.tags
    for heading in ("Use", "Data", "Training", "What it reaches", "What it was tuned on", "Limits"):
        assert f"\n## {heading}\n" in text


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_can_be_exported_for_all_platforms(name):
    """A linear network of 6 features and 3 classes; the number of images is not known."""
    rng = np.random.default_rng(0)
    images = rng.random((60, 2, 2, 2), np.float32)
    kernel = rng.normal(size=(6, 3)).astype(np.float32)
    to_features = rng.random((8, 6), np.float32)

    def forward(head, images, added=None):
        features = images.reshape(images.shape[0], 8) @ to_features
        features, layers = with_layers(features, added)
        return Outputs(features @ head.kernel + head.bias, features, layers=layers)

    head = Head(kernel, -(to_features.sum(0) / 2) @ kernel)
    made = forward(head, images)
    labels = np.asarray(made.logits).argmax(-1)
    assert set(labels) == {0, 1, 2}

    evaluate = evaluate_on(forward, head, images)
    data = FitData(np.asarray(made.features), labels, head, None, evaluate)
    small = {"k": 3, "dimension": 2, "components": 3}
    options = {key: value for key, value in small.items() if key in DETECTORS[name].options}
    fitted = fit_detectors({"score": (name, options)}, data)
    program = scoring_program(forward, fitted, 1.0)
    states = {"score": jax.tree.map(jnp.asarray, fitted["score"].state)}

    def score(weights, images):
        made = program(head, states, images)
        return {"logits": made["logits"], "score": made["scores of"]["score"]}

    found = export_program(score, {}, (2, 2, 2))
    assert found.platforms == detector_folder.PLATFORMS
    expected = jax.jit(score)({}, images)["score"]
    for count in (1, 11):
        scores = found.call({}, images[:count])["score"]
        # The nearest of an image that was fitted to is itself: a distance is the root of rounding.
        atol = 1e-3 if name == "knn_chosen" else 1e-5
        np.testing.assert_allclose(scores, expected[:count], rtol=1e-4, atol=atol)
