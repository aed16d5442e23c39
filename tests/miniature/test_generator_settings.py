"""The configuration of a generator's training is checked as a whole, and refused in one line."""

import json
import subprocess
import sys

import pytest
import toy as toy_module
from ml_collections import ConfigDict
from toy_fixtures import environment

from configs import generator_glyphs, generator_photos, quickstart
from dream_jax.checks import check as check_run
from dream_jax.checks import rule_of
from dream_jax.errors import UserError
from dream_jax.files import read_json
from dream_jax.generator_training import check
from dream_jax.miniature.settings import LATER, TrainingSettings
from dream_jax.settings import as_dict, field_types, with_later

TRAIN_GENERATOR = str(toy_module.REPOSITORY / "launch" / "train_generator.py")


def refusal(config: ConfigDict, check=check) -> str:
    with pytest.raises(UserError) as caught:
        check(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def with_value(field: str, value) -> ConfigDict:
    """The project's configuration with a value of any type in a field."""
    config = generator_glyphs.get_config()
    *parents, last = field.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    with section.unlocked(), section.ignore_type():
        section[last] = value
    return config


def test_the_configuration_of_the_project_passes():
    settings = check(generator_glyphs.get_config())
    assert settings.unet.attention == (False, True)
    assert settings.diffusion.optimizer.weight_decay == 1e-2
    for hint in field_types(TrainingSettings).values():
        assert rule_of(hint).allowed


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("name", "", "a text"),
        ("seed", -1, "at least 0"),
        ("save_every", 0, "at least 1"),
        ("world.image_size", 0, "at least 28 and at most 256"),
        ("world.image_size", 10**6, "at least 28 and at most 256"),
        ("world.image_size", 30, "a multiple of 4, because the 3 levels of config.autoencoder"),
        ("world.image_size", 36, "a multiple of 8, because"),
        ("world.id_prompts", ("a handwritten digit",), "{name} in each and no other braces"),
        ("world.id_prompts", ("a {name}", "a {color} {name}"), "{name} in each and no other"),
        ("world.id_prompts", ("a {name",), "{name} in each and no other braces"),
        ("world.id_prompts", ("a {name!r}",), "{name} in each and no other braces"),
        ("world.id_prompts", (), "a list of texts with {name}"),
        ("world.id_prompts", "a {name}", "a list of texts with {name}"),
        ("world.other_prompts", ("a {{name}}",), "{name} in each and no other braces"),
        ("world.other_prompts", ("the {} {name}",), "{name} in each and no other braces"),
        ("world.other_prompts", 3, "{name} in each and no other braces"),
        ("world.affine_versions", -1, "at least 0 and at most"),
        ("world.channels", 2, "one of 1, 3"),
        ("world.channels", 3, "it must be 1 with config.world.others = 'glyphs'"),
        ("world.id", "", "the name of an ID set"),
        ("world.others", "", "glyphs, earlier or the name of a TFDS set with labels"),
        ("world.others", "earlier", "with an empty config.start_from it must be glyphs or the"),
        ("world.id_words", ("uno",), "a word for each of some class names"),
        ("world.id_words", {"one": " "}, "a word for each of some class names"),
        ("start_from", 3, "the folder of a finished pipeline, or empty"),
        ("start_from", "no/such/folder", "there is no such folder; it must be a pipeline that"),
        ("start_from", "configs", "which lacks training.json; it must be a pipeline that"),
        ("world.mirrored", 1, "True or False"),
        ("precision", "float16", "one of bfloat16, float32"),
        ("perceptual.arch", "vgg", "one of airbench, resnet18"),
        ("perceptual.steps", 0, "at least 1"),
        ("perceptual.optimizer.warmup", 0.9999, "leave a step after the warm-up"),
        ("autoencoder.latent_channels", 0, "at least 1 and at most"),
        ("autoencoder.latent_channels", 8, "another number than the height of the latents"),
        ("autoencoder.perceptual_weight", -1.0, "at least 0"),
        ("autoencoder.channels", (), "for each level"),
        ("autoencoder.channels", 16, "for each level"),
        ("autoencoder.channels", (16, 0), "for each level"),
        ("autoencoder.channels", (16.0,), "for each level"),
        ("autoencoder.channels", (16,) * 7, "a multiple of 64"),
        ("autoencoder.channels", (16, 20, 48), "it must divide each of config.autoencoder.chan"),
        ("autoencoder.layers", -1, "at least 1 and at most"),
        ("autoencoder.norm_groups", 0, "at least 1"),
        ("autoencoder.norm_groups", 32, "it must divide each of config.autoencoder.channels"),
        ("autoencoder.kl_weight", -1e-5, "at least 0"),
        ("autoencoder.kl_weight", float("nan"), "at least 0"),
        ("autoencoder.batch_size", 0, "at least 2 and at most"),
        ("autoencoder.batch_size", 1, "at least 2 and at most"),
        ("autoencoder.steps", 0, "at least 1"),
        ("autoencoder.optimizer.learning_rate", 0.0, "above 0"),
        ("autoencoder.optimizer.warmup", 1.0, "below 1"),
        ("autoencoder.optimizer.warmup", 0.9999, "leave a step after the warm-up"),
        ("autoencoder.optimizer.b2", 1.0, "below 1"),
        ("autoencoder.optimizer", 3, "config.autoencoder.optimizer"),
        ("text_encoder.width", 97, "it must divide config.text_encoder.width = 97"),
        ("text_encoder.heads", 0, "at least 1"),
        ("text_encoder.heads", 5, "it must divide config.text_encoder.width = 96"),
        ("text_encoder.layers", 0, "at least 1 and at most"),
        ("text_encoder.positions", 2, "at least 3 and at most"),
        ("unet.channels", (64, 100), "a multiple of 32"),
        ("unet.channels", (64,), "it must have 1 values"),
        ("unet.attention", (), "for each level"),
        ("unet.attention", (1, 0), "for each level"),
        ("unet.attention", (False, True, True), "it must have 2 values"),
        ("unet.heads", 5, "it must divide 96 of config.unet.channels"),
        ("unet.layers", 0, "at least 1 and at most"),
        ("diffusion.batch_size", 0, "at least 2 and at most"),
        ("diffusion.steps", 0, "at least 1"),
        ("diffusion.unconditional", 1.0, "below 1"),
        ("diffusion.average_decay", 1.5, "at most 1"),
        ("diffusion.optimizer.final_learning_rate", -1.0, "at least 0"),
        ("unet", 3, "config.unet"),
        ("world", "digits", "config.world"),
        ("unet.depth", 3, "config.unet.depth is no setting"),
        ("batch_size", 3, "config.batch_size is no setting"),
    ],
)
def test_a_bad_value_is_named(field, value, allowed):
    message = refusal(with_value(field, value))
    assert allowed in message
    if "is no setting" not in allowed and "config." not in allowed:
        assert f"config.{field} " in message or f"config.{field.split('.')[0]}" in message


