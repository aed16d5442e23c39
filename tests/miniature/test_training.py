"""The training of the miniature generator: its files, and that it can be interrupted."""

import numpy as np
import pytest
from slow import takes_a_minute

from configs import generator_glyphs, generator_photos
from dream_jax.errors import UserError
from dream_jax.files import read_json, write_json
from dream_jax.generator.load import load_generator
from dream_jax.generator_training import run
from dream_jax.miniature import training
from dream_jax.miniature.networks import save_pipeline
from dream_jax.miniature.world import World
from dream_jax.training.checkpoints import Checkpoints


def small_config():
    config = generator_glyphs.get_config()
    config.autoencoder.channels = (8, 8, 8)
    config.autoencoder.steps = 2
    config.autoencoder.batch_size = 4
    config.text_encoder.width = 32
    config.text_encoder.layers = 1
    config.unet.channels = (32, 32)
    config.diffusion.steps = 4
    config.diffusion.batch_size = 4
    config.save_every = 2
    return config


def small_world(config, *earlier) -> World:
    shape = (20, 32, 32, config.channels)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    names = ("zero", "one", "black square")
    prompts = (*config.id_prompts[:1] * 2, config.other_prompts[0])
    captions = [(p.format(name=n),) for p, n in zip(prompts, names, strict=True)]
    return World(images, np.int32([0, 1] * 5 + [2] * 10), captions, 10, 2)


@pytest.fixture
def in_small(monkeypatch):
    monkeypatch.setattr(training, "build_world", small_world)


def refusal(config, workdir) -> str:
    with pytest.raises(UserError) as caught:
        run(config, workdir)
    message = str(caught.value)
    assert "\n" not in message
    return message


def written(folder) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@takes_a_minute
def test_photographs_train_in_the_same_way(tmp_path, in_small):
    """With a perceptual loss, mirror images and bfloat16."""
    config = generator_photos.get_config("cpu")
    config.precision = "bfloat16"
    config.autoencoder.channels = (8, 8, 8)
    config.text_encoder.width = 32
    config.unet.update(channels=(32, 32), layers=1)
    config.perceptual.update(width=8, steps=2, batch_size=4)
    config.autoencoder.update(steps=2, batch_size=4)
    config.diffusion.update(steps=2, batch_size=4)
    generator = load_generator(str(run(config, tmp_path)))
    assert generator.latent_shape == (10, 8, 8)
    assert generator.pipeline.vae.config.in_channels == 3
    for part in ("perceptual", "autoencoder", "diffusion"):
        assert (tmp_path / part / "2").is_dir()


@takes_a_minute
def test_interrupted_training_goes_on_and_writes_a_pipeline(tmp_path, in_small, monkeypatch):
    """That a resumed `fit` ends with the same weights is tested where `fit` is."""
    config = small_config()

    def stop_at_the_first_of_diffusion(self, *what):
        save(self, *what)
        if self.folder.name == "diffusion":
            raise KeyboardInterrupt

    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", stop_at_the_first_of_diffusion)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path)
    assert not (tmp_path / "pipeline").exists()
    tokenizer = (tmp_path / "tokenizer" / "merges.txt").read_bytes()
    monkeypatch.setattr(Checkpoints, "save", save)

    # Other settings are refused by name, but for those that leave the result as it is.
    for part, field, value in (
        ("autoencoder", "autoencoder.kl_weight", 1e-3),
        ("autoencoder", "seed", 3),
        ("diffusion", "unet.attention", (True, True)),
        ("diffusion", "text_encoder.width", 64),
    ):
        changed = small_config()
        changed.update_from_flattened_dict({field: value})
        message = refusal(changed, tmp_path)
        assert f"{tmp_path / part}: was trained with {field}=" in message
    config.save_every = 4

    folder = run(config, tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model_index.json", "unet", "vae", "text_encoder", "samples.png"}
    assert (tmp_path / "diffusion" / "4").exists()
    assert (folder / "tokenizer" / "merges.txt").read_bytes() == tokenizer
    assert read_json(folder / "training.json")["unet"]["channels"] == [32, 32]
    generator = load_generator(str(folder))
    assert generator.table.shape[1] == 32
    # Velocity prediction and the scaling of the latents must survive the way through the files.
    assert generator.pipeline.scheduler.config.prediction_type == "v_prediction"
    assert generator.pipeline.vae.config.scaling_factor != 1.0

    # A finished training is left as it is; what is missing of its pipeline is made again.
    before = written(tmp_path)
    assert run(config, tmp_path) == folder and written(tmp_path) == before
    weights = folder / "unet" / "diffusion_flax_model.msgpack"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert run(config, tmp_path) == folder
    assert weights.read_bytes() == content


@takes_a_minute
def test_settings_of_a_part_that_was_not_begun_may_change(tmp_path, in_small, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    for config in (small_config(), small_config()):
        config.diffusion.steps += 2
        monkeypatch.setattr(training, "_encode", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path)
    assert read_json(tmp_path / "config.json")["settings"]["diffusion"]["steps"] == 6


def test_captions_must_fit_the_positions(tmp_path, in_small):
    config = small_config()
    config.text_encoder.positions = 5
    message = refusal(config, tmp_path)
    assert "config.text_encoder.positions is 5; it must be at least 6" in message
    assert "'the symbol black square'" in message
    assert not (tmp_path / "autoencoder").exists()


def test_latents_that_say_nothing_are_refused():
    with pytest.raises(UserError, match=r"standard deviation of 0, .*kl_weight"):
        training._scaling(np.zeros((4, 4, 8, 8), np.float32))
    with pytest.raises(UserError, match="standard deviation of nan"):
        training._scaling(np.full((4, 4, 8, 8), np.nan, np.float32))


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"format": 2, "name": "toy"}, "holds a run of another program"),
        ([], "holds no JSON object"),
        ({"program": "launch/train_generator.py"}, "holds no settings; delete it"),
    ],
)
def test_folders_of_other_runs_are_refused(tmp_path, record, line):
    write_json(tmp_path / "config.json", record)
    assert line in refusal(small_config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("value", [np.nan, 7e4])
def test_parameters_that_half_precision_cannot_hold_are_named(tmp_path, tokenizer, value):
    config = small_config()
    vae = training.build_autoencoder(config.autoencoder, 32)
    text_encoder = training.build_text_encoder(config.text_encoder, tokenizer, 0)
    unet = training.build_unet(config.unet, 32, 8)
    params = {"vae": {}, "text_encoder": {}, "unet": {"conv": {"kernel": np.float32([1, value])}}}
    with pytest.raises(UserError, match=r"unet\.conv\.kernel is NaN, infinite or above 65504"):
        save_pipeline(tmp_path / "pipeline", vae, text_encoder, tokenizer, unet, params)
    assert not (tmp_path / "pipeline").exists()
