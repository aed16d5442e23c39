"""Folders that are no pipelines, or whose parts do not fit together."""

import json
import shutil

import pytest

from dream_jax.errors import UserError
from dream_jax.generator.folders import generator_folder
from dream_jax.generator.load import load_generator


def assert_refused(folder, *parts):
    """In one line, that holds `parts`."""
    with pytest.raises(UserError) as caught:
        load_generator(str(folder))
    message = str(caught.value)
    assert message.startswith("generator.path: ") and "\n" not in message
    for part in parts:
        assert str(part) in message


@pytest.fixture
def copy(toy_folder, tmp_path):
    return shutil.copytree(toy_folder, tmp_path / "copy")


@pytest.mark.parametrize("part", ["scheduler", "text_encoder", "tokenizer", "unet", "vae"])
def test_folder_that_lacks_a_part(copy, part):
    shutil.rmtree(copy / part)
    assert_refused(copy, copy, f"lacks the part {part}")


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_part_that_lacks_weights(copy, part):
    next((copy / part).glob("*.msgpack")).unlink()
    assert_refused(copy, copy / part, "lacks weights")


def test_folder_that_is_none(tmp_path):
    assert_refused(tmp_path / "nowhere", "there is no folder", tmp_path / "nowhere")
    assert_refused(tmp_path, "lacks model_index.json")


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_unreadable_config(copy, part):
    (copy / part / "config.json").write_text('{"hidden_size": ')
    assert_refused(copy, copy / part / "config.json", "cannot be read")


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "vae/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "unet/diffusion_flax_model.msgpack",
        "text_encoder/flax_model.msgpack",
    ],
)
def test_file_cut_short(copy, file):
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: len(content) // 2])
    assert_refused(copy, copy)


def test_text_width_that_is_not_the_unets(copy):
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 24}))
    assert_refused(copy, "hidden_size 16", "cross_attention_dim 24")


def test_folder_below_the_projects_own(monkeypatch, toy_folder, tmp_path):
    monkeypatch.setattr("dream_jax.generator.folders.REPOSITORY", toy_folder.parent)
    monkeypatch.chdir(tmp_path)
    assert generator_folder("pipeline") == toy_folder
