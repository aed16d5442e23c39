"""Building, training and saving a miniature Stable Diffusion as a stock Flax pipeline folder."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from diffusers import (
    FlaxAutoencoderKL,
    FlaxDPMSolverMultistepScheduler,
    FlaxStableDiffusionPipeline,
    FlaxUNet2DConditionModel,
)
from ml_collections import ConfigDict
from transformers import CLIPTextConfig, CLIPTokenizer, FlaxCLIPTextModel
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from dream_jax.files import write_json, write_whole
from dream_jax.training.loop import Objective, Term

LATENT_CHANNELS = 4
# Stable Diffusion's noise schedule; v-prediction trains a small network faster than noise
# prediction and all of diffusers' Flax schedulers sample from it.
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}


def train_tokenizer(captions: list[str], positions: int, folder: Path) -> CLIPTokenizer:
    """A CLIPTokenizer whose byte-pair merges make one token of every word of the captions.

    Other words still have tokens, of their parts: any text can be a prompt. A tokenizer that is in
    the folder already is used: the training leaves the order of equally frequent pairs to chance,
    and an interrupted training of the generator must go on with the ids that it began with.

    Args:
      captions: the texts of the world.
      positions: length of a tokenised prompt.
      folder: where `vocab.json` and `merges.txt` are written, or found.
    """
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not vocabulary.exists():  # written last
        pairs = _merged_pairs(captions)
        symbols = list(bytes_to_unicode().values())
        tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(p) for p in pairs)]
        tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
        lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
        write_whole(merges, lambda path: path.write_text("\n".join(lines) + "\n"))
        write_json(vocabulary, {token: index for index, token in enumerate(tokens)})
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=positions)


def _merged_pairs(captions: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent first, until every word of the captions is one token."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    words = Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+")
    bpe.pre_tokenizer = pre_tokenizers.Split(words, "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, show_progress=False, end_of_word_suffix="</w>"
    )
    bpe.train_from_iterator(sorted(set(captions)), trainer)
    return [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]


def build_autoencoder(config: ConfigDict, image_size: int, scaling: float = 1.0):
    """FlaxAutoencoderKL for grey images (one channel); `scaling` is 1/std of its latents."""
    levels = len(config.channels)
    return FlaxAutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(config.channels),
        layers_per_block=config.layers,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=config.norm_groups,
        sample_size=image_size,
        scaling_factor=scaling,
    )


def build_unet(config: ConfigDict, text_width: int, latent_size: int):
    """FlaxUNet2DConditionModel with attention at the levels that `config.attention` marks."""
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)]
    return FlaxUNet2DConditionModel(
        sample_size=latent_size,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=tuple(config.channels),
        layers_per_block=config.layers,
        attention_head_dim=config.heads,  # diffusers' name for the number of heads
        cross_attention_dim=text_width,
    )


def build_text_encoder(config: ConfigDict, tokenizer: CLIPTokenizer, seed: int):
    """FlaxCLIPTextModel for the tokenizer's vocabulary."""
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


def to_model_range(images: jax.Array) -> jax.Array:
    """(n, H, W, C) in [0, 1] → (n, C, H, W) in [-1, 1], as diffusers' autoencoder takes them."""
    return jnp.transpose(images, (0, 3, 1, 2)) * 2 - 1


def autoencoder_objective(vae: FlaxAutoencoderKL, kl_weight: float) -> Objective:
    """Reconstruction (L1 + 0.5 MSE) + kl_weight · KL, per image."""

    def objective(params, model_state, batch, keys):
        pixels = to_model_range(batch["images"])
        posterior = vae.apply({"params": params}, pixels, method=vae.encode).latent_dist
        noise = jax.vmap(lambda key: jax.random.normal(key, posterior.mean.shape[1:]))(keys)
        latents = posterior.mean + posterior.std * noise
        decoded = vae.apply({"params": params}, latents, method=vae.decode).sample
        difference = decoded - pixels
        mean = lambda a: jnp.mean(a, axis=(1, 2, 3))  # noqa: E731
        kl = 0.5 * jnp.sum(posterior.mean**2 + posterior.var - 1 - posterior.logvar, axis=(1, 2, 3))
        return {
            "l1": Term(mean(jnp.abs(difference)), batch["mask"]),
            "mse": Term(mean(difference**2), batch["mask"], 0.5),
            "kl": Term(kl, batch["mask"], kl_weight),
        }, model_state

    return objective


def diffusion_objective(
    unet: FlaxUNet2DConditionModel,
    text_encoder: FlaxCLIPTextModel,
    empty_ids: np.ndarray,
    unconditional: float,
) -> Objective:
    """Mean squared error of the predicted velocity; text encoder and UNet learn together.

    Args:
      empty_ids: (positions,) token ids of the empty prompt, which replaces a share
        `unconditional` of the prompts.
    """
    betas = np.linspace(NOISE["beta_start"] ** 0.5, NOISE["beta_end"] ** 0.5, 1000) ** 2
    alphas = jnp.asarray(np.cumprod(1 - betas), jnp.float32)

    def corrupt(key, latents):
        time_key, noise_key, drop_key = jax.random.split(key, 3)
        time = jax.random.randint(time_key, (), 0, len(alphas))
        noise = jax.random.normal(noise_key, latents.shape)
        signal, spread = jnp.sqrt(alphas[time]), jnp.sqrt(1 - alphas[time])
        velocity = signal * noise - spread * latents
        dropped = jax.random.uniform(drop_key) < unconditional
        return time, signal * latents + spread * noise, velocity, dropped

    def objective(params, model_state, batch, keys):
        times, noisy, velocity, dropped = jax.vmap(corrupt)(keys, batch["latents"])
        ids = jnp.where(dropped[:, None], empty_ids[None], batch["ids"])
        context = text_encoder(ids, params=params["text_encoder"])[0]
        predicted = unet.apply(
            {"params": params["unet"]}, noisy, times, encoder_hidden_states=context
        ).sample
        error = jnp.mean((predicted - velocity) ** 2, axis=(1, 2, 3))
        return {"mse": Term(error, batch["mask"])}, model_state

    return objective


def save_pipeline(folder, vae, text_encoder, tokenizer, unet, params: dict) -> None:
    """Writes a FlaxStableDiffusionPipeline folder in half precision.

    Args:
      params: {"vae", "text_encoder", "unet"} parameter trees.
    """
    scheduler = FlaxDPMSolverMultistepScheduler(**NOISE)
    pipeline = FlaxStableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, safety_checker=None, feature_extractor=None
    )
    half = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)
    pipeline.save_pretrained(str(folder), half)
