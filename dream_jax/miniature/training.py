"""Training of the miniature generator, stage by stage, each continued where it was interrupted."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dream_jax.errors import UserError
from dream_jax.keys import stage_key
from dream_jax.miniature import networks as miniature
from dream_jax.miniature.samples import sample_sheet
from dream_jax.miniature.world import build_world, sample_rows
from dream_jax.training import devices, hosts
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.loop import Batches, create_state, fit
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
    size = config.world.image_size
    print(
        f"world: {world.digits} digits, {len(world.images) - world.digits} glyphs, "
        f"{len(set(world.captions))} captions"
    )
    tokenizer = miniature.train_tokenizer(
        world.captions, config.text_encoder.positions, workdir / "tokenizer"
    )
    print(f"tokenizer: {len(tokenizer)} tokens")

    vae = miniature.build_autoencoder(config.autoencoder, size)
    optimizer = adamw(config.autoencoder.optimizer, config.autoencoder.steps)
    key = stage_key(config.seed, "autoencoder")
    state = create_state({"params": jax.jit(vae.init_weights)(key)}, optimizer, key)

    def world_batches(table: dict[str, np.ndarray], size: int) -> Batches:
        total, digits, seed = len(world.images), world.digits, config.seed
        return Batches(table, lambda step: sample_rows(total, digits, size, step, seed))

    with Checkpoints(workdir / "autoencoder") as checkpoints:
        vae_params = fit(
            miniature.autoencoder_objective(vae, config.autoencoder.kl_weight),
            state,
            world_batches({"images": world.images}, config.autoencoder.batch_size),
            optimizer,
            steps=config.autoencoder.steps,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress="autoencoder",
        ).params

    def encode(params, rows):
        pixels = miniature.to_model_range(rows["images"])
        mean = vae.apply({"params": params}, pixels, method=vae.encode).latent_dist.mean
        return jnp.transpose(mean, (0, 3, 1, 2))

    encoded = devices.MappedFunction(encode, vae_params, 256)
    latents = encoded({"images": world.images}, "encoding the world")
    scaling = float(1 / latents.std())
    latents *= scaling
    vae = miniature.build_autoencoder(config.autoencoder, size, scaling)

    text_encoder = miniature.build_text_encoder(config.text_encoder, tokenizer, config.seed)
    unet = miniature.build_unet(config.unet, config.text_encoder.width, latents.shape[-1])
    key = stage_key(config.seed, "diffusion")
    params = {"text_encoder": text_encoder.params, "unet": jax.jit(unet.init_weights)(key)}
    ids = np.asarray(tokenizer(world.captions, padding="max_length", truncation=True).input_ids)
    empty = np.asarray(tokenizer("", padding="max_length").input_ids)
    diffusion = config.diffusion
    optimizer = adamw(diffusion.optimizer, diffusion.steps)

    with Checkpoints(workdir / "diffusion") as checkpoints:
        average = fit(
            miniature.diffusion_objective(unet, text_encoder, empty, diffusion.unconditional),
            create_state({"params": params}, optimizer, key, average=True),
            world_batches({"latents": latents, "ids": ids}, diffusion.batch_size),
            optimizer,
            steps=diffusion.steps,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress="diffusion",
            average_decay=diffusion.average_decay,
        ).average

    folder = workdir / "pipeline"
    partial = workdir / "pipeline.partial"
    shutil.rmtree(partial, ignore_errors=True)
    miniature.save_pipeline(
        partial, vae, text_encoder, tokenizer, unet, {"vae": vae_params, **average}
    )
    (partial / "training.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    sample_sheet(partial, config.world, world.class_names, partial / "samples.png")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder
