"""Training of a miniature generator, part by part, each continued where it was interrupted."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from dream_jax.errors import UserError
from dream_jax.keys import stage_key
from dream_jax.miniature import networks
from dream_jax.miniature.objectives import (
    autoencoder_objective,
    diffusion_objective,
    to_model_range,
)
from dream_jax.miniature.samples import sample_sheet
from dream_jax.miniature.tokenizer import train_tokenizer
from dream_jax.miniature.world import World, build_world, sample_rows
from dream_jax.training import devices, hosts
from dream_jax.training.batches import Batches
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.loop import create_state, fit
from dream_jax.training.optimizers import adamw


def train_generator(config: ConfigDict, workdir: Path) -> Path:
    """Trains autoencoder, text encoder and UNet; returns the pipeline folder.

    Args:
      config: see `configs/generator_glyphs.py`.
      workdir: holds the checkpoints of both trainings, and the folder `pipeline` at the end.

    Raises:
      UserError: a non-finite loss or an unreadable checkpoint, or several processes.
    """
    if hosts.count() > 1:
        raise UserError(f"--processes is {hosts.count()}; the generator is trained by one")
    world = build_world(config.world)
    print(
        f"world: {world.digits} digits, {len(world.images) - world.digits} glyphs, "
        f"{len(set(world.captions))} captions"
    )
    positions = config.text_encoder.positions
    tokenizer = train_tokenizer(world.captions, positions, workdir / "tokenizer")
    print(f"tokenizer: {len(tokenizer)} tokens")
    size = config.world.image_size
    vae_params = _train_autoencoder(config, world, workdir / "autoencoder")
    latents = _encode(config, world, vae_params)
    scaling = float(1 / latents.std())
    latents *= scaling
    text_encoder = networks.build_text_encoder(config.text_encoder, tokenizer, config.seed)
    unet = networks.build_unet(config.unet, config.text_encoder.width, latents.shape[-1])
    parts = (text_encoder, tokenizer, unet)
    average = _train_diffusion(config, world, latents, parts, workdir / "diffusion")

    folder = workdir / "pipeline"
    partial = workdir / "pipeline.partial"
    shutil.rmtree(partial, ignore_errors=True)
    vae = networks.build_autoencoder(config.autoencoder, size, scaling)
    networks.save_pipeline(partial, vae, *parts, {"vae": vae_params, **average})
    (partial / "training.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    sample_sheet(partial, config.world, world.class_names, partial / "samples.png")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _batches(config: ConfigDict, world: World, table: dict[str, np.ndarray], size: int) -> Batches:
    total, digits, seed = len(world.images), world.digits, config.seed
    return Batches(table, lambda step: sample_rows(total, digits, size, step, seed))


def _train_autoencoder(config: ConfigDict, world: World, folder: Path) -> dict:
    """Returns the autoencoder's parameters."""
    settings = config.autoencoder
    vae = networks.build_autoencoder(settings, config.world.image_size)
    optimizer = adamw(settings.optimizer, settings.steps)
    key = stage_key(config.seed, "autoencoder")
    state = create_state({"params": jax.jit(vae.init_weights)(key)}, optimizer, key)
    with Checkpoints(folder) as checkpoints:
        return fit(
            autoencoder_objective(vae, settings.kl_weight),
            state,
            _batches(config, world, {"images": world.images}, settings.batch_size),
            optimizer,
            steps=settings.steps,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress="autoencoder",
        ).params


def _encode(
    config: ConfigDict, world: World, vae_params: dict
) -> Float[np.ndarray, "n channels height width"]:
    """Returns the latents of the world's pictures, in the scale of the autoencoder."""
    vae = networks.build_autoencoder(config.autoencoder, config.world.image_size)

    def encode(params, batch):
        pixels = to_model_range(batch["images"])
        mean = vae.apply({"params": params}, pixels, method=vae.encode).latent_dist.mean
        return jnp.transpose(mean, (0, 3, 1, 2))

    encoded = devices.MappedFunction(encode, vae_params, 256)
    return encoded({"images": world.images}, "encoding the world")


def _train_diffusion(
    config: ConfigDict, world: World, latents: np.ndarray, parts: tuple, folder: Path
) -> dict:
    """Returns the averaged parameters of text encoder and UNet, which learn together."""
    text_encoder, tokenizer, unet = parts
    settings = config.diffusion
    key = stage_key(config.seed, "diffusion")
    params = {"text_encoder": text_encoder.params, "unet": jax.jit(unet.init_weights)(key)}
    ids = np.asarray(tokenizer(world.captions, padding="max_length", truncation=True).input_ids)
    empty = np.asarray(tokenizer("", padding="max_length").input_ids)
    optimizer = adamw(settings.optimizer, settings.steps)
    with Checkpoints(folder) as checkpoints:
        return fit(
            diffusion_objective(unet, text_encoder, empty, settings.unconditional),
            create_state({"params": params}, optimizer, key, average=True),
            _batches(config, world, {"latents": latents, "ids": ids}, settings.batch_size),
            optimizer,
            steps=settings.steps,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress="diffusion",
            average_decay=settings.average_decay,
        ).average
