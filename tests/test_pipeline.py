"""The whole pipeline at toy size: its files, repeated, killed, and on four devices."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict
from slow import takes_a_minute

from dream_jax import pipeline
from dream_jax.checks import check
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.parts import read_decoded, read_image, read_listing, write_image
from dream_jax.data.registry import load_id
from dream_jax.errors import UserError
from dream_jax.evaluation.metrics import METRICS
from dream_jax.files import PARTIAL, read_json, read_npz
from dream_jax.record import seal

METHODS = ("energy", "dream_ood")
TRAININGS = ("cross_entropy", "dream_ood")
OOD = ("letters", "faces")
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
IMAGE_STEP = 1 / 255
COUNTS = {"outliers": 20, "by_name": 10, "by_name_test": 10}


def measures(workdir) -> dict:
    return read_json(workdir / "metrics.json")["methods"]


def assert_same_numbers(found, expected, tolerance: float) -> None:
    """Two JSON trees are equal up to `tolerance` in their numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_same_numbers(found[name], expected[name], tolerance)
    elif isinstance(expected, float):
        assert abs(found - expected) <= tolerance
    else:
        assert found == expected


def decoded(workdir, kind: str) -> np.ndarray:
    return np.asarray(read_decoded(workdir / "images" / kind, COUNTS[kind], 32, 1, 2**20)[0])


def outliers_of(workdir) -> np.ndarray:
    return read_npz(workdir / "embeddings" / "outliers.npz")["embeddings"]


def reopen(workdir, stage_folder: str) -> None:
    """Makes a stage one that was interrupted."""
    path = workdir / stage_folder / "stage.json"
    path.write_text(json.dumps(seal(read_json(path) | {"done": False})))


def test_metrics_have_the_documented_layout(toy_run):
    metrics = read_json(toy_run.workdir / "metrics.json")
    own = {"seed", "seeds", "config", "embeddings"}
    assert metrics.keys() == {"methods", "by_seed", "bootstrap", *own}
    assert (metrics["seed"], metrics["seeds"], metrics["config"]) == (0, [0], "toy")
    assert metrics["by_seed"] == {"0": metrics["methods"]}
    assert tuple(metrics["methods"]) == METHODS
    for method in metrics["methods"].values():
        assert tuple(method["ood"]) == (*OOD, "mean")
        assert method["kept"].keys() == {"round_trips", "sampled_by_name"}
        numbers = [method["id_accuracy"], method["id_aurc"], *method["kept"].values()]
        for of_set in method["ood"].values():
            assert tuple(of_set) == METRICS
            numbers += of_set.values()
        assert all(isinstance(n, float) and 0 <= n <= 1 for n in numbers)


def test_mean_is_that_of_the_sets(toy_run):
    for method in read_json(toy_run.workdir / "metrics.json")["methods"].values():
        for name, mean in method["ood"]["mean"].items():
            assert mean == pytest.approx(np.mean([method["ood"][s][name] for s in OOD]))


def test_prints_stages_table_and_report(toy_run):
    stages = re.findall(r"^── (.+)$", toy_run.output, re.MULTILINE)
    assert stages == [
        "learn",
        "sample",
        "decode",
        "decode by_name",
        "decode by_name_test",
        "round trips test",
        "round trips train",
        "train cross_entropy",
        "train dream_ood",
        "evaluate embeddings",
        "evaluate legible",
        "evaluate cross_entropy",
        "evaluate dream_ood",
        "evaluate outliers",
        "metrics",
        "report",
    ]
    for word in ("FPR95", "AUROC", "AUPR", "letters", "faces", "mean", "Energy", "Dream-OOD"):
        assert word in toy_run.output
    page = toy_run.workdir / "report" / "index.html"
    assert f"report: {page}" in toy_run.output
    steps = toy_run.output[toy_run.output.index("\nnext:\n") :]
    assert f"open {page} in a browser" in steps and "notebooks/tour.ipynb" in steps
    images = re.search(r"make score ARGS='--run=(\S+) --images=(\S+)'", steps)
    assert images[1] == str(toy_run.workdir) and list(Path(images[2]).rglob("*.png"))
    assert "Traceback" not in toy_run.output


