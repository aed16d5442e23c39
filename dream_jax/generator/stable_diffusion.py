"""③ Decoding embeddings to images with the parts of the Flax pipeline, on all devices."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dream_jax.errors import UserError
from dream_jax.generator.cpu_attention import cpu_attention
from dream_jax.generator.load import Generator
from dream_jax.training import devices, hosts


def decode(
    generator: Generator,
    ids: np.ndarray,
    embeddings: np.ndarray | None,
    keys: jax.Array,
    *,
    steps: int,
    guidance: float,
    batch_size: int,
    vae_batch_size: int,
    image_shape: tuple[int, int, int] | None = None,
) -> Iterator[np.ndarray]:
    """Images of prompts in which an embedding stands for the class's token (paper, section 3.3).

    Each process decodes what it is given, on its own devices. Each image starts from the noise of
    its own key. A batch is given to the caller when the next one is on the devices, which then work
    while the caller writes.

    Args:
      generator: see `load_generator`.
      ids: (n, positions) token ids; the id `len(table)` marks the embedding's place.
      embeddings: (n, width), or None for prompts without a placeholder.
      keys: (n,) random keys.
      steps: denoising steps.
      guidance: classifier-free guidance scale.
      batch_size: images per batch over the devices of all processes.
      vae_batch_size: images of a batch that the VAE decodes at once, over the same devices.
      image_shape: (H, W, C) to which images are brought, see `resize` and `with_channels`; None
        leaves them as the VAE makes them.

    Yields:
      float32 (rows, H, W, C) in [0, 1], batch by batch in order.

    Raises:
      UserError: the embeddings' width is not the text encoder's.
    """
    width = generator.table.shape[1]
    if embeddings is None:
        embeddings = np.zeros((len(ids), width), np.float32)
    if embeddings.shape[1] != width:
        raise UserError(
            f"generator.path: its token embeddings are {width} wide, the features and their "
            f"outliers {embeddings.shape[1]}; both must come from the same generator"
        )
    decoder = _decoder(generator, steps, guidance, batch_size, vae_batch_size, image_shape)
    keys = np.asarray(jax.random.key_data(keys))
    waiting = None
    for start in range(0, len(ids), decoder.batch_size):
        rows = slice(start, start + decoder.batch_size)
        images = decoder(ids[rows], embeddings[rows], keys[rows])
        if waiting:
            yield devices.unshard(*waiting)
        waiting = images, len(ids[rows])
    if waiting:
        yield devices.unshard(*waiting)


class Decoder:
    """A generator on this process's devices, for batches of one size: text encoder, UNet and VAE.

    What passes between the mapped functions stays on the devices. The unconditional
    branch's text is encoded once, here.
    """

    def __init__(
        self,
        generator: Generator,
        steps: int,
        guidance: float,
        batch_size: int,
        vae_batch_size: int,
        image_shape: tuple[int, int, int] | None,
    ):
        """For the arguments see `decode`; `batch_size` then is that of this process."""
        pipeline = generator.pipeline
        self.batch_size = hosts.share_size(batch_size)
        vae_rows = max(1, vae_batch_size // jax.device_count())

        def mapped(function, **settings):
            return devices.pmap(functools.partial(function, pipeline, **settings))

        self._encode = mapped(encode_prompts)
        self._noise = mapped(draw_noise)
        self._denoise = mapped(denoise, steps=steps, guidance=guidance)
        self._decode_latents = mapped(decode_latents, rows=vae_rows, image_shape=image_shape)
        self._params = devices.replicate(generator.params)
        empty = generator.tokenizer("", padding="max_length").input_ids
        text = {"ids": np.int32([empty]), "embeddings": np.zeros_like(generator.table[:1])}
        # As many rows as a batch has, so that one compiled program encodes both.
        batch = devices.shard(text, rows=self.batch_size)
        states = self._encode(self._params["text_encoder"], batch["ids"], batch["embeddings"])
        self._unconditional = states[:, :1]

    def __call__(self, ids: np.ndarray, embeddings: np.ndarray, keys: np.ndarray) -> jax.Array:
        """Starts a batch of at most `batch_size` rows and does not wait for it.

        Args:
          ids, embeddings: see `decode`.
          keys: (rows, 2) uint32 data of the random keys.

        Returns:
          (devices, rows per device, H, W, C) images in [0, 1], padded (see `devices.shard`).
        """
        batch = {"ids": ids, "embeddings": embeddings, "keys": keys}
        batch = devices.shard(batch, rows=self.batch_size)
        params = self._params
        states = self._encode(params["text_encoder"], batch["ids"], batch["embeddings"])
        latents = self._denoise(
            params["unet"],
            params["scheduler"],
            states,
            self._unconditional,
            self._noise(batch["keys"]),
        )
        return self._decode_latents(params["vae"], latents)


# One at a time: its generator's parameters lie on the devices.
_decoder = functools.lru_cache(maxsize=1)(Decoder)


def release() -> None:
    """Frees the devices' memory of the generator that `decode` used last."""
    _decoder.cache_clear()


