"""Stable Diffusion v1.4's architecture and a tiny one of its kind, with random weights."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import jax
import jax.numpy as jnp
import numpy as np

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PERIOD = 1_000_003  # random numbers that are drawn; the weights of a part repeat them


@dataclass(frozen=True, eq=False)  # by identity: it can be the argument of what is cached
class Architecture:
    """The published configurations of a pipeline's parts."""

    text_encoder: Mapping[str, Any]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]

    @property
    def tokens(self) -> int:
        """Positions of a prompt."""
        return self.text_encoder["max_position_embeddings"]

    @property
    def latents(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image's latents."""
        return self.unet["in_channels"], self.unet["sample_size"], self.unet["sample_size"]


def architecture(
    width: int, layers: int, latents: int, unet: tuple[int, ...], vae: tuple[int, ...], words: int
) -> Architecture:
    """Returns an architecture of Stable Diffusion v1's kind.

    Args:
      width, layers: of the text encoder.
      latents: height and width of the latents, an eighth of the image's with four stages of `vae`.
      unet, vae: channels of the stages, of which there are as many as in the published model.
      words: size of the vocabulary.
    """
    return Architecture(
        {
            "vocab_size": words,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "max_position_embeddings": 77,
            "hidden_act": "quick_gelu",
        },
        {
            "sample_size": latents,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": unet,
            "down_block_types": (*("CrossAttnDownBlock2D",) * (len(unet) - 1), "DownBlock2D"),
            "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * (len(unet) - 1)),
            "layers_per_block": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": width,
        },
        {
            "sample_size": latents * 2 ** (len(vae) - 1),
            "block_out_channels": vae,
            "down_block_types": ("DownEncoderBlock2D",) * len(vae),
            "up_block_types": ("UpDecoderBlock2D",) * len(vae),
            "layers_per_block": 2,
            "latent_channels": 4,
            "norm_num_groups": 32,
            "scaling_factor": 0.18215,
        },
    )


V1_4 = architecture(768, 12, 64, (320, 640, 1280, 1280), (128, 256, 512, 512), 49408)
TINY = architecture(64, 1, 8, (32, 64), (32, 32), 512)


def build(parts: Architecture, dtype: np.dtype) -> tuple[Any, dict[str, Any]]:
    """Returns a FlaxStableDiffusionPipeline and the shapes of each part's parameters."""
    from diffusers import (
        FlaxAutoencoderKL,
        FlaxDDIMScheduler,
        FlaxStableDiffusionPipeline,
        FlaxUNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, FlaxCLIPTextModel

    text = CLIPTextConfig(**parts.text_encoder)
    text_encoder = FlaxCLIPTextModel(text, dtype=dtype, _do_init=False)
    unet = FlaxUNet2DConditionModel(**parts.unet, dtype=dtype)
    vae = FlaxAutoencoderKL(**parts.vae, dtype=dtype)
    shapes = {
        "text_encoder": text_encoder.params_shape_tree,
        "unet": jax.eval_shape(unet.init_weights, jax.random.key(0)),
        "vae": jax.eval_shape(vae.init_weights, jax.random.key(0)),
    }
    pipeline = FlaxStableDiffusionPipeline(
        vae,
        text_encoder,
        None,
        unet,
        FlaxDDIMScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        dtype=dtype,
    )
    return pipeline, shapes


def draw(shapes: Any, dtype: np.dtype, rng: np.random.Generator) -> Any:
    """Returns random weights on the host: those that a product of normalised inputs keeps normal.

    They repeat themselves after `PERIOD` numbers, as drawing 1,066 M takes longer than measuring.
    """
    normal = rng.standard_normal(PERIOD, np.float32)

    def leaf(path: Any, shape: Any) -> np.ndarray:
        if path[-1].key in ("scale", "bias"):
            return np.full(shape.shape, path[-1].key == "scale", dtype)
        spread = np.float32(np.prod(shape.shape[:-1]) ** -0.5)
        return np.resize((normal * spread).astype(dtype), shape.shape)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def generator(parts: Architecture, precision: str) -> Any:
    """Returns the project's `StableDiffusion` of an architecture, with random weights.

    Its tokenizer knows the marks of a prompt's start and end and no words.
    """
    from dream_jax.generator.stable_diffusion import StableDiffusion

    dtype, rng = jnp.dtype(precision), np.random.default_rng(0)
    pipeline, shapes = build(parts, dtype)
    end = parts.text_encoder["vocab_size"] - 1
    pipeline.tokenizer = SimpleNamespace(
        model_max_length=parts.tokens, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end
    )
    params = {name: draw(tree, dtype, rng) for name, tree in shapes.items()}
    embeddings = params["text_encoder"]["text_model"]["embeddings"]
    table = embeddings["token_embedding"]["embedding"].astype(np.float32)
    return StableDiffusion(pipeline, params, table, NOISE)
