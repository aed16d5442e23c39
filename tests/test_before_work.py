"""What the data, the generator and the prompts do not allow is refused before any stage works."""

import re
import shutil
from functools import partial
from itertools import product
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import quickstart
from dream_jax import pipeline, tuning
from dream_jax.errors import UserError
from dream_jax.generator.load import load_vocabulary

CLASSES = ("one", "two")


def images(folder: Path, count: int) -> Path:
    """Writes grey images of random pixels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (28, 28), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def classes(root: Path, names=CLASSES) -> Path:
    for split, count in (("train", 10), ("test", 2)):
        for name in names:
            images(root / split / name, count)
    return root


def of_folder(toy, root: Path) -> ConfigDict:
    config = toy.config()
    config.data.id, config.data.folder = "imagefolder", str(root)
    return config


def refused(config: ConfigDict, workdir: Path, run=pipeline.run) -> str:
    """The one line with which a run is refused, which leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        run(config, workdir)
    assert len(str(caught.value).splitlines()) == 1
    assert not workdir.exists()
    return str(caught.value)


def broken(folder: Path) -> Path:
    (images(folder, 3) / "2.png").write_bytes(b"no image")
    return folder


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("field", "use", "make"),
    [
        ("ood", "OOD", broken),
        ("shifted", "shifted", broken),
        ("auxiliary", "auxiliary", empty),
        ("tuning", "tuning", empty),
    ],
)
def test_sets_that_cannot_be_read(toy, tmp_path, field, use, make):
    config, folder = toy.config(), make(tmp_path / "set")
    if field == "shifted":
        (tmp_path / "shifted").mkdir()
        folder = folder.rename(tmp_path / "shifted" / "one").parent
    config.data[field] = (f"mine={folder}",)
    config.methods = ("energy", "outlier_exposure")
    run = pipeline.run
    if field == "tuning":
        run, config.methods = tuning.run, ("knn",)
        config.tuning.candidates = ConfigDict({"knn": {"k": (3,)}})
    message = refused(config, tmp_path / "run", run)
    assert message.startswith(f"the {use} set 'mine={folder}' cannot be used: ")
    assert str(folder) in message
    assert ("not a readable image" if make is broken else "images") in message


def test_a_tuning_set_that_is_not_here_is_called_one(toy, tmp_path, capsys):
    config = toy.config()
    config.methods, config.data.tuning = ("knn",), (f"mine={tmp_path / 'gone'}",)
    config.tuning.candidates = ConfigDict({"knn": {"k": (3,)}})
    message = refused(config, tmp_path / "run", tuning.run)
    assert message.startswith("config.data.tuning is ('mine=")
    assert capsys.readouterr().out.startswith("skipped tuning set: there is no folder")


def test_all_candidates_are_checked_before_the_first_is_tried(toy, tmp_path):
    config = toy.config()
    config.methods, config.data.tuning = ("knn", "outlier_exposure"), ("noise",)
    config.data.auxiliary = (f"mine={broken(tmp_path / 'set')}",)
    config.tuning.candidates = ConfigDict(
        {"knn": {"k": (3,)}, "outlier_exposure": {"weight": (1.0,)}}
    )
    with pytest.raises(UserError, match="the auxiliary set 'mine="):
        tuning.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "latent_space").exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("Cat", "cat"), "class 'Cat' and class 'cat' have the same tokens"),
        (("black cat", "cat_black"), "class 'black cat' and class 'cat black' have the same"),
        (("cat", "cat cat"), "class 'cat' and class 'cat cat' have the same tokens"),
        (("dog", " "), "the name of class ' ' is empty"),
        (("dog", "<|endoftext|>"), "class '<|endoftext|>' has no tokens"),
    ],
)
def test_names_of_classes_without_an_anchor_of_their_own(toy, tmp_path, names, said):
    config = of_folder(toy, classes(tmp_path / "data", names))
    assert refused(config, tmp_path / "run").startswith(said)


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"methods": ("bood",)}, "BOOD (a row, or sampling.method)"),
        ({"sampling.method": "bood"}, "BOOD (a row, or sampling.method)"),
        ({"sampling.method": "interpolation"}, "sampling.method = 'interpolation'"),
    ],
)
def test_what_lies_between_classes_needs_two(toy, tmp_path, change, asked):
    config = of_folder(toy, classes(tmp_path / "data", ("one",)))
    config.update_from_flattened_dict(change)
    assert f"{asked} needs two classes or more" in refused(config, tmp_path / "run")


