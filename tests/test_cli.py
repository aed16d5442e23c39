"""Bad input ends with one clear line, and what was done stays."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from toy_fixtures import LAUNCH, environment

from dream_jax import pipeline
from dream_jax.data.image_sets import IdSet, ImageSet
from dream_jax.data.images import Images
from dream_jax.data.registry import add
from dream_jax.errors import UserError
from dream_jax.files import checksum, read_json, read_npz, write_npz
from dream_jax.record import seal


def refusal(config, workdir, stages=tuple(pipeline.STEPS), overwrite=False) -> str:
    """The one line with which the pipeline refuses."""
    with pytest.raises(UserError) as caught:
        pipeline.run(config, workdir, stages, overwrite)
    message = str(caught.value)
    assert "\n" not in message
    return message


def files_of(workdir) -> dict:
    """When each of a run's files was written."""
    return {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}


# The program itself.


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config.sampling.k=100000"], "error: config.sampling.k is 100000; "),
        (["--stages=nonsense"], "error: --stages names ['nonsense']; allowed: learn, sample, "),
        (["sampling.k=3"], "error: unexpected argument 'sampling.k=3'; "),
        (
            ["--config=configs/cifar10.py:tiny"],
            "error: --config: configs/cifar10.py:tiny: ",
        ),
    ],
)
def test_program_prints_one_line_and_ends_with_status_2(tmp_path, arguments, line):
    command = [*LAUNCH, "--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=os.path.dirname(os.path.dirname(LAUNCH[1])),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    errors = [text for text in done.stderr.splitlines() if text.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith(line)
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "run").exists()


def modules_after(statement: str) -> set[str]:
    """Top-level packages that a fresh process has imported after the statement."""
    code = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_heavy_packages_wait_for_the_stages_that_need_them():
    assert not {"jax", "flax", "numpy"} & modules_after("import dream_jax.errors")
    heavy = {"diffusers", "transformers", "matplotlib", "sklearn", "skimage", "scipy", "pandas"}
    heavy |= {"tensorflow", "tensorflow_datasets", "mlxtend"}
    assert not heavy & modules_after("import dream_jax.pipeline")
    assert "jax" not in modules_after("import dream_jax.cli")


# The folder of a run.


def test_workdir_of_another_configuration(toy, toy_run):
    before = files_of(toy_run.workdir)
    config = toy.config()
    config.name = "other"
    for overwrite in (False, True):
        message = refusal(config, toy_run.workdir, overwrite=overwrite)
        assert f"--workdir {toy_run.workdir} holds a run of configuration 'toy'" in message
        assert "'other'" in message
    assert files_of(toy_run.workdir) == before


def test_a_folder_of_another_version_is_refused(toy, copied_run):
    """As version 1 left it: without a number of its own."""
    workdir = copied_run()
    config, record = workdir / "config.json", workdir / "latent_space" / "stage.json"
    content = read_json(config)
    del content["format"], content["seal"]
    config.write_text(json.dumps(content))
    line = f"--workdir {workdir} holds a run that another version of this program made"
    for overwrite in (False, True):
        assert refusal(toy.config(), workdir, overwrite=overwrite).startswith(line)
    config.unlink()
    record.write_text(json.dumps({"settings": {"seed": 0}, "done": True, "seconds": 1}))
    assert refusal(toy.config(), workdir).startswith(line)


@pytest.mark.parametrize(
    ("setting", "value", "stage"),
    [
        ("seed", 1, "learn"),
        ("sampling.scale", 0.3, "sample"),
        ("decoding.steps", 3, "decode"),
        ("classifier.degrade", 0.25, "train cross_entropy"),
        ("method_options.dream_ood.weight", 3.0, "train dream_ood"),
    ],
)
def test_changed_setting_is_named(toy, toy_run, setting, value, stage):
    before = files_of(toy_run.workdir)
    config = toy.config()
    config.update_from_flattened_dict({setting: value})
    message = refusal(config, toy_run.workdir)
    assert f"stage {stage} was made with {setting}=" in message
    assert f"has {value!r}; use --overwrite" in message
    assert files_of(toy_run.workdir) == before


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("save_every", 7),
        ("eval_batch_size", 33),
        ("decoding.batch_size", 7),
        ("decoding.vae_batch_size", 0),
        ("data.unreadable", "skip"),
        ("data.hold_bytes", 0),
        ("classifier.collapse_below", 0.001),
    ],
)
def test_setting_without_effect_on_results_may_change(toy, toy_run, setting, value):
    before = files_of(toy_run.workdir)
    config = toy.config()
    config.update_from_flattened_dict({setting: value})
    pipeline.run(config, toy_run.workdir)
    assert files_of(toy_run.workdir) == before


def test_overwrite_accepts_a_changed_setting(toy, toy_run, copied_run):
    workdir = copied_run("images", "classifier", "evaluation", "report", "metrics.json")
    config = toy.config()
    config.sampling.scale = 0.3
    learnt = files_of(workdir / "latent_space")
    pipeline.run(config, workdir, ["sample"], overwrite=True)
    assert files_of(workdir / "latent_space") == learnt
    record = read_json(workdir / "embeddings" / "stage.json")
    assert record["done"] and record["settings"]["sampling.scale"] == 0.3
    assert read_json(workdir / "config.json")["sampling"]["scale"] == 0.3
    new, old = (
        read_npz(folder / "embeddings" / "outliers.npz")["embeddings"]
        for folder in (workdir, toy_run.workdir)
    )
    assert not np.allclose(new, old)