def test_report_holds_its_images(toy_run):
    page = (toy_run.workdir / "report" / "index.html").read_text()
    sources = re.findall(r'<img[^>]*src="([^"]{0,40})', page)
    assert len(sources) >= 6
    assert all(re.match("data:image/(png|jpeg);base64,", source) for source in sources)
    # The figures, and an outlier for each image that was decoded.
    known = read_npz(toy_run.workdir / "evaluation" / "outliers" / "outliers.npz")
    for number, distance in enumerate(known["d_k"]):
        assert f"d_k {distance:.3f}" in page and f"seed\xa00, no.\xa0{number}<" in page
    for training in ("latent space", "classifier cross entropy", "classifier dream ood"):
        assert f"<h3>{training}</h3>" in page
    assert re.search(r"<pre>python launch/main.py --config=\S+toy.py --config.generator", page)
    assert "<dt>jax</dt>" in page and str(toy_run.workdir) not in page
    assert not re.search(r"<script|<link[^>]*href|https?://[^\"]*\.(css|js|png)", page)
    assert list((toy_run.workdir / "report").glob("*.png"))


def test_every_outlier_is_measured(toy_run):
    """d_k against NumPy's, and confidences against the summary of the training."""
    known = read_npz(toy_run.workdir / "latent_space" / "features.npz")
    found = read_npz(toy_run.workdir / "evaluation" / "outliers" / "outliers.npz")
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    embeddings, k = unit(outliers_of(toy_run.workdir)), 10
    listed = read_listing(toy_run.workdir / "images" / "outliers", 20)
    assert len(found["d_k"]) == len(found["own"]) == len(found["read"]) == len(listed)
    for (_, entry), distance in zip(listed, found["d_k"], strict=True):
        features = unit(known["features"][known["labels"] == entry["label"]])
        squares = np.sum((features - embeddings[entry["label"], entry["embedding"]]) ** 2, axis=-1)
        assert distance == pytest.approx(np.sort(squares)[k - 1], abs=1e-5)
    summary = read_json(toy_run.workdir / "classifier" / "dream_ood" / "outliers.json")
    assert np.mean(found["own"] >= 0.95) == pytest.approx(summary["in_class"])
    assert np.mean(found["surest"] >= 0.95) == pytest.approx(summary["in_any_class"])
    labels = np.asarray([entry["label"] for _, entry in listed])
    same = found["read"] == labels
    np.testing.assert_array_equal(found["own"][same], found["surest"][same])


