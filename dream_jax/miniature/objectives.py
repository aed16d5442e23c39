"""What the parts of a miniature pipeline are trained for."""

import jax
import jax.numpy as jnp
import numpy as np
from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel
from transformers import FlaxCLIPTextModel

from dream_jax.miniature.networks import NOISE
from dream_jax.training.loop import Objective, Term


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
