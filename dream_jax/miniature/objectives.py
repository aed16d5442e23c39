"""The losses of a miniature pipeline's parts."""

import jax
import jax.numpy as jnp
import numpy as np
from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel
from jaxtyping import Array, Float, Int
from transformers import FlaxCLIPTextModel

from dream_jax.miniature.networks import NOISE
from dream_jax.training.loop import Objective, Term


def to_model_range(images: Float[Array, "n H W C"]) -> Float[Array, "n C H W"]:
    """Maps images in [0, 1] to [-1, 1], channels first, as diffusers' autoencoder reads them."""
    return jnp.transpose(images, (0, 3, 1, 2)) * 2 - 1


def autoencoder_objective(vae: FlaxAutoencoderKL, kl_weight: float) -> Objective:
    """Returns the loss of an autoencoder: L1 + 0.5 MSE + kl_weight · KL, for each image.

    References:
      Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014: the KL term in closed form.
    """

    def objective(params, model_state, batch, keys):
        pixels = to_model_range(batch["images"])
        posterior = vae.apply({"params": params}, pixels, method=vae.encode).latent_dist
        noise = jax.vmap(lambda key: jax.random.normal(key, posterior.mean.shape[1:]))(keys)
        latents = posterior.mean + posterior.std * noise
        decoded = vae.apply({"params": params}, latents, method=vae.decode).sample
        difference = decoded - pixels
        kl = 0.5 * jnp.sum(posterior.mean**2 + posterior.var - 1 - posterior.logvar, axis=(1, 2, 3))
        return {
            "l1": Term(_image_means(jnp.abs(difference)), batch["mask"]),
            "mse": Term(_image_means(difference**2), batch["mask"], 0.5),
            "kl": Term(kl, batch["mask"], kl_weight),
        }, model_state

    return objective


def diffusion_objective(
    unet: FlaxUNet2DConditionModel,
    text_encoder: FlaxCLIPTextModel,
    empty_ids: Int[np.ndarray, " positions"],
    unconditional: float,
) -> Objective:
    """Returns the mean squared error of the velocity, by which text encoder and UNet learn.

    Args:
      empty_ids: the empty prompt.
      unconditional: share of the prompts that it replaces, for classifier-free guidance.

    References:
      Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022,
      section 4 and appendix D: the velocity v = α ε - σ x.
    """
    timesteps = NOISE["num_train_timesteps"]
    betas = np.linspace(NOISE["beta_start"] ** 0.5, NOISE["beta_end"] ** 0.5, timesteps) ** 2
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
        error = _image_means((predicted - velocity) ** 2)
        return {"mse": Term(error, batch["mask"])}, model_state

    return objective


def _image_means(values: Float[Array, "n C H W"]) -> Float[Array, " n"]:
    return jnp.mean(values, axis=(1, 2, 3))