@pytest.mark.parametrize(("kind", "count"), [("outliers", 20), ("by_name", 10)])
def test_images_and_their_metadata(toy, toy_run, kind, count):
    folder = toy_run.workdir / "images" / kind / "part-00000"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == count
    assert {row["file_name"] for row in rows} == {
        str(path.relative_to(folder)) for path in folder.glob("*/*")
    }
    per_class = outliers_of(toy_run.workdir).shape[1]
    for row in rows:
        assert row["file_name"].split("/")[0] == row["class"]
        assert row["class"] in NAMES
        assert row["seed"] == 0
        decoding = toy.config().decoding
        wanted = decoding.prompts if kind == "outliers" else (decoding.id_prompt,)
        assert row["prompt"] in wanted
        if kind == "outliers":
            assert 0 <= row["embedding"] < per_class
        else:
            assert row["embedding"] is None
        assert read_image(folder / row["file_name"], channels=1).shape == (32, 32, 1)
    assert sorted(row["class"] for row in rows) == sorted(NAMES * (count // 10))
    images = decoded(toy_run.workdir, kind)
    assert images.std(axis=0).mean() > IMAGE_STEP, "all images are the same"


def test_embeddings_have_the_norms_of_the_anchors(toy, toy_run):
    embeddings = outliers_of(toy_run.workdir)
    anchors = read_npz(toy_run.workdir / "latent_space" / "features.npz")["anchors"]
    sampling = toy.config().sampling
    per_class = sampling.rounds * sampling.per_round * sampling.keep
    assert embeddings.shape == (10, per_class, anchors.shape[1])
    norms = np.linalg.norm(embeddings, axis=-1)
    np.testing.assert_allclose(
        norms, np.broadcast_to(np.linalg.norm(anchors, axis=-1)[:, None], norms.shape), rtol=1e-5
    )


def test_finished_run_repeats_no_stage(toy, toy_run):
    def written():
        return {
            path: path.stat().st_mtime_ns
            for path in toy_run.workdir.rglob("*")
            if path.is_file() and "checkpoints" not in path.parts
        }

    before, metrics = written(), (toy_run.workdir / "metrics.json").read_bytes()
    begin = time.perf_counter()
    output = toy.finish(toy_run.workdir)
    seconds = time.perf_counter() - begin
    assert "──" not in output
    assert "report:" in output
    assert written() == before
    assert (toy_run.workdir / "metrics.json").read_bytes() == metrics
    assert seconds < 0.5 * toy_run.seconds


def kill_when(process, pattern: str, workdir) -> None:
    """Kills the process as soon as a file of the pattern is in its folder."""
    try:
        while not any(workdir.glob(pattern)):
            assert process.poll() is None, f"ended before {pattern}: {process.stdout.read()}"
            time.sleep(0.01)
    finally:
        process.kill()  # SIGKILL: nothing is cleaned up
        process.communicate()


@takes_a_minute
def test_killed_in_three_stages_ends_with_the_same_metrics(toy, toy_run, tmp_path):
    workdir = tmp_path / "killed"
    for stage, pattern in {
        "latent_space": "latent_space/checkpoints/5/checksums.json",
        "images/outliers": "images/outliers/part-*/*/[!.]*.png",
        "classifier/dream_ood": "classifier/dream_ood/checkpoints/10/checksums.json",
    }.items():
        kill_when(toy.start(workdir), pattern, workdir)
        assert not read_json(workdir / stage / "stage.json")["done"], f"killed too late: {stage}"
        assert not (workdir / "metrics.json").exists()
        if stage == "images/outliers":
            assert not (workdir / "images" / "by_name_test").exists()
    output = toy.finish(workdir)
    resumed = re.findall(r"^── (.+)$", output, re.MULTILINE)
    evaluated = ["evaluate legible", "evaluate cross_entropy", "evaluate dream_ood"]
    evaluated = ["evaluate embeddings", *evaluated, "evaluate outliers"]
    assert resumed == ["train dream_ood", *evaluated, "metrics", "report"]
    features, expected = (
        read_npz(folder / "latent_space" / "features.npz") for folder in (workdir, toy_run.workdir)
    )
    for name in expected:
        np.testing.assert_allclose(features[name], expected[name], atol=1e-6, err_msg=name)
    np.testing.assert_allclose(outliers_of(workdir), outliers_of(toy_run.workdir), atol=1e-6)
    for kind in ("outliers", "by_name", "by_name_test"):
        difference = np.abs(decoded(workdir, kind) - decoded(toy_run.workdir, kind))
        assert difference.max() <= IMAGE_STEP + 1e-6
    assert_same_numbers(measures(workdir), measures(toy_run.workdir), 1e-6)
    curves = sorted(toy_run.workdir.rglob("metrics.csv"))
    assert len(curves) == 1 + len(TRAININGS)
    for path in curves:
        again = workdir / path.relative_to(toy_run.workdir)
        assert again.read_bytes() == path.read_bytes(), again
        assert len(list((again.parent / "tensorboard").iterdir())) == 1


@takes_a_minute
def test_four_devices_give_the_same_embeddings_images_and_scores(toy, toy_run, copied_run):
    workdir = copied_run("embeddings", "images", "evaluation", "report", "metrics.json")
    toy.finish(workdir, ["--stages=sample,decode,evaluate"], devices=4)
    expected = outliers_of(toy_run.workdir)
    np.testing.assert_allclose(
        outliers_of(workdir), expected, atol=1e-5 * np.linalg.norm(expected[0, 0])
    )
    for kind in ("outliers", "by_name", "by_name_test"):
        difference = np.abs(decoded(workdir, kind) - decoded(toy_run.workdir, kind))
        assert difference.max() <= IMAGE_STEP + 1e-6
    for part in ("train", "test"):
        name = f"round_trips_{part}/images.npy"
        found, of_one = (
            np.load(folder / "images" / name, allow_pickle=False).astype(int)
            for folder in (workdir, toy_run.workdir)
        )
        assert np.abs(found - of_one).max() <= 1
    for training in TRAININGS:
        name = f"evaluation/{training}/scores_energy.npz"
        found, of_one = (read_npz(folder / name) for folder in (workdir, toy_run.workdir))
        for images in OOD:
            np.testing.assert_allclose(found[images], of_one[images], rtol=1e-3, atol=1e-3)
    assert_same_numbers(measures(workdir), measures(toy_run.workdir), 0.02)


def assert_behind_the_boundary(workdir):
    """BOOD's embeddings are given to another class, and its images were decoded from them."""
    learned = read_npz(workdir / "latent_space" / "features.npz")
    embeddings = read_npz(workdir / "embeddings" / "bood" / "bood.npz")["embeddings"]
    anchors = learned["anchors"]
    lengths = np.linalg.norm(anchors, axis=1)
    assert embeddings.shape == (10, 2, anchors.shape[1])  # a share of 5 % of 40
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=2).T, [lengths] * 2, rtol=1e-5)
    read = (embeddings @ (anchors / lengths[:, None]).T).argmax(axis=-1)
    assert not (read == np.arange(10)[:, None]).any()
    judged = read_json(workdir / "classifier" / "bood" / "outliers.json")
    assert judged["outliers"] == judged["used"] == 20


@takes_a_minute
def test_more_rows_and_seeds_train_only_what_is_new(toy, toy_run, copied_run, capsys):
    """Detectors, another method and another seed beside a finished run, whose rows stay."""
    workdir, config = copied_run(), toy.config()
    posthoc = ("msp", "odin", "knn", "react")
    config.methods = (*posthoc, "energy", "dream_id", "dream_ood", "dream_ood/knn", "bood")
    config.method_options.knn = ConfigDict({"k": 7})
    config.data.shifted = ("contrast",)
    config.seeds = (0, 1)
    pipeline.run(config, workdir)
    done = [line.removeprefix("── ") for line in capsys.readouterr().out.splitlines()]
    steps = ("learn", "sample", "decode", "round trips", "train")
    done = [line for line in done if line.startswith(steps)]
    assert done == [
        *("sample bood", "sample inliers", "decode bood", "decode inliers"),
        *("train dream_id", "train bood", "train cross_entropy, seed 1"),
        *("train dream_id, seed 1", "train dream_ood, seed 1", "train bood, seed 1"),
    ]
    before = read_json(toy_run.workdir / "metrics.json")["methods"]
    after = read_json(workdir / "metrics.json")
    first = after["by_seed"]["0"]
    assert tuple(after["methods"]) == config.methods
    for name in before:
        same = {part: first[name][part] for part in before[name]}
        assert_same_numbers(same, before[name], 1e-6)
    for name in posthoc:
        assert first[name].keys() == before["energy"].keys()
        assert first[name]["id_accuracy"] == first["energy"]["id_accuracy"]
        scores = read_npz(workdir / "evaluation" / "cross_entropy" / f"scores_{name}.npz")
        assert all(len(scores[images]) == 50 for images in OOD)
    page = (workdir / "report" / "index.html").read_text()
    titles = ("MSP", "ODIN", "KNN", "ReAct", "Dream-OOD / KNN", "BOOD")
    assert all(title in page for title in titles)
    assert (workdir / "report" / "outliers_bood.png").is_file()
    for method in ("energy", "dream_id", "dream_ood", "bood"):
        shifted = first[method]["shifted"]
        strengths = [shifted["contrast"][str(strength)] for strength in range(1, 6)]
        np.testing.assert_allclose(shifted["contrast"]["mean"], np.mean(strengths))
        assert shifted["mean"] == shifted["contrast"]["mean"]
    assert "shifted" not in first["knn"] and "shifted" not in first["dream_ood/knn"]
    assert first["dream_ood/knn"]["id_accuracy"] == first["dream_ood"]["id_accuracy"]
    assert first["dream_ood/knn"]["ood"] != first["dream_ood"]["ood"]
    assert first["bood"]["ood"] != first["dream_ood"]["ood"]
    for kind in ("inliers", "bood"):
        listed, rows = zip(*read_listing(workdir / "images" / kind, 20), strict=True)
        assert len(listed) == 20 and {row["prompt"] for row in rows} == {"a handwritten {name}"}
    assert_behind_the_boundary(workdir)
    second = after["by_seed"]["1"]["dream_ood"]["ood"]["mean"]["auroc"]
    both = (first["dream_ood"]["ood"]["mean"]["auroc"] + second) / 2
    np.testing.assert_allclose(after["methods"]["dream_ood"]["ood"]["mean"]["auroc"], both)


