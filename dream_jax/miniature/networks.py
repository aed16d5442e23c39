"""Building the parts of a miniature Stable Diffusion, and saving them as a stock Flax pipeline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from diffusers import (
    FlaxAutoencoderKL,
    FlaxDPMSolverMultistepScheduler,
    FlaxStableDiffusionPipeline,
    FlaxUNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTokenizer, FlaxCLIPTextModel

from dream_jax.errors import UserError
from dream_jax.miniature.settings import AutoencoderSettings, TextEncoderSettings, UNetSettings
from dream_jax.training.finite import is_finite

# Stable Diffusion's noise schedule; v-prediction trains a small network faster than noise
# prediction and all of diffusers' Flax schedulers sample from it.
NOISE: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}


def build_autoencoder(
    config: AutoencoderSettings,
    image_size: int,
    image_channels: int = 1,
    scaling: float = 1.0,
    precision: str = "float32",
) -> FlaxAutoencoderKL:
    """Builds the autoencoder of images.

    Args:
      config: with `channels`, one for each level, `latent_channels`, `layers` and `norm_groups`.
      image_size: height and width of the images.
      image_channels: 1 (grey) or 3 (RGB).
      scaling: 1 / standard deviation of the latents.
      precision: of the computation.
    """
    levels = len(config.channels)
    return FlaxAutoencoderKL(
        in_channels=image_channels,
        out_channels=image_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(config.channels),
        layers_per_block=config.layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        sample_size=image_size,
        scaling_factor=scaling,
        dtype=jnp.dtype(precision),
    )


def build_unet(
    config: UNetSettings,
    text_width: int,
    latent_size: int,
    latent_channels: int = 4,
    precision: str = "float32",
) -> FlaxUNet2DConditionModel:
    """Builds the network that denoises latents.

    Args:
      config: with `channels` and `attention`, one of each for each level, `layers` and `heads`.
      text_width: of the text encoder.
      latent_size: height and width of the latents.
      latent_channels: channels of the latents.
      precision: of the computation.
    """
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)]
    return FlaxUNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=tuple(config.channels),
        layers_per_block=config.layers,
        attention_head_dim=config.heads,  # diffusers' name for the number of heads
        cross_attention_dim=text_width,
        dtype=jnp.dtype(precision),
    )


def build_text_encoder(
    config: TextEncoderSettings, tokenizer: CLIPTokenizer, seed: int
) -> FlaxCLIPTextModel:
    """Builds the text encoder for a tokenizer's vocabulary, with random parameters.

    Args:
      config: with `width`, `layers`, `heads` and `positions`.
    """
    return FlaxCLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            projection_dim=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.positions,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        seed=seed,
    )


def initial_parameters(
    network: FlaxAutoencoderKL | FlaxUNet2DConditionModel, key: jax.Array
) -> dict[str, Any]:
    """Returns random parameters of a network."""
    return jax.jit(cast(Any, network).init_weights)(key)  # diffusers adds it where mypy is blind


def save_pipeline(
    folder: Path,
    vae: FlaxAutoencoderKL,
    text_encoder: FlaxCLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: FlaxUNet2DConditionModel,
    params: Mapping[str, Any],
) -> None:
    """Writes the folder of a FlaxStableDiffusionPipeline, in half precision.

    Args:
      params: the parameter trees of "vae", "text_encoder" and "unet".

    Raises:
      UserError: a parameter is not finite in half precision; nothing is written.
    """
    with np.errstate(over="ignore"):
        half = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(half):
        if not is_finite(leaf):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise UserError(
                f"{folder}: {name} is NaN, infinite or above 65504, which half precision cannot "
                f"hold; train with a lower learning rate"
            )
    scheduler = FlaxDPMSolverMultistepScheduler(**NOISE)
    pipeline: Any = FlaxStableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, safety_checker=None, feature_extractor=None
    )
    pipeline.save_pretrained(str(folder), half)
