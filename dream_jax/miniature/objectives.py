"""The losses of a miniature pipeline's parts."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel
from jaxtyping import Array, Float, Int
from transformers import FlaxCLIPTextModel

from dream_jax.data.augment import augment, to_float
from dream_jax.miniature.networks import NOISE
from dream_jax.models.resnet import ResNet
from dream_jax.training.loop import Objective, Term
from dream_jax.vectors import unit

# From images in [0, 1] to the feature maps in which they are compared.
FeatureMaps = Callable[[Float[Array, "n H W C"]], Sequence[Float[Array, "n height width channels"]]]


def to_model_range(images: Float[Array, "n H W C"]) -> Float[Array, "n C H W"]:
    """Maps images in [0, 1] to [-1, 1], channels first, as diffusers' autoencoder reads them."""
    return jnp.transpose(images, (0, 3, 1, 2)) * 2 - 1


def classification_objective(network: ResNet) -> Objective:
    """Returns the cross-entropy of a classifier, whose images are cut and mirrored at random."""

    def objective(params, model_state, batch, keys):
        images = jax.vmap(partial(augment, "crop_flip"))(keys, batch["images"])
        (logits, _), model_state = network.apply(
            {"params": params, **model_state},
            images,
            train=True,
            mask=batch["mask"],
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        right = jnp.argmax(logits, -1) == batch["labels"]
        terms = {"cross_entropy": Term(loss, batch["mask"])}
        return terms | {"accuracy": Term(right, batch["mask"], 0.0)}, model_state

    return objective


def feature_maps(network: ResNet, variables: Mapping[str, Any]) -> FeatureMaps:
    """Returns what gives the outputs of all blocks of a trained classifier."""

    def maps(images):
        _, state = network.apply(
            variables,
            images,
            capture_intermediates=lambda module, _: isinstance(module, network.kind.block),
            mutable=["intermediates"],
        )
        kept = state["intermediates"].values()  # also single layers, which are no mappings
        return [block["__call__"][0] for block in kept if isinstance(block, Mapping)]

    return maps


def perceptual_distance(
    maps: FeatureMaps, images: Float[Array, "n H W C"], others: Float[Array, "n H W C"]
) -> Float[Array, " n"]:
    """Returns how much images differ in the features of a network.

    The squared distance of the features, each scaled to unit length, as a mean over the places of
    an image and over the network's blocks.

    References:
      Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
      2018, equation 1, with all channels' weights 1.
    """

    def distance(first, second):
        difference = unit(first.astype(jnp.float32)) - unit(second.astype(jnp.float32))
        return jnp.mean(jnp.sum(difference**2, -1), (1, 2))

    pairs = zip(maps(images), maps(others), strict=True)
    return jnp.mean(jnp.stack([distance(first, second) for first, second in pairs]), 0)


def autoencoder_objective(
    vae: FlaxAutoencoderKL,
    kl_weight: float,
    maps: FeatureMaps | None = None,
    perceptual_weight: float = 0.0,
) -> Objective:
    """Returns the loss of an autoencoder for each image.

    L1 + 0.5 MSE + kl_weight · KL + perceptual_weight · perceptual distance.

    Args:
      maps: the features of the perceptual distance; without them, there is none.

    References:
      Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014: the KL term in closed form.
    """

    def objective(params, model_state, batch, keys):
        images = to_float(batch["images"])
        pixels = to_model_range(images)
        posterior = vae.apply({"params": params}, pixels, method=vae.encode).latent_dist
        mean, std, logvar = (
            part.astype(jnp.float32) for part in (posterior.mean, posterior.std, posterior.logvar)
        )
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
        latents = mean + std * noise
        decoded = vae.apply({"params": params}, latents, method=vae.decode).sample
        decoded = decoded.astype(jnp.float32)
        difference = decoded - pixels
        kl = 0.5 * jnp.sum(mean**2 + std**2 - 1 - logvar, axis=(1, 2, 3))
        terms = {
            "l1": Term(_image_means(jnp.abs(difference)), batch["mask"]),
            "mse": Term(_image_means(difference**2), batch["mask"], 0.5),
            "kl": Term(kl, batch["mask"], kl_weight),
        }
        if maps is not None:
            made = jnp.transpose(decoded, (0, 2, 3, 1)) / 2 + 0.5
            distance = perceptual_distance(maps, images, made)
            terms["perceptual"] = Term(distance, batch["mask"], perceptual_weight)
        return terms, model_state

    return objective


def diffusion_objective(
    unet: FlaxUNet2DConditionModel,
    text_encoder: FlaxCLIPTextModel,
    caption_ids: Int[np.ndarray, "names captions positions"],
    empty_ids: Int[np.ndarray, " positions"],
    unconditional: float,
) -> Objective:
    """Returns the mean squared error of the velocity, by which text encoder and UNet learn.

    Of an image's latents (as it is, and mirrored) and of its name's captions, one each is drawn.

    Args:
      caption_ids: the prompts of each name.
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

    def choose(key, options):
        if len(options) == 1:
            return options[0]
        return options[jax.random.randint(key, (), 0, len(options))]

    def draw(key, versions, label):
        latents = choose(jax.random.fold_in(key, 0), versions)
        caption = choose(jax.random.fold_in(key, 1), jnp.asarray(caption_ids)[label])
        return *corrupt(key, latents), caption

    def objective(params, model_state, batch, keys):
        drawn = jax.vmap(draw)(keys, batch["latents"], batch["labels"])
        times, noisy, velocity, dropped, captions = drawn
        ids = jnp.where(dropped[:, None], empty_ids[None], captions)
        context = text_encoder(ids, params=params["text_encoder"])[0]
        predicted = unet.apply(
            {"params": params["unet"]}, noisy, times, encoder_hidden_states=context
        ).sample
        error = _image_means((predicted - velocity) ** 2)
        return {"mse": Term(error, batch["mask"])}, model_state

    return objective


def _image_means(values: Float[Array, "n C H W"]) -> Float[Array, " n"]:
    return jnp.mean(values, axis=(1, 2, 3))