@takes_a_minute
@pytest.mark.parametrize("augment", ["affine", "random_resized_crop"])
def test_a_set_that_streams_gives_the_bits_of_one_that_is_held(toy, tmp_path, augment):
    """Digits as an image folder, with another as an OOD set; every stage, with a worker process."""
    folder = tmp_path / "digits"
    sets = zip(("train", "val"), load_id("digits_small", DataOptions()), strict=True)
    for split, images in sets:
        for row, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
            write_image(folder / split / images.class_names[label] / f"{row:03}.png", image)
    config = toy.config()
    config.data.id, config.data.folder = "imagefolder", str(folder)
    again = shutil.copytree(folder / "val", tmp_path / "again")
    config.data.ood = ("letters", f"digits_again={again}")
    config.latent_space.augment = config.classifier.augment = augment
    results = {}
    for name, hold_bytes, workers in (("held", 2**30, 0), ("streamed", 0, 1)):
        config.data.hold_bytes, config.data.workers = hold_bytes, workers
        workdir = tmp_path / name
        pipeline.run(config, workdir)
        results[name] = read_json(workdir / "metrics.json")
        trips = np.load(workdir / "images" / "round_trips_train" / "images.npy")
        assert trips.shape == (400, 32, 32, 1)
        ood = tuple(results[name]["methods"]["energy"]["ood"])
        assert ood == ("letters", "digits_again", "mean")
    scores = [f"evaluation/{training}/scores_energy.npz" for training in TRAININGS]
    for path in ("latent_space/features.npz", *scores):
        held, streamed = (read_npz(tmp_path / name / path) for name in results)
        for key in held:
            np.testing.assert_array_equal(streamed[key], held[key], err_msg=f"{path} {key}")
    assert results["held"]["methods"] == results["streamed"]["methods"]


def test_only_missing_images_are_decoded_again(toy, toy_run, copied_run):
    workdir = copied_run("evaluation", "report", "classifier", "metrics.json")
    reopen(workdir, "images/outliers")
    folder = workdir / "images" / "outliers" / "part-00000"
    files = sorted(folder.glob("*/*.png"))
    missing = files[3], files[8], files[17]
    for path in missing:
        path.unlink()
    (folder / "metadata.jsonl").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (workdir / "images").rglob("*.png")}
    (missing[0].parent / f"{PARTIAL}{missing[0].name}").write_bytes(b"\x89PNG\r\n")
    pipeline.run(toy.config(), workdir, ["decode"])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert sorted(folder.glob("*/*")) == files
    found, expected = decoded(workdir, "outliers"), decoded(toy_run.workdir, "outliers")
    assert np.abs(found - expected).max() <= IMAGE_STEP + 1e-6
    assert (folder / "metadata.jsonl").read_bytes() == (
        toy_run.workdir / "images" / "outliers" / "part-00000" / "metadata.jsonl"
    ).read_bytes()