def encode_prompts(pipeline: Any, params: dict, ids: jax.Array, embeddings: jax.Array) -> jax.Array:
    """The text encoder's hidden states, with embeddings of one's own at the placeholder.

    Only the lookup in the token table differs from the stock encoder: positions, the transformer
    and everything after stay as they are.

    Args:
      ids: (rows, positions) token ids; an id beyond the table is the placeholder.
      embeddings: (rows, width), each for the placeholders of its row.

    Returns:
      (rows, positions, width).
    """
    encoder = pipeline.text_encoder
    placeholder = ids >= encoder.config.vocab_size

    def look_up(table, args, kwargs, context):
        looked_up = table(*args, **kwargs)
        if (context.module.name, context.method_name) != ("token_embedding", "__call__"):
            return looked_up
        given = embeddings[:, None].astype(looked_up.dtype)
        return jnp.where(placeholder[..., None], given, looked_up)

    with nn.intercept_methods(look_up):
        return encoder(jnp.where(placeholder, 0, ids), params=params)[0]


def draw_noise(pipeline: Any, keys: jax.Array) -> jax.Array:
    """Standard normal latents, each of its own key.

    Args:
      keys: (rows, 2) uint32 data of the random keys, one per image.

    Returns:
      float32 (rows, channels, height, width).
    """
    config = pipeline.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    return jax.vmap(lambda key: jax.random.normal(jax.random.wrap_key_data(key), shape))(keys)


def denoise(
    pipeline: Any,
    params: dict,
    scheduler_state: Any,
    states: jax.Array,
    unconditional: jax.Array,
    noise: jax.Array,
    *,
    steps: int,
    guidance: float,
) -> jax.Array:
    """Latents from noise by classifier-free guidance, at each of the scheduler's timesteps.

    PLMS has one timestep more than `steps`, as its first step is taken twice. PyTorch's pipeline
    and the published code take them all; the stock Flax pipeline leaves out the last.

    Args:
      states: (rows, positions, width) hidden states of the prompts.
      unconditional: (1, positions, width), those of the empty prompt.
      noise: float32 (rows, channels, height, width), see `draw_noise`.

    Returns:
      float32 (rows, channels, height, width), in the UNet's scale.
    """
    scheduler, unet = pipeline.scheduler, pipeline.unet
    context = jnp.concatenate([jnp.broadcast_to(unconditional, states.shape), states])
    scheduler_state = scheduler.set_timesteps(
        scheduler_state, num_inference_steps=steps, shape=noise.shape
    )

    def step(index, carry):
        latents, state = carry
        timestep = state.timesteps.astype(jnp.int32)[index]
        both = scheduler.scale_model_input(state, jnp.concatenate([latents] * 2), timestep)
        with cpu_attention():
            output = unet.apply(
                {"params": params},
                both,
                jnp.broadcast_to(timestep, len(both)),
                encoder_hidden_states=context,
            ).sample
        without, with_text = jnp.split(output.astype(jnp.float32), 2)
        guided = without + guidance * (with_text - without)
        return scheduler.step(state, guided, timestep, latents).to_tuple()

    start = noise * scheduler_state.init_noise_sigma
    return jax.lax.fori_loop(0, len(scheduler_state.timesteps), step, (start, scheduler_state))[0]


