"""③ Decoding embeddings to images with the stock Flax pipeline, on all devices."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.errors import UserError
from dream_jax.generator.load import Generator
from dream_jax.training import devices


def decode(
    generator: Generator,
    ids: np.ndarray,
    embeddings: np.ndarray | None,
    keys: jax.Array,
    *,
    steps: int,
    guidance: float,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Images of prompts in which an embedding stands for the class's token (paper, section 3.3).

    The pipeline stays as it is: a batch's embeddings are appended to the token table as extra
    rows, at which the prompts' ids point. Each image starts from the noise of its own key.

    Args:
      generator: see `load_generator`.
      ids: (n, positions) token ids; the id `len(table)` marks the embedding's place.
      embeddings: (n, width), or None for prompts without a placeholder.
      keys: (n,) random keys.
      steps: denoising steps.
      guidance: classifier-free guidance scale.
      batch_size: images per batch over all devices.

    Yields:
      float32 (rows, H, W, C) in [0, 1], batch by batch in order.

    Raises:
      UserError: the embeddings' width is not the text encoder's.
    """
    vocabulary, width = generator.table.shape
    if embeddings is None:
        embeddings = np.zeros((len(ids), width), np.float32)
    if embeddings.shape[1] != width:
        raise UserError(
            f"generator.path: its token embeddings are {width} wide, the features and their "
            f"outliers {embeddings.shape[1]}; both must come from the same generator"
        )
    count = jax.local_device_count()
    per_device = -(-batch_size // count)
    pipeline = _with_extra_tokens(generator, per_device)
    base = devices.replicate(generator.params)
    tokenizer = generator.tokenizer
    empty = np.asarray(tokenizer("", padding="max_length").input_ids, np.int32)
    empty = np.broadcast_to(empty, (count, per_device, len(empty)))
    draw = jax.jit(jax.vmap(lambda key: jax.random.normal(key, generator.latent_shape)))
    for start in range(0, len(ids), batch_size):
        rows = slice(start, start + batch_size)
        batch = devices.shard(
            {"ids": ids[rows], "embeddings": embeddings[rows]}, rows=per_device * count
        )
        # Image j of a device finds its embedding in the table's row vocabulary + j.
        slots = np.arange(per_device, dtype=np.int32)[None, :, None]
        token_ids = np.where(batch["ids"] == vocabulary, vocabulary + slots, batch["ids"])
        noise = devices.shard({"latents": np.asarray(draw(keys[rows]))}, rows=per_device * count)
        images = pipeline(
            token_ids,
            _append_rows(base, batch["embeddings"]),
            jax.random.split(jax.random.key(0), count),  # unused: the latents are given
            num_inference_steps=steps,
            guidance_scale=float(guidance),
            latents=jnp.asarray(noise["latents"]),
            neg_prompt_ids=jnp.asarray(empty),
            jit=True,
        ).images
        yield devices.unshard(images, min(batch_size, len(ids) - start))


@functools.lru_cache(maxsize=4)  # the compiled program belongs to the pipeline object
def _with_extra_tokens(generator: Generator, rows: int):
    """The pipeline with a text encoder whose vocabulary has `rows` more tokens."""
    from diffusers import FlaxStableDiffusionPipeline
    from transformers import CLIPTextConfig, FlaxCLIPTextModel

    stock = generator.pipeline
    config = CLIPTextConfig.from_dict(
        stock.text_encoder.config.to_dict() | {"vocab_size": len(generator.table) + rows}
    )
    return FlaxStableDiffusionPipeline(
        vae=stock.vae,
        text_encoder=FlaxCLIPTextModel(config, _do_init=False),
        tokenizer=stock.tokenizer,
        unet=stock.unet,
        scheduler=stock.scheduler,
        safety_checker=None,
        feature_extractor=None,
    )


_concatenate = jax.pmap(lambda table, rows: jnp.concatenate([table, rows]), axis_name=devices.AXIS)


def _append_rows(params: dict, rows: np.ndarray) -> dict:
    """Replicated parameters with each device's rows (devices, n, width) below its token table."""
    text = params["text_encoder"]["text_model"]
    table = text["embeddings"]["token_embedding"]["embedding"]
    embeddings = text["embeddings"] | {"token_embedding": {"embedding": _concatenate(table, rows)}}
    return params | {"text_encoder": {"text_model": text | {"embeddings": embeddings}}}


def round_trip(generator: Generator, images: np.ndarray, batch_size: int, progress: str):
    """Images through the autoencoder and back: (n, H, W, C) in [0, 1] → the same.

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
        latents = jnp.transpose(moments.mean, (0, 3, 1, 2))
        decoded = vae.apply({"params": params}, latents, method=vae.decode).sample
        decoded = jnp.transpose((decoded / 2 + 0.5).clip(0, 1), (0, 2, 3, 1))
        return with_channels(resize(decoded, shape[:2]), shape[-1])

    run = devices.MappedFunction(forward, generator.params["vae"], batch_size)
    return run({"images": images}, progress)


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
