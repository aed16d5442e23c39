"""The training of the miniature generator: its files, and that it can be interrupted."""

import numpy as np
import pytest

from configs import generator_glyphs
from dream_jax.errors import UserError
from dream_jax.generator.load import load_generator
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


def small_world(config) -> World:
    images = np.random.default_rng(0).random((20, 32, 32, 1)).astype(np.float32)
    names = ("zero", "one")
    digits = [config.digit_prompt.format(name=names[i % 2]) for i in range(10)]
    glyphs = [config.glyph_prompt.format(name="black square")] * 10
    return World(images, digits + glyphs, 10, names)


def test_interrupted_training_goes_on_and_writes_a_pipeline(tmp_path, monkeypatch):
    """That a resumed `fit` ends with the same weights is tested where `fit` is."""
    monkeypatch.setattr(training, "build_world", small_world)
    config = small_config()

    def stop_at_the_first_of_diffusion(self, step, state):
        save(self, step, state)
        if self.folder.name == "diffusion":
            raise KeyboardInterrupt

    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", stop_at_the_first_of_diffusion)
    with pytest.raises(KeyboardInterrupt):
        training.train_generator(config, tmp_path)
    assert not (tmp_path / "pipeline").exists()
    tokenizer = (tmp_path / "tokenizer" / "merges.txt").read_bytes()

    monkeypatch.setattr(Checkpoints, "save", save)
    folder = training.train_generator(config, tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model_index.json", "unet", "vae", "text_encoder", "samples.png"}
    assert (tmp_path / "diffusion" / "4").exists()
    assert (folder / "tokenizer" / "merges.txt").read_bytes() == tokenizer
    generator = load_generator(str(folder))
    assert generator.table.shape[1] == 32
    # Velocity prediction and the scaling of the latents must survive the way through the files.
    assert generator.pipeline.scheduler.config.prediction_type == "v_prediction"
    assert generator.pipeline.vae.config.scaling_factor != 1.0


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