def test_refused_overwrite_clears_nothing(toy, toy_run):
    before = files_of(toy_run.workdir)
    config = toy.config()
    config.sampling.scale = 0.3  # the images depend on it, and are not to be redone
    assert "stage decode was made from stage sample with sampling.scale=" in refusal(
        config, toy_run.workdir, ["sample"], overwrite=True
    )
    config = toy.config()
    config.latent_space.features_per_class = 400
    config.sampling.k = 41  # of the 40 images in a class
    assert "at most 40" in refusal(config, toy_run.workdir, overwrite=True)
    assert files_of(toy_run.workdir) == before


def test_stage_that_needs_an_earlier_one(toy, tmp_path):
    message = refusal(toy.config(), tmp_path / "run", ["decode", "train"])
    assert "--stages starts at decode, which needs stage 'learn'" in message
    assert not (tmp_path / "run").exists()


def test_damaged_record_is_named(toy, copied_run):
    workdir = copied_run()
    (workdir / "embeddings" / "stage.json").write_text('{"settings": {')
    message = refusal(toy.config(), workdir)
    assert f"{workdir / 'embeddings' / 'stage.json'}: cannot be read as JSON" in message


def test_damaged_features_are_named(toy, copied_run):
    workdir = copied_run("embeddings", "images", "classifier", "evaluation", "report")
    path = workdir / "latent_space" / "features.npz"
    path.write_bytes(path.read_bytes()[:1000])
    message = refusal(toy.config(), workdir, ["sample"])
    assert message == (
        f"{path}: is missing or damaged, and stage learn is not chosen to make it again; add learn "
        f"to --stages"
    )


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n cut short", b"no image at all"])
def test_unreadable_image_is_named(toy, copied_run, content):
    workdir = copied_run("classifier/dream_ood", "evaluation", "report")
    path = workdir / "images" / "outliers" / "part-00000" / "three" / "000003.png"
    assert path.exists()
    path.write_bytes(content)
    before = files_of(workdir)
    message = refusal(toy.config(), workdir, ["train"])
    assert message.startswith(f"{path}: is missing or damaged, and stage decode is not chosen")
    assert message.endswith("; add decode to --stages")
    after = files_of(workdir)
    assert {name: after[name] for name in before if name.name != "config.json"} == {
        name: time for name, time in before.items() if name.name != "config.json"
    }


def test_corrupt_checkpoint_is_named(toy, copied_run):
    workdir = copied_run("evaluation", "report", "metrics.json")
    folder = workdir / "classifier" / "cross_entropy" / "checkpoints"
    newest = folder / str(max(int(p.name) for p in folder.iterdir() if p.name.isdigit()))
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = refusal(toy.config(), workdir, ["evaluate"])
    assert message.startswith(f"{newest}/")
    assert "stage train cross_entropy is not chosen" in message and "add train to" in message
    assert not (workdir / "metrics.json").exists()


# Data, the generator, and training that goes wrong.


def test_id_set_without_class_names(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("dream_jax.data.registry._added", {})
    images = Images.of(np.zeros((4, 32, 32, 1), np.uint8))
    nameless = ImageSet("nameless", images, np.zeros(4, int))
    add(IdSet("nameless", lambda options: (nameless, nameless)))
    config = toy.config()
    config.data.id = "nameless"
    assert "'nameless' gives no class names" in refusal(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_generator_that_cannot_be_read(toy, tmp_path):
    folder = tmp_path / "generator"
    shutil.copytree(toy.generator, folder)
    weights = folder / "unet" / "diffusion_flax_model.msgpack"
    weights.write_bytes(weights.read_bytes()[:1000])
    config = toy.config()
    config.generator.path = str(folder)
    message = refusal(config, tmp_path / "run")
    assert message.startswith(f"generator.path: {folder / 'unet'} cannot be loaded: ")
    assert not (tmp_path / "run").exists()


def test_generator_of_another_token_width(toy, copied_run):
    workdir = copied_run("images", "classifier", "evaluation", "report", "metrics.json")
    path = workdir / "embeddings" / "outliers.npz"
    arrays = read_npz(path)
    write_npz(path, **(arrays | {"embeddings": arrays["embeddings"][..., :24]}))
    record = read_json(path.parent / "stage.json")  # as if they had been sampled like that
    record["files"][path.name] = checksum(path)
    (path.parent / "stage.json").write_text(json.dumps(seal(record)))
    message = refusal(toy.config(), workdir, ["decode"])
    assert "token embeddings are 32 wide" in message
    assert "outliers 24" in message


def test_loss_that_is_not_finite(toy, copied_run):
    workdir = copied_run("classifier", "evaluation", "report", "metrics.json")
    before = files_of(workdir / "images")
    config = toy.config()
    config.classifier.optimizer.learning_rate = 1e20
    message = refusal(config, workdir, ["train"])
    assert message.startswith("classifier cross_entropy: the loss is ")
    assert "checkpoints up to step 0 are kept" in message
    assert files_of(workdir / "images") == before
    assert not read_json(workdir / "classifier" / "cross_entropy" / "stage.json")["done"]


def test_collapsed_accuracy(toy, copied_run):
    workdir = copied_run("classifier", "evaluation", "report", "metrics.json")
    before = files_of(workdir / "images")
    config = toy.config()
    config.classifier.collapse_below = 1.0
    message = refusal(config, workdir, ["train"])
    assert message.startswith("dream_ood: ID accuracy has collapsed to 0.")
    assert "classifier.collapse_below = 1.0" in message
    assert files_of(workdir / "images") == before
    assert read_json(workdir / "classifier" / "cross_entropy" / "stage.json")["done"]
