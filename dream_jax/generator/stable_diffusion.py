"""Stable Diffusion as a stock Flax pipeline that decodes embeddings, on all devices."""

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from dream_jax.data.images import Images
from dream_jax.errors import UserError
from dream_jax.generator.attention import AUTO, float32_softmax
from dream_jax.generator.denoising import denoise
from dream_jax.generator.interface import Sampling
from dream_jax.generator.resizing import antialiased, resize
from dream_jax.generator.schedulers import make_scheduler
from dream_jax.generator.vocabulary import TokenTable
from dream_jax.programs import shared
from dream_jax.training import batch_sizes, devices, finite
from dream_jax.vectors import unit

# A picture's key is that of its latents; with this number it gives one for the noise on its text.
_TEXT_NOISE = 2


class StableDiffusion(TokenTable):
    """A `Generator`: a stock Flax pipeline on all devices.

    Args:
      pipeline: a FlaxStableDiffusionPipeline.
      params: its parameters in the precision that it computes in, in the host's memory.
      table: (vocabulary, width) token embeddings of its text encoder, float32.
      noise: the configuration of its scheduler, for the noise schedule.

    Attributes:
      attention: form of the UNet's, see `attention_form`.
    """

    attention = AUTO

    def __init__(
        self,
        pipeline: Any,
        params: Mapping[str, Any],
        table: Float[np.ndarray, "vocabulary width"],
        noise: Mapping[str, Any],
    ):
        super().__init__(pipeline.tokenizer, table)
        self.pipeline, self.params, self.noise = pipeline, params, noise
        self._decoder: tuple[Any, Decoder] | None = None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the latents."""
        config = self.pipeline.unet.config
        return config.in_channels, config.sample_size, config.sample_size

    def decode(
        self,
        ids: Int[np.ndarray, "n positions"],
        embeddings: Float[np.ndarray, "n width"] | None,
        keys: jax.Array,
        sampling: Sampling,
        image_shape: tuple[int, int, int] | None = None,
    ) -> Iterator[Float[np.ndarray, "batch H W C"]]:
        """Yields images of prompts with embeddings of one's own (paper, section 3.3).

        See `Generator.decode`. Each process decodes what it is given, on its own devices. Each
        image starts from the noise of its own key. A batch is yielded when the next one is on the
        devices, which then work while the caller writes.

        Raises:
          UserError: the embeddings' width is not the text encoder's.
          NotFinite: see `Generator.decode`.
        """
        width = self.table.shape[1]
        if embeddings is None:
            embeddings = np.zeros((len(ids), width), np.float32)
        if embeddings.shape[1] != width:
            raise UserError(
                f"generator.path: its token embeddings are {width} wide, the features and their "
                f"outliers {embeddings.shape[1]}; both must come from the same generator"
            )
        decoder, done = self._prepared(sampling, image_shape), 0
        columns = ids, embeddings, np.asarray(jax.random.key_data(keys))
        while done < len(ids):
            decoder.fit(len(ids) - done)
            with batch_sizes.shrinking(*decoder.sizes):
                for images in self._batches(decoder, columns, done):
                    done += len(images)
                    yield images

    def _batches(
        self, decoder: "Decoder", columns: tuple[np.ndarray, ...], first: int
    ) -> Iterator[Float[np.ndarray, "batch H W C"]]:
        """Yields the images from a first one on, batch by batch; `columns` as a decoder has them.

        Where a batch cannot be begun, the one before it is yielded before that is raised.
        """
        waiting = None
        for start in range(first, len(columns[0]), decoder.batch_size):
            chosen = [column[start : start + decoder.batch_size] for column in columns]
            try:
                made = decoder(*chosen)
            except jax.errors.JaxRuntimeError:
                if waiting:
                    yield self._images(*waiting)
                raise
            if waiting:
                yield self._images(*waiting)
            waiting = made, start, len(chosen[0])
        if waiting:
            yield self._images(*waiting)

    def _images(
        self, made: tuple[jax.Array, jax.Array], start: int, count: int
    ) -> Float[np.ndarray, "batch H W C"]:
        """Returns the images of a batch that starts at `start`, or raises `NotFinite`."""
        images, right = (devices.unshard(array, count) for array in made)
        if (row := finite.first_fault(right)) is not None:
            raise finite.NotFinite(start + row, self.origin.fault("latents or pixels"))
        return images

    @property
    def origin(self) -> finite.Origin:
        """What messages say of the pipeline."""
        precision = jnp.dtype(self.pipeline.dtype).name
        return finite.Origin("the generator", "generator.precision", precision)

    def _prepared(self, sampling: Sampling, image_shape: tuple[int, int, int] | None) -> "Decoder":
        """Returns the programs for some settings; those of the last call are kept."""
        settings = (sampling, image_shape)
        if self._decoder is None or self._decoder[0] != settings:
            self._decoder = None  # frees the devices before the next one needs them
            self._decoder = settings, Decoder(self, sampling, image_shape)
        return self._decoder[1]

    def release(self) -> None:
        """See `Generator.release`."""
        self._decoder = None

    def round_trip(
        self, images: Images, batch_size: int, progress: str | None, done: int = 0
    ) -> Iterator[UInt8[np.ndarray, "batch H W C"]]:
        """Yields images after the autoencoder and back; each process its share (`share_of`).

        Where the generator's pictures have another size, images are resized for it (bilinear) and
        back, and grey images repeat their channel for an autoencoder of RGB pictures.
        """
        vae = self.pipeline.vae
        size = self.latent_shape[1] * self.pipeline.vae_scale_factor
        shape = images.shape[1:]

        def forward(params, batch):
            pixels = fit_channels(batch["images"], vae.config.in_channels)
            pixels = jnp.transpose(fit_size(pixels, (size, size)), (0, 3, 1, 2)) * 2 - 1
            with float32_softmax():
                moments = vae.apply({"params": params}, pixels, method=vae.encode).latent_dist
            return _vae_decode(vae, params, moments.mean)

        def to_bytes(decoded):
            made = fit_channels(fit_size(decoded.clip(0, 1), shape[:2]), shape[-1])
            return jnp.round(made * 255).astype(jnp.uint8)

        program = devices.Checked(forward, to_bytes)
        own = (self.origin, "decoding.vae_batch_size")
        run = devices.MappedFunction(program, self.params["vae"], batch_size, *own)
        yield from run.batches({"images": images}, progress, done)


class Decoder:
    """The programs of text encoder, UNet and VAE, on this process's devices.

    What passes between them stays on the devices. The unconditional branch's text is encoded once.

    Attributes:
      sizes: images at once, and images that the VAE decodes at once; found where they are not set.
    """

    def __init__(
        self,
        generator: StableDiffusion,
        sampling: Sampling,
        image_shape: tuple[int, int, int] | None,
    ):
        networks = Networks(generator.pipeline)
        scheduler = _scheduler(sampling.scheduler, generator.noise)

        def mapped(function, **settings):
            return _mapped(function, networks, settings)

        self._encode = mapped(encode_prompts)
        self._noise = mapped(draw_noise)
        self._disturb = (
            mapped(add_text_noise, scale=sampling.text_noise) if sampling.text_noise else None
        )
        self._denoise = mapped(
            denoise,
            scheduler=scheduler,
            steps=sampling.steps,
            guidance=sampling.guidance,
            attention=generator.attention,
            cache=sampling.cache,
        )
        own = {"image_shape": image_shape, "how": sampling.resize}
        self._vae_of = lambda each: mapped(decode_latents, at_once=each, **own)
        held = {**generator.params, "scheduler": scheduler.create_state()}
        self._params = devices.replicate(held)
        empty = generator.prompt_ids(())[None]
        self._empty = {"ids": empty, "embeddings": np.zeros_like(generator.table[:1])}
        self.sizes = (
            batch_sizes.BatchSize(sampling.batch_size, "decoding.batch_size"),
            batch_sizes.BatchSize(sampling.vae_batch_size, "decoding.vae_batch_size"),
        )
        self.batch_size = 0

    def fit(self, count: int) -> None:
        """Prepares the programs for batches of some of `count` images, before the first of them.

        The UNet tells how many images there are at once; the rest needs less for each, but for the
        VAE, which decodes them in parts.
        """
        size, vae_size = self.sizes
        size.fit(count, self._unet_needs)
        vae_size.fit(size.rows, self._vae_needs)
        at_once = max(1, vae_size.rows // jax.local_device_count())
        self._decode_latents = self._vae_of(at_once)
        if size.rows != self.batch_size:
            self.batch_size = size.rows
            # Padded to the size of a batch, so that one compiled program encodes both.
            batch = devices.shard(self._empty, rows=self.batch_size)
            params = self._params["text_encoder"]
            states = self._encode(params, batch["ids"], batch["embeddings"])
            self._unconditional = states[:, :1]

    def _shapes(self, each: int) -> tuple[Any, ...]:
        """Returns the shapes (devices, ...) of states, unconditional, noise and keys."""
        count, text = jax.local_device_count(), devices.shapes(devices.shard(self._empty), each)
        params = self._params["text_encoder"]
        states = jax.eval_shape(self._encode, params, text["ids"], text["embeddings"])
        one = jax.ShapeDtypeStruct((count, 1, *states.shape[2:]), states.dtype)
        keys = jax.ShapeDtypeStruct((count, each, 2), np.uint32)
        return states, one, jax.eval_shape(self._noise, keys), keys

    def _unet_needs(self, each: int) -> float:
        held = self._params["unet"], self._params["scheduler"]
        return batch_sizes.needed(self._denoise, held, self._shapes(each))

    def _vae_needs(self, each: int) -> float:
        latents = self._shapes(self.sizes[0].rows // jax.local_device_count())[2:]
        return batch_sizes.needed(self._vae_of(each), (self._params["vae"],), latents)

    def __call__(
        self,
        ids: Int[np.ndarray, "n positions"],
        embeddings: Float[np.ndarray, "n width"],
        keys: UInt32[np.ndarray, "n 2"],
    ) -> tuple[Float[Array, "devices per_device H W C"], Bool[Array, "devices per_device"]]:
        """Starts a batch of at most `batch_size` images and does not wait for it.

        Args:
          ids, embeddings: see `Generator.decode`.
          keys: data of the random keys.

        Returns:
          Images in [0, 1] and whether each is finite, padded (see `devices.shard`).
        """
        batch = {"ids": ids, "embeddings": embeddings, "keys": keys}
        # Put there once, and nothing more moves between the host and the devices.
        batch = devices.put(devices.shard(batch, rows=self.batch_size))
        params = self._params
        states = self._encode(params["text_encoder"], batch["ids"], batch["embeddings"])
        if self._disturb is not None:
            states = self._disturb(states, batch["keys"])
        latents = self._denoise(
            params["unet"],
            params["scheduler"],
            states,
            self._unconditional,
            self._noise(batch["keys"]),
            batch["keys"],
        )
        return self._decode_latents(params["vae"], latents, batch["keys"])


class Networks:
    """The networks of a pipeline; equal to those of another if they are the same objects.

    Attributes:
      text_encoder, unet, vae: as in a FlaxStableDiffusionPipeline.
    """

    def __init__(self, pipeline: Any):
        self.text_encoder, self.unet, self.vae = self._parts = (
            pipeline.text_encoder,
            pipeline.unet,
            pipeline.vae,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and all(map(operator.is_, self._parts, other._parts))

    def __hash__(self) -> int:
        return hash(tuple(map(id, self._parts)))


@shared
def _mapped(function: Callable, networks: Networks, settings: Mapping[str, Any]) -> Callable:
    """Returns a function of networks and parameters as a program of the devices."""
    return devices.pmap(functools.partial(function, networks, **settings))


@shared
def _scheduler(name: str, noise: Mapping[str, Any]) -> Any:
    """Returns a scheduler; see `make_scheduler`."""
    return make_scheduler(name, noise)[0]


def encode_prompts(
    pipeline: Any,
    params: Mapping[str, Any],
    ids: Int[Array, "n positions"],
    embeddings: Float[Array, "n width"],
) -> Float[Array, "n positions width"]:
    """Returns the text encoder's hidden states, with embeddings of one's own at the placeholder.

    Only the lookup in the token table differs from the stock encoder: positions, the transformer
    and everything after stay as they are.

    Args:
      pipeline: what has the `Networks`.
      params: of the text encoder.
      ids: prompts; an id beyond the table is the placeholder.
      embeddings: one for each prompt, for all its placeholders.
    """
    encoder = pipeline.text_encoder
    placeholder = ids >= encoder.config.vocab_size

    def look_up(table, args, kwargs, context):
        looked_up = table(*args, **kwargs)
        if (context.module.name, context.method_name) != ("token_embedding", "__call__"):
            return looked_up
        given = embeddings[:, None].astype(looked_up.dtype)
        return jnp.where(placeholder[..., None], given, looked_up)

    with float32_softmax(), nn.intercept_methods(look_up):
        return encoder(jnp.where(placeholder, 0, ids), params=params)[0]


def add_text_noise(
    pipeline: Any,
    states: Float[Array, "n positions width"],
    keys: UInt32[Array, "n 2"],
    *,
    scale: float,
) -> Float[Array, "n positions width"]:
    """Returns hidden states with noise: at each position the formula of the sampler's candidates.

    With h / |h| in a unit feature's place, (h / |h| + s n) is scaled back to the length |h|. So the
    share of the noise is that of the sampler's, but it comes after the text encoder.

    Args:
      states: hidden states of the prompts.
      keys: data of the random keys, one for each image.
      scale: s, the standard deviation of n in each dimension.
    """

    def draw(key: UInt32[Array, "2"]) -> Float[Array, "positions width"]:
        own = jax.random.fold_in(jax.random.wrap_key_data(key), _TEXT_NOISE)
        return jax.random.normal(own, states.shape[1:])

    values = states.astype(jnp.float32)
    length = jnp.linalg.norm(values, axis=-1, keepdims=True)
    return (length * unit(unit(values) + scale * jax.vmap(draw)(keys))).astype(states.dtype)


def draw_noise(
    pipeline: Any, keys: UInt32[Array, "n 2"]
) -> Float[Array, "n channels height width"]:
    """Returns standard normal latents, float32, each drawn from its own key.

    Args:
      keys: data of the random keys, one for each image.
    """
    config = pipeline.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    return jax.vmap(lambda key: jax.random.normal(jax.random.wrap_key_data(key), shape))(keys)


def decode_latents(
    pipeline: Any,
    params: Mapping[str, Any],
    latents: Float[Array, "n channels height width"],
    keys: UInt32[Array, "n 2"],
    *,
    at_once: int,
    image_shape: tuple[int, int, int] | None,
    how: str = "antialiased",
) -> tuple[Float[Array, "n H W C"], Bool[Array, " n"]]:
    """Decodes latents to images in [0, 1], and tells of each whether all numbers were finite.

    Args:
      params: of the VAE.
      latents: in the UNet's scale.
      keys: data of the random keys, one for each image.
      at_once: images that are decoded together; at full size, the VAE needs more memory for an
        image than any other part.
      image_shape: see `Generator.decode`.
      how: pictures are resized, see `resizing`.
    """
    count = len(latents)
    at_once = min(at_once, count)

    def images(chunk):
        latents, keys = chunk
        scaled = jnp.transpose(latents, (0, 2, 3, 1)) / pipeline.vae.config.scaling_factor
        pixels = _vae_decode(pipeline.vae, params, scaled)
        right, pixels = finite.finite_rows((latents, pixels)), pixels.clip(0, 1)
        if image_shape is not None:
            pixels = fit_channels(resize(pixels, image_shape[:2], how, keys), image_shape[2])
        return pixels, right

    def in_chunks(array):
        padded = jnp.pad(array, ((0, -count % at_once), *[(0, 0)] * (array.ndim - 1)))
        return padded.reshape(-1, at_once, *array.shape[1:])

    chunks = jax.lax.map(images, (in_chunks(latents), in_chunks(keys)))
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:])[:count], chunks)


def _vae_decode(
    vae: Any, params: Mapping[str, Any], latents: Float[Array, "n height width channels"]
) -> Float[Array, "n H W C"]:
    """Decodes latents in the VAE's scale to float32 images, most of whose values lie in [0, 1].

    They are not clipped here, as that would turn infinity into 1. The latents have their channels
    last: diffusers moves them there only where the width is another number than the channels.
    """
    with float32_softmax():
        pixels = vae.apply({"params": params}, latents, method=vae.decode).sample
    pixels = pixels.astype(jnp.float32)
    return jnp.transpose(pixels / 2 + 0.5, (0, 2, 3, 1))


def fit_size(
    images: Float[Array, "n H W C"], size: tuple[int, int]
) -> Float[Array, "n height width C"]:
    """Resizes images to (height, width) bilinearly, unless they have that size already."""
    if images.shape[1:3] == tuple(size):
        return images
    return antialiased(images, size)


def fit_channels(images: Float[Array, "n H W C"], channels: int) -> Float[Array, "n H W channels"]:
    """Turns grey images to RGB by repetition, and RGB images to grey by the mean."""
    if images.shape[-1] == channels:
        return images
    return jnp.repeat(images.mean(-1, keepdims=True), channels, axis=-1)
