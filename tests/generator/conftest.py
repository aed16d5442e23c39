"""One untrained miniature pipeline for all tests of the generator."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from toy_fixtures import once_per_session

POSITIONS = 12


def build_folder(folder, tokenizer, latent_channels):
    """Writes a pipeline folder with random weights: 16×16 grey images, text width 16."""
    from dream_jax.miniature import networks as miniature

    size = {"channels": (8, 8, 8), "layers": 1, "norm_groups": 4}
    size["latent_channels"] = latent_channels
    vae = miniature.build_autoencoder(ConfigDict(size), image_size=16)
    size = {"width": 16, "layers": 1, "heads": 2, "positions": POSITIONS}
    text_encoder = miniature.build_text_encoder(ConfigDict(size), tokenizer, seed=0)
    size = {"channels": (32, 32), "attention": (False, True), "layers": 1, "heads": 2}
    unet = miniature.build_unet(
        ConfigDict(size), text_width=16, latent_size=4, latent_channels=latent_channels
    )
    rng = np.random.default_rng(0)

    def weights(path, shape):
        """Larger than usual, so that the text tells on the images."""
        if path[-1].key == "scale":
            return np.ones(shape.shape, np.float32)
        gain = 5 if any(getattr(p, "key", "") == "attn2" for p in path) else 1.3
        return rng.normal(0, gain * np.prod(shape.shape[:-1]) ** -0.5, shape.shape)

    shapes = {
        "vae": jax.eval_shape(vae.init_weights, jax.random.key(0)),
        "unet": jax.eval_shape(unet.init_weights, jax.random.key(0)),
        "text_encoder": text_encoder.params,
    }
    params = jax.tree_util.tree_map_with_path(weights, shapes)
    embeddings = params["text_encoder"]["text_model"]["embeddings"]
    for name in ("token_embedding", "position_embedding"):
        table = embeddings[name]["embedding"]
        embeddings[name]["embedding"] = rng.normal(0, 0.5, table.shape)
    miniature.save_pipeline(folder, vae, text_encoder, tokenizer, unet, params)
    return folder


@pytest.fixture(scope="session")
def toy_folder(tokenizer, tmp_path_factory):
    make = lambda folder: build_folder(folder / "pipeline", tokenizer, 4)  # noqa: E731
    return once_per_session(tmp_path_factory, "toy_pipeline", make) / "pipeline"


@pytest.fixture(scope="session")
def stock_folder(tokenizer, tmp_path_factory):
    """One that the stock pipeline decodes rightly.

    diffusers takes latents whose width is the number of their channels, such as the 4×4×4 ones of
    the other, for channels-last, whatever they are.
    """
    make = lambda folder: build_folder(folder / "pipeline", tokenizer, 5)  # noqa: E731
    return once_per_session(tmp_path_factory, "stock_pipeline", make) / "pipeline"


@pytest.fixture(scope="session")
def toy(toy_folder):
    from dream_jax.generator.load import load_generator

    return load_generator(str(toy_folder))


@pytest.fixture(scope="session")
def with_table(toy):
    """`with_table(table)`: the pipeline with another token-embedding table."""

    from dream_jax.generator.stable_diffusion import StableDiffusion

    def replace(table: np.ndarray):
        params = jax.tree.map(lambda leaf: leaf, toy.params)
        embeddings = params["text_encoder"]["text_model"]["embeddings"]
        embeddings["token_embedding"]["embedding"] = jax.numpy.asarray(table)
        return StableDiffusion(toy.pipeline, params, table, toy.noise)

    return replace
