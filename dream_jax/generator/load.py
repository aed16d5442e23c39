"""Loading a Stable Diffusion folder as a stock Flax pipeline."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dream_jax.errors import UserError

PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
WEIGHTS = {
    "text_encoder": "flax_model",
    "unet": "diffusion_flax_model",
    "vae": "diffusion_flax_model",
}
SCHEDULERS = ("dpmsolver++", "ddim", "plms")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, eq=False)
class Generator:
    """A loaded pipeline.

    Attributes:
      pipeline: a FlaxStableDiffusionPipeline.
      params: its parameters in float32, in the host's memory, with the scheduler's state.
      table: (vocabulary, width) token-embedding table of the text encoder.
    """

    pipeline: Any
    params: dict
    table: np.ndarray

    @property
    def tokenizer(self):
        return self.pipeline.tokenizer

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the latents."""
        size = self.pipeline.unet.config.sample_size
        return (self.pipeline.unet.config.in_channels, size, size)


def generator_folder(path: str) -> Path:
    """`path` as it is, else below the project's own folder, checked to hold every part.

    Raises:
      UserError: the folder or a part of it is missing, or parts do not fit together.
    """
    folder = next((p for p in (Path(path), REPOSITORY / path) if p.is_dir()), None)
    if folder is None:
        raise UserError(f"generator.path: there is no folder {path!r}; it must hold a pipeline")
    if not (folder / "model_index.json").is_file():
        raise UserError(
            f"generator.path: {folder} lacks model_index.json, so is no pipeline folder"
        )
    for part in PARTS:
        if not (folder / part).is_dir() or not any((folder / part).iterdir()):
            raise UserError(
                f"generator.path: {folder} lacks the part {part}; allowed: a folder with "
                f"{', '.join(PARTS)}"
            )
    for part, stem in WEIGHTS.items():
        if not any((folder / part).glob(f"{stem}*.msgpack*")):
            raise UserError(f"generator.path: {folder / part} lacks Flax weights ({stem}.msgpack)")
    text, unet = (_read_config(folder / part) for part in ("text_encoder", "unet"))
    if text.get("hidden_size") != unet.get("cross_attention_dim"):
        raise UserError(
            f"generator.path: {folder}: the text encoder's hidden_size {text.get('hidden_size')} "
            f"is not the UNet's cross_attention_dim {unet.get('cross_attention_dim')}"
        )
    return folder


def _read_config(part: Path) -> dict:
    path = part / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"generator.path: {path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"generator.path: {path} cannot be read: it holds no JSON object")
    return config


def make_scheduler(name: str, config: dict):
    """One of `SCHEDULERS` with a pipeline's noise schedule: (scheduler, its state)."""
    from diffusers import (
        FlaxDDIMScheduler,
        FlaxDPMSolverMultistepScheduler,
        FlaxPNDMScheduler,
    )

    noise = {
        k: config[k]
        for k in (
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "prediction_type",
        )
        if k in config
    }
    # Latents are not confined to [-1, 1], so they must not be clipped; offset 1 and no Runge-Kutta
    # start are Stable Diffusion's own settings.
    if name == "ddim":
        scheduler = FlaxDDIMScheduler(
            **noise, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        )
    elif name == "plms":
        scheduler = FlaxPNDMScheduler(
            **noise, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
        )
    else:
        scheduler = FlaxDPMSolverMultistepScheduler(**noise)
    return scheduler, scheduler.create_state()


def load_generator(path: str, scheduler: str) -> Generator:
    """Loads a pipeline folder in Flax layout.

    Args:
      path: see `generator_folder`.
      scheduler: one of `SCHEDULERS`, with the folder's noise schedule.

    Raises:
      UserError: the folder is incomplete or a file in it cannot be read.
    """
    from diffusers import FlaxStableDiffusionPipeline

    folder = generator_folder(path)
    try:
        pipeline, params = FlaxStableDiffusionPipeline.from_pretrained(
            str(folder), safety_checker=None, feature_extractor=None
        )
    except Exception as error:  # diffusers and transformers raise many kinds
        reason = str(error).strip().split("\n")[0][:200]
        raise UserError(f"generator.path: {folder} cannot be loaded: {reason}") from error
    pipeline.scheduler, state = make_scheduler(scheduler, dict(pipeline.scheduler.config))
    params = {name: tree for name, tree in params.items() if tree is not None}
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    params["scheduler"] = state
    table = params["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"]
    return Generator(pipeline, params, np.asarray(table))