def test_sampling_continues_at_the_class_where_it_stopped(toy, toy_run, copied_run, monkeypatch):
    from dream_jax.sampling import classes

    workdir = copied_run("embeddings", "images", "classifier", "evaluation", "report")
    sample, sampled = classes.sample_embeddings, []

    def stops(*arguments):
        if len(sampled) == 4:
            raise KeyboardInterrupt
        sampled.append(arguments)
        return sample(*arguments)

    monkeypatch.setattr(classes, "sample_embeddings", stops)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(toy.config(), workdir, ["sample"])
    assert len(os.listdir(workdir / "embeddings" / "classes")) == 4

    def counts(*arguments):
        sampled.append(arguments)
        return sample(*arguments)

    monkeypatch.setattr(classes, "sample_embeddings", counts)
    pipeline.run(toy.config(), workdir, ["sample"])
    assert len(sampled) == 10
    np.testing.assert_allclose(outliers_of(workdir), outliers_of(toy_run.workdir), atol=1e-6)


@pytest.mark.parametrize("lost", ["metrics.json", "report/index.html"])
def test_a_deleted_result_is_made_again(toy, toy_run, copied_run, lost):
    workdir = copied_run(lost)
    pipeline.run(toy.config(), workdir, ["evaluate", "report"])
    assert (workdir / "report" / "index.html").exists()
    assert_same_numbers(measures(workdir), measures(toy_run.workdir), 0.02)


def network_of(folder) -> dict[str, np.ndarray]:
    """The newest checkpoint's network: parameters and statistics by name."""
    manager = ocp.CheckpointManager(
        folder / "checkpoints", item_handlers=ocp.StandardCheckpointHandler()
    )
    state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore())
    manager.close()
    tree = {"params": state["params"]["network"], **state["model_state"]}
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree.leaves_with_path(tree)}


def test_dream_ood_starts_from_a_trained_network(toy, toy_run, copied_run, tmp_path):
    workdir = copied_run("classifier/dream_ood", "evaluation", "report", "metrics.json")
    config = toy.config()
    config.init_from = "cross_entropy"
    config.fine_tune.update(epochs=1, batch_size=40, learning_rate=1e-9)
    config.classifier.optimizer.final_learning_rate = 1e-9
    with pytest.raises(UserError, match=r"classifier.optimizer.final_learning_rate"):
        pipeline.run(config, workdir, ["train"])
    shutil.rmtree(workdir / "classifier" / "cross_entropy")
    pipeline.run(config, workdir, ["train"])
    plain, tuned = (network_of(workdir / "classifier" / name) for name in TRAININGS)
    for name, value in plain.items():
        if "batch_stats" not in name:
            np.testing.assert_allclose(tuned[name], value, atol=1e-6, err_msg=name)
    steps = os.listdir(workdir / "classifier" / "dream_ood" / "checkpoints")
    assert max(map(int, steps)) == 10  # 400 images in batches of 40

    # The same from the folder of another run, without a plain classifier of its own.
    config.methods = ("dream_ood",)
    config.init_from = str(workdir / "classifier" / "cross_entropy" / "checkpoints")
    other = tmp_path / "other"
    for part in ("latent_space", "embeddings", "images", "config.json"):
        copy = shutil.copytree if (workdir / part).is_dir() else shutil.copy
        other.mkdir(exist_ok=True)
        copy(workdir / part, other / part)
    pipeline.run(config, other)
    again = network_of(other / "classifier" / "dream_ood")
    for name, value in tuned.items():
        np.testing.assert_allclose(again[name], value, atol=1e-6, err_msg=name)
    assert list(read_json(other / "metrics.json")["methods"]) == ["dream_ood"]