def test_affine_maps_need_grey_pictures():
    config = generator_photos.get_config()
    config.world.affine_versions = 2
    assert "config.world.affine_versions = 2, which makes grey pictures" in refusal(config)


@pytest.mark.parametrize("machine", ["accelerator", "cpu"])
def test_the_configuration_for_photographs_passes(machine):
    assert check(generator_photos.get_config(machine)).world.others == "tiny_imagenet32"


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("glyphs", generator_glyphs.get_config()),
        ("photos", generator_photos.get_config()),
        ("photos100", generator_photos.get_config("cifar100")),
    ],
)
def test_the_weights_are_those_of_their_configuration(name, config):
    """What is neutral, as how often a checkpoint is saved, may have been otherwise."""
    folder = toy_module.REPOSITORY / f"dream_jax/miniature/weights/{name}"
    made = with_later(read_json(folder / "training.json"), LATER)
    now = json.loads(json.dumps(as_dict(check(config), TrainingSettings)))
    for tree in (made, now):
        for neutral in ("save_every", "wandb"):
            tree.pop(neutral, None)
    assert made == now


def test_fields_and_sections_that_are_missing():
    for field in ("unet", "seed", "diffusion.steps"):
        config = generator_glyphs.get_config()
        *parents, last = field.split(".")
        del (config[parents[0]] if parents else config)[last]
        assert f"config.{field}" in refusal(config)


def test_a_configuration_of_another_program_is_called_one():
    assert "none of the sections world, perceptual, autoencoder" in refusal(quickstart.get_config())
    message = refusal(generator_glyphs.get_config(), check_run)
    assert "none of the sections data, model" in message and "configs/" in message


def test_middle_attention_is_enough():
    """Flax's UNet attends to the text between the way down and up, whatever its levels do."""
    assert check(with_value("unet.attention", (False, False))).unet.attention == (False, False)


def test_the_program_prints_one_line(tmp_path):
    flags = [f"--workdir={tmp_path / 'run'}", "--config.autoencoder.norm_groups=3"]
    done = subprocess.run(
        [sys.executable, TRAIN_GENERATOR, f"--config={generator_glyphs.__file__}", *flags],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: config.autoencoder.norm_groups is 3; it must divide")
    assert len(done.stderr.splitlines()) == 1 and not done.stdout
    assert not (tmp_path / "run").exists()