def test_a_generator_that_knows_the_names_of_classes_alone_has_no_other_words(toy, tmp_path):
    words = load_vocabulary(str(toy.generator)).words()
    config = of_folder(toy, classes(tmp_path / "data", tuple(words)))
    config.sampling.method = "vocabulary"
    said = f"config.sampling.method is 'vocabulary'; the {len(words)} whole words of generator.path"
    assert refused(config, tmp_path / "run").startswith(said)


def test_words_that_are_equal_name_their_classes(toy, tmp_path):
    config = of_folder(toy, classes(tmp_path / "data"))
    config.data.class_tokens = ConfigDict({"two": "ONE"})
    message = refused(config, tmp_path / "run")
    assert message.startswith("class 'one' and class 'two', by its word 'ONE', have the same")


def test_class_names_longer_than_the_name_of_a_folder(toy, tmp_path):
    config = of_folder(toy, classes(tmp_path / "data"))
    config.data.class_names = ConfigDict({"one": "é" * 128, "two": "two"})
    message = refused(config, tmp_path / "run")
    assert "is 256 bytes long; the folder of its images can have a name of 255" in message


@pytest.mark.parametrize("field", ["prompts", "id_prompt"])
def test_prompts_that_cut_the_name(toy, tmp_path, field):
    config, prompt = toy.config(), "a " * 30 + "{name}"
    config.decoding[field] = (prompt,) if field == "prompts" else prompt
    message = refused(config, tmp_path / "run")
    assert "'zero'" in message and re.search(r"takes 14|within 14 tokens", message)


@pytest.mark.parametrize(
    ("scheduler", "steps", "allowed"),
    [
        ("plms", 1001, "at least 2 and at most 500"),
        ("plms", 1, "at least 2 and at most 500"),
        ("ddim", 501, "at least 2 and at most 500"),
        ("dpmsolver++", 1000, "at least 1 and at most 999"),
        ("lcm", 51, "at least 1 and at most 50"),
    ],
)
def test_steps_that_the_scheduler_cannot_do(toy, tmp_path, scheduler, steps, allowed):
    config = toy.config()
    config.generator.scheduler, config.decoding.steps = scheduler, steps
    message = refused(config, tmp_path / "run")
    assert message.startswith(f"config.decoding.steps is {steps}; with generator.scheduler = ")
    assert allowed in message


def test_branch_of_the_cache_that_the_unet_lacks(toy, tmp_path):
    config = toy.config()
    config.decoding.cache_branch = 99
    message = refused(config, tmp_path / "run")
    assert message.startswith("config.decoding.cache_branch is 99; the generator's UNet has ")


@pytest.mark.parametrize("name", ["plms", "ddim", "dpmsolver++", "euler", "lcm"])
def test_steps_that_are_allowed_start_at_noise_and_repeat_none(name):
    from dream_jax.generator.schedulers import check_steps, make_scheduler

    trained = 100
    noise = {"num_train_timesteps": trained}
    scheduler, fresh = make_scheduler(name, noise)
    for steps in (1, 2, 3, 33, 50, 51, 99, 100):
        chosen = jax.jit(partial(scheduler.set_timesteps, fresh, steps, (1, 4, 8, 8)))
        times = np.asarray(chosen().timesteps).tolist()
        # From at least half as much noise as there is, and no step twice (but for PLMS' start).
        good = trained / 2 <= times[0] < trained and len(set(times)) == steps
        good &= name in ("dpmsolver++", "euler") or steps <= trained / 2
        try:
            check_steps(name, noise, steps)
        except UserError:
            assert not good, (steps, times)
        else:
            assert good, (steps, times)


@pytest.mark.parametrize(
    ("field", "spelling"),
    [
        *product(("ood", "shifted"), ("{0}/test", "{0}/./test/", "{0}/test/one", "{0}/../l")),
        *product(("tuning", "auxiliary"), ("{0}", "{0}/train/")),
    ],
)
def test_sets_that_share_images_with_the_id_set(toy, tmp_path, monkeypatch, field, spelling):
    root = classes(tmp_path / "data")
    (tmp_path / "l").symlink_to(root / "test")
    monkeypatch.chdir(tmp_path)
    config = of_folder(toy, Path("data"))
    config.data[field] = (f"mine={spelling.format('data')}",)
    message = refused(config, tmp_path / "run")
    assert message.startswith(f"config.data.{field} has 'mine=") and "data.id has" in message


def test_a_class_that_is_left_out_may_be_an_ood_set(toy, tmp_path):
    from dream_jax.checks import check

    config = of_folder(toy, classes(tmp_path / "data"))
    config.data.ood = (f"mine={tmp_path / 'data' / 'test' / 'two'}",)
    assert "data.id has the images in" in refused(config, tmp_path / "run")
    config.data.class_names = ConfigDict({"one": "one"})
    check(config)


def test_links_to_id_classes_are_followed(toy, tmp_path):
    root = classes(tmp_path / "data")
    (tmp_path / "ood").mkdir()
    (tmp_path / "ood" / "x").symlink_to(root / "test" / "two")
    config = of_folder(toy, root)
    config.data.ood = (f"mine={tmp_path / 'ood'}",)
    assert "data.id has the images in" in refused(config, tmp_path / "run")


def test_one_folder_under_two_names(toy, tmp_path):
    images(tmp_path / "set", 2)
    config = toy.config()
    config.data.ood = (f"a={tmp_path}/set", f"b={tmp_path}/./set/")
    assert "which are one folder" in refused(config, tmp_path / "run")


def test_a_finished_run_opens_no_images(toy, toy_run, tmp_path, monkeypatch):
    """Nor does a run whose sets are gone, as long as nothing is to be made."""
    workdir = shutil.copytree(toy_run.workdir, tmp_path / "copy")

    def unexpected(*arguments):
        raise AssertionError("loaded")

    monkeypatch.setattr("dream_jax.evaluation.evaluators.ood.load_for", unexpected)
    monkeypatch.setattr("dream_jax.run.load_id", unexpected)
    pipeline.run(toy.config(), workdir)


def test_two_folders_of_one_name_are_both_named(toy, tmp_path):
    config = of_folder(toy, classes(tmp_path / "data", ("a b", "a_b")))
    message = refused(config, tmp_path / "run")
    assert message.endswith("are called 'a b': 'a b' and 'a_b'")


def test_classes_whose_folders_have_one_name_keep_their_images():
    from dream_jax.decoding.pictures import Order, plan_pictures

    decoding = quickstart.get_config().decoding
    pictures = plan_pictures(Order("by_name", 6, ("a/b", "a_b"), ("a/b", "a_b"), 0), decoding)
    assert len({picture.file_name for picture in pictures}) == 6
    assert {picture.file_name.partition("/")[0] for picture in pictures} == {"a_b"}


def test_numpy_scalars_reach_the_stages_as_plain_numbers(toy, tmp_path):
    config = toy.config()
    del config.decoding.steps  # with its type
    config.decoding.steps = np.int64(1000)
    assert refused(config, tmp_path / "run").startswith("config.decoding.steps is 1000; with ")
