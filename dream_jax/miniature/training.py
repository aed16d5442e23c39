"""Training of a miniature generator, part by part, each continued where it was interrupted."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel
from jaxtyping import Float, Shaped
from transformers import CLIPTokenizer, FlaxCLIPTextModel

from dream_jax.errors import UserError
from dream_jax.files import write_json
from dream_jax.keys import stage_key
from dream_jax.miniature.networks import (
    build_autoencoder,
    build_text_encoder,
    build_unet,
    initial_parameters,
    save_pipeline,
)
from dream_jax.miniature.objectives import (
    autoencoder_objective,
    diffusion_objective,
    to_model_range,
)
from dream_jax.miniature.samples import sample_sheet
from dream_jax.miniature.settings import AutoencoderSettings, DiffusionSettings, TrainingSettings
from dream_jax.miniature.tokenizer import train_tokenizer
from dream_jax.miniature.world import World, batch_indices, build_world
from dream_jax.settings import as_dict
from dream_jax.training import devices
from dream_jax.training.batches import Batches
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.curves import Curves
from dream_jax.training.loop import create_state, fit
from dream_jax.training.optimizers import adamw, adamw_rate


def train_generator(settings: TrainingSettings, workdir: Path) -> Path:
    """Trains an autoencoder, then a text encoder and a UNet; returns the pipeline's folder.

    Args:
      settings: checked, see `generator_training.check`.
      workdir: holds the checkpoints of both trainings, and the folder `pipeline` at the end.

    Raises:
      UserError: a caption is longer than the text encoder's positions, a loss is not finite, or a
        file cannot be read.
    """
    world = build_world(settings.world)
    print(
        f"world: {world.digits} digits, {len(world.images) - world.digits} glyphs, "
        f"{len(set(world.captions))} captions"
    )
    positions = settings.text_encoder.positions
    tokenizer = train_tokenizer(world.captions, positions, workdir / "tokenizer")
    print(f"tokenizer: {len(tokenizer)} tokens")
    _check_lengths(tokenizer, world.captions, positions)

    size = settings.world.image_size
    vae = build_autoencoder(settings.autoencoder, size)
    vae_params = _train_autoencoder(settings, world, vae, workdir / "autoencoder")
    latents = _encode(world, vae, vae_params)
    scaling = _scaling(latents)
    latents *= scaling
    vae = build_autoencoder(settings.autoencoder, size, scaling)

    text_encoder = build_text_encoder(settings.text_encoder, tokenizer, settings.seed)
    unet = build_unet(settings.unet, settings.text_encoder.width, latents.shape[-1])
    table = {"latents": latents, "ids": _prompt_ids(tokenizer, world.captions)}
    empty = _prompt_ids(tokenizer, [""])[0]
    average = _train_diffusion(
        settings, world, table, text_encoder, unet, empty, workdir / "diffusion"
    )

    partial = workdir / "pipeline.partial"
    shutil.rmtree(partial, ignore_errors=True)
    params = {"vae": vae_params, **average}
    save_pipeline(partial, vae, text_encoder, tokenizer, unet, params)
    write_json(partial / "training.json", as_dict(settings, TrainingSettings))
    sample_sheet(partial, settings.world, world.class_names, partial / "samples.png")
    return _put_in_place(partial, workdir / "pipeline")


def _check_lengths(tokenizer: CLIPTokenizer, captions: list[str], positions: int) -> None:
    """Raises UserError if the text encoder would see only a part of a caption."""
    distinct = sorted(set(captions))
    lengths = [len(ids) for ids in tokenizer(distinct).input_ids]
    if max(lengths) > positions:
        longest = distinct[lengths.index(max(lengths))]
        raise UserError(
            f"config.text_encoder.positions is {positions}; it must be at least {max(lengths)}, "
            f"the tokens of the caption {longest!r} with its start and end"
        )


def _scaling(latents: Float[np.ndarray, "n channels height width"]) -> float:
    """Returns 1 / standard deviation of the latents."""
    deviation = latents.std()
    if not (np.isfinite(deviation) and deviation > 1e-6):
        raise UserError(
            f"autoencoder: its latents have a standard deviation of {deviation:g}, so they tell "
            f"nothing about the pictures; lower config.autoencoder.kl_weight"
        )
    return float(1 / deviation)


def _put_in_place(partial: Path, folder: Path) -> Path:
    """Renames a folder once all of it is on the disk, in place of one that is there."""
    for path in (*sorted(partial.rglob("*")), partial):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    shutil.rmtree(folder, ignore_errors=True)
    return partial.rename(folder)


def _prompt_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Shaped[np.ndarray, "n positions"]:
    return np.asarray(tokenizer(texts, padding="max_length", truncation=True).input_ids)


def _batches(
    config: TrainingSettings, world: World, table: Mapping[str, np.ndarray], batch_size: int
) -> Batches:
    """Returns batches of a table with an entry for each picture of the world."""
    # Numbers instead of the world: what chooses the batches must hold on to no pictures.
    digits, others, seed = world.digits, len(world.images) - world.digits, config.seed
    return Batches(table, lambda step: batch_indices(digits, others, batch_size, step, seed))


def _train_autoencoder(
    config: TrainingSettings, world: World, vae: FlaxAutoencoderKL, folder: Path
) -> dict[str, Any]:
    """Returns the parameters of the autoencoder."""
    settings = config.autoencoder
    optimizer = adamw(settings.optimizer, settings.steps)
    key = stage_key(config.seed, "autoencoder")
    params = initial_parameters(vae, key)
    state = create_state({"params": params}, optimizer, key)
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
            curves=_curves(config, settings, folder),
        ).params


def _curves(
    config: TrainingSettings, part: AutoencoderSettings | DiffusionSettings, folder: Path
) -> Curves:
    """Returns where the metrics of a part go."""
    rate = adamw_rate(part.optimizer, part.steps)
    return Curves(folder, learning_rate=rate, project=config.wandb)


def _encode(
    world: World, vae: FlaxAutoencoderKL, params: Mapping[str, Any]
) -> Float[np.ndarray, "n channels height width"]:
    """Returns the latents of the world's pictures, in the autoencoder's own scale."""

    def encode(params, batch):
        pixels = to_model_range(batch["images"])
        mean = vae.apply({"params": params}, pixels, method=vae.encode).latent_dist.mean
        return jnp.transpose(mean, (0, 3, 1, 2))

    encoded = devices.MappedFunction(encode, params, 256)
    return encoded({"images": world.images}, "encoding the world")


def _train_diffusion(
    config: TrainingSettings,
    world: World,
    table: Mapping[str, np.ndarray],
    text_encoder: FlaxCLIPTextModel,
    unet: FlaxUNet2DConditionModel,
    empty_ids: Shaped[np.ndarray, " positions"],
    folder: Path,
) -> dict[str, Any]:
    """Returns the averaged parameters of text encoder and UNet, which learn together.

    Args:
      table: latents and prompts of the world's pictures.
      empty_ids: the empty prompt.
    """
    settings = config.diffusion
    key = stage_key(config.seed, "diffusion")
    params = {"text_encoder": text_encoder.params, "unet": initial_parameters(unet, key)}
    optimizer = adamw(settings.optimizer, settings.steps)
    with Checkpoints(folder) as checkpoints:
        return fit(
            diffusion_objective(unet, text_encoder, empty_ids, settings.unconditional),
            create_state({"params": params}, optimizer, key, average=True),
            _batches(config, world, table, settings.batch_size),
            optimizer,
            steps=settings.steps,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress="diffusion",
            curves=_curves(config, settings, folder),
            average_decay=settings.average_decay,
        ).average