def test_other_trainings_start_from_the_plain_classifier_where_asked(toy, copied_run):
    workdir = copied_run("classifier/dream_ood", "evaluation", "report", "metrics.json")
    config = toy.config()
    config.methods, config.fine_tune.rows = ("energy", "godin"), ("godin",)
    config.fine_tune.update(epochs=1, batch_size=40, learning_rate=2e-6)
    pipeline.run(config, workdir, ["train"])
    trained = ("cross_entropy", "godin")
    plain, tuned = (network_of(workdir / "classifier" / name) for name in trained)
    for name, value in plain.items():
        if "batch_stats" not in name:
            np.testing.assert_allclose(tuned[name], value, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("lost", ["folder", "checkpoint", "shape"])
def test_a_start_that_does_not_fit_is_refused_before_any_work(toy, toy_run, tmp_path, lost):
    config = toy.config()
    config.init_from = str(toy_run.workdir / "classifier" / "cross_entropy" / "checkpoints")
    expected = "BasicBlock_0.BatchNorm_0.mean has shape (8,), the configuration's model has (12,)"
    if lost == "folder":
        config.init_from, expected = str(tmp_path / "nowhere"), "there is no folder"
    elif lost == "checkpoint":
        (tmp_path / "empty").mkdir()
        config.init_from, expected = str(tmp_path / "empty"), "holds no checkpoint"
    else:
        config.model.width = 12
    with pytest.raises(UserError, match=re.escape(expected)) as raised:
        pipeline.run(config, tmp_path / "run")
    assert str(raised.value).startswith("config.init_from")
    assert not list((tmp_path / "run").rglob("*.npz"))


@takes_a_minute
def test_larger_files_resized_in_several_ways_are_shown_as_patches(toy, copied_run):
    """All that reads decoded images copes with them; a lost one is made again to the byte."""
    workdir = copied_run("images", "classifier", "evaluation", "report", "metrics.json")
    config = toy.config()
    config.decoding.update(image_size=48, resize="mixed", outliers=20, by_name=10, by_name_test=10)
    # No outlier is left out: the band lies around what an untrained classifier is sure of.
    config.classifier.update(outlier_view="patches", filter_least_confidence=0.01)
    config.method_options.dream_ood.update(
        regulariser="condition_number", regulariser_weight=0.01, feature_dimension=12
    )
    pipeline.run(config, workdir)
    entries = [entry for _, entry in read_listing(workdir / "images" / "outliers", 20)]
    assert {entry["resize"] for entry in entries} == {"antialiased", "bilinear", "nearest"}
    files = sorted((workdir / "images" / "outliers").glob("part-*/*/*.png"))
    assert {read_image(file, channels=1).shape for file in files} == {(48, 48, 1)}
    before = files[7].read_bytes()
    files[7].unlink()
    pipeline.run(config, workdir)
    assert files[7].read_bytes() == before
    run = pipeline.make_run(check(config), workdir)
    assert run.decoded("outliers")[0].shape == (20, 32, 32, 1)
    assert run.decoded("outliers", 48)[0].shape == (20, 48, 48, 1)
    assert run.classifier("dream_ood", 0).head.kernel.shape == (12, 10)
    parts = run.metrics["methods"]["dream_ood"]["outliers"]
    assert parts == {"used": 1.0, "too_sure": 0.0, "too_unsure": 0.0}
    curves = (workdir / "classifier" / "dream_ood" / "metrics.csv").read_text()
    assert "condition_number" in curves.splitlines()[0]
    page = (workdir / "report" / "index.html").read_text()
    assert "too unsure" in page and "20 of 20" in page


def test_images_decoded_at_another_size_are_used_at_that_of_the_data(toy, copied_run):
    workdir = copied_run("images", "classifier/dream_ood", "evaluation", "report", "metrics.json")
    config = toy.config()
    config.decoding.image_size = 40
    config.decoding.update(outliers=10, by_name=10, by_name_test=10)
    pipeline.run(config, workdir, ["decode", "train"])
    file = next((workdir / "images" / "outliers").glob("part-*/*/*.png"))
    assert read_image(file, channels=1).shape == (40, 40, 1)
    images, labels = pipeline.make_run(check(config), workdir).decoded("outliers")
    assert images.shape == (10, 32, 32, 1)
    assert labels.tolist() == list(range(10))
    assert images[:].std() > 0.01