def decode_latents(
    pipeline: Any,
    params: dict,
    latents: jax.Array,
    *,
    rows: int,
    image_shape: tuple[int, int, int] | None,
) -> jax.Array:
    """Images of latents in the UNet's scale, `rows` at a time: at full size the VAE needs the most
    memory per image of all parts.

    Args:
      latents: (n, channels, height, width).
      image_shape: see `decode`.

    Returns:
      (n, H, W, C) in [0, 1].
    """
    count = len(latents)
    rows = min(rows, count)

    def images(chunk):
        pixels = _vae_decode(pipeline.vae, params, 1 / pipeline.vae.config.scaling_factor * chunk)
        if image_shape is None:
            return pixels
        return with_channels(resize(pixels, image_shape[:2]), image_shape[2])

    padded = jnp.pad(latents, ((0, -count % rows), (0, 0), (0, 0), (0, 0)))
    chunks = jax.lax.map(images, padded.reshape(-1, rows, *latents.shape[1:]))
    return chunks.reshape(-1, *chunks.shape[2:])[:count]


def _vae_decode(vae: Any, params: dict, latents: jax.Array) -> jax.Array:
    """(n, channels, height, width) latents in the VAE's scale → float32 (n, H, W, C) in [0, 1]."""
    pixels = vae.apply({"params": params}, latents, method=vae.decode).sample.astype(jnp.float32)
    return jnp.transpose((pixels / 2 + 0.5).clip(0, 1), (0, 2, 3, 1))


def round_trip(
    generator: Generator, images: Any, batch_size: int, progress: str
) -> Iterator[np.ndarray]:
    """Images through the autoencoder and back: (n, H, W, C) in [0, 1] → uint8 batches of them.

    Of several processes each yields the batches of its share (`hosts.share_of`).

    Where the generator's pictures have another size they are resized for it (bilinear) and back,
    and grey images repeat their channel for an autoencoder of RGB pictures.
    """
    vae = generator.pipeline.vae
    size = generator.latent_shape[1] * generator.pipeline.vae_scale_factor
    shape = images.shape[1:]

    def forward(params, batch):
        pixels = resize(with_channels(batch["images"], vae.config.in_channels), (size, size))
        pixels = jnp.transpose(pixels, (0, 3, 1, 2)) * 2 - 1
        moments = vae.apply({"params": params}, pixels, method=vae.encode).latent_dist
        decoded = _vae_decode(vae, params, jnp.transpose(moments.mean, (0, 3, 1, 2)))
        images = with_channels(resize(decoded, shape[:2]), shape[-1])
        return jnp.round(images * 255).astype(jnp.uint8)

    run = devices.MappedFunction(forward, generator.params["vae"], batch_size)
    yield from run.batches({"images": images}, progress)


def resize(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear resizing of (n, H, W, C) images to `size`; nothing where they have it already."""
    if images.shape[1:3] == tuple(size):
        return images
    return jax.image.resize(images, (len(images), *size, images.shape[-1]), "bilinear")


def with_channels(images: jax.Array, channels: int) -> jax.Array:
    """Grey images (n, H, W, 1) to RGB by repetition, RGB to grey by the mean."""
    if images.shape[-1] == channels:
        return images
    return jnp.repeat(images.mean(-1, keepdims=True), channels, axis=-1)
