"""What `benchmarks.accelerator` measures of this project.

Each function of `WORKS` prepares a work of some `Sizes`.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.architectures import TINY, V1_4, Architecture
from dream_jax.training import devices

GUIDANCE = 7.5
KNN_DIMENSION = 512
ROUNDS = 10  # of the sampler in a call


class Sizes(NamedTuple):
    """How large the works are.

    Attributes:
      parts: the generator's architecture.
      images: decoded end to end.
      batch: images that are decoded at once; 0 as many as fit.
      steps: denoising steps.
      precision: of the generator and the classifiers.
      resnet34, resnet50: network, images in a training step, their size, steps in one call.
      features, dimension, k, boundary, candidates: of the sampler, for one class.
      points, queries, neighbour: of the KNN score.
      attention: form of the UNet's, see `dream_jax.generator.attention`.
    """

    parts: Architecture = V1_4
    images: int = 64
    batch: int = 16
    steps: int = 50
    precision: str = "bfloat16"
    resnet34: tuple[str, int, int, int] = ("resnet34", 512, 32, 4)
    resnet50: tuple[str, int, int, int] = ("resnet50", 256, 224, 2)
    features: int = 500
    dimension: int = 768
    k: int = 300
    boundary: int = 50
    candidates: int = 1500
    points: int = 1_000_000
    queries: int = 100
    neighbour: int = 1000
    attention: str = "auto"


SMALL = Sizes(
    TINY,
    4,
    2,
    2,
    "float32",
    ("resnet8", 8, 8, 2),
    ("resnet50", 4, 32, 1),
    40,
    16,
    10,
    5,
    20,
    points=1000,
    neighbour=50,
)


class Work(NamedTuple):
    """A work that is ready to run.

    Attributes:
      title: says what one of its pieces is, see `pieces`.
      call: does all pieces; JAX arrays that it returns are waited for.
      amount, unit: of what is done in a piece.
      warm: does a part of the work that compiles all of it; the whole if None.
      flops: counts those of a piece on a device.
      memory: of the compiled program on a device, in bytes: arguments, results and temporaries.
    """

    title: str
    call: Callable[[], Any]
    amount: float
    unit: str
    warm: Callable[[], Any] | None = None
    flops: Callable[[], float] | None = None
    memory: Callable[[], int] | None = None


def _needed(program: Callable, *arguments: Any) -> int:
    memory = program.lower(*arguments).compile().memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def _count(function: Callable, *arguments: Any) -> float:
    """XLA's count of a program as it is written, on one device: arguments (devices, ...).

    XLA's client for GPUs does not count, so the one for CPUs does. The program is lowered for a
    TPU: there convolutions are plain ones, whichever device is measured.
    """
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), arguments)
    program = jax.jit(jax.vmap(function, axis_name=devices.AXIS))  # batch norm sums over the axis
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        lowered = program.trace(*shapes).lower(lowering_platforms=("tpu",))
    return lowered.cost_analysis()["flops"]


@functools.cache
def _decoder(sizes: Sizes) -> tuple[Any, Any, Any]:
    """(generator, its sampling, its compiled programs), shared by the works of the generator."""
    from benchmarks.architectures import generator
    from dream_jax.generator.interface import Sampling

    made = generator(sizes.parts, sizes.precision)
    made.attention = sizes.attention
    sampling = Sampling("ddim", sizes.steps, GUIDANCE, sizes.batch, sizes.batch)
    decoder = made._prepared(sampling, None)
    decoder.fit(sizes.images)
    return made, sampling, decoder


def batch_of(sizes: Sizes) -> int:
    """Returns how many images are decoded at once, found if that is left open."""
    return sizes.batch or _decoder(sizes)[2].batch_size


def _prompts(sizes: Sizes, count: int) -> tuple[np.ndarray, np.ndarray, jax.Array]:
    """(ids, embeddings, keys) of prompts of one placeholder."""
    made = _decoder(sizes)[0]
    ids = np.stack([made.prompt_ids([len(made.table)])] * count)
    return ids, made.table[np.arange(count)], jax.random.split(jax.random.key(1), count)


def text_encoder(sizes: Sizes) -> Work:
    """The hidden states of a batch of prompts with embeddings of one's own."""
    from dream_jax.generator.stable_diffusion import encode_prompts

    made, _, decoder = _decoder(sizes)
    ids, embeddings, _ = _prompts(sizes, decoder.batch_size)
    batch = devices.shard({"ids": ids, "embeddings": embeddings})
    given = decoder._params["text_encoder"], *devices.put((batch["ids"], batch["embeddings"]))
    return Work(
        f"text encoder, {decoder.batch_size} prompts",
        lambda: decoder._encode(*given),
        decoder.batch_size,
        "prompts",
        flops=lambda: _count(functools.partial(encode_prompts, made.pipeline), *given),
        memory=lambda: _needed(decoder._encode, *given),
    )


def unet(sizes: Sizes) -> Work:
    """All denoising steps of a batch with guidance, as the project runs them."""
    made, _, decoder = _decoder(sizes)
    keys = np.asarray(jax.random.key_data(_prompts(sizes, decoder.batch_size)[2]))
    noise = decoder._noise(devices.put(devices.shard({"keys": keys})["keys"]))
    width = sizes.parts.unet["cross_attention_dim"]
    shape = (*noise.shape[:2], sizes.parts.tokens, width)
    states = devices.put(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    states = states.astype(sizes.precision)
    params = decoder._params
    given = params["unet"], params["scheduler"], states, decoder._unconditional, noise
    unet = made.pipeline.unet

    def evaluate(params, latents, states):
        return unet.apply(
            {"params": params}, latents, jnp.int32(1), encoder_hidden_states=states
        ).sample

    both = jax.ShapeDtypeStruct((1, 2 * noise.shape[1], *noise.shape[2:]), noise.dtype)
    contexts = jax.ShapeDtypeStruct((1, 2 * shape[1], *shape[2:]), states.dtype)
    return Work(
        f"UNet step, {decoder.batch_size} images, guided",
        lambda: decoder._denoise(*given),
        decoder.batch_size,
        "images",
        flops=lambda: _count(evaluate, given[0], both, contexts),
        memory=lambda: _needed(decoder._denoise, *given),
    )


def vae(sizes: Sizes) -> Work:
    """The pictures of a batch of latents."""
    made, _, decoder = _decoder(sizes)
    keys = np.asarray(jax.random.key_data(_prompts(sizes, decoder.batch_size)[2]))
    keys = devices.put(devices.shard({"keys": keys})["keys"])
    given = decoder._params["vae"], decoder._noise(keys), keys
    vae = made.pipeline.vae
    plain = functools.partial(_decode_plainly, vae)
    return Work(
        f"VAE decoder, {decoder.batch_size} images",
        lambda: decoder._decode_latents(*given),
        decoder.batch_size,
        "images",
        flops=lambda: _count(plain, *given[:2]),
        memory=lambda: _needed(decoder._decode_latents, *given),
    )


def _decode_plainly(vae, params, latents):
    return vae.apply({"params": params}, latents, method=vae.decode).sample


def _training(sizes: Sizes, stem: str, classes: int, shape: tuple[str, int, int, int]) -> Work:
    """Training steps as the project's loop makes them: cross-entropy, SGD with momentum."""
    import optax

    from dream_jax.models.resnet import build_model, init_model
    from dream_jax.settings import ModelSettings
    from dream_jax.training.loop import Term, create_state, make_steps

    arch, batch, size, steps = shape
    model = build_model(ModelSettings(arch, 64, stem, sizes.precision), classes)
    variables = init_model(model, jax.random.key(0), (size, size, 3))

    def objective(params, model_state, batch, keys):
        (logits, _), model_state = model.apply(
            {"params": params, **model_state},
            batch["images"],
            train=True,
            mask=batch["mask"],
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return {"ce": Term(loss, batch["mask"])}, model_state

    optimizer = optax.sgd(0.01, momentum=0.9)
    program = make_steps(objective, optimizer, None)
    state = devices.replicate(create_state(variables, optimizer, jax.random.key(0)))
    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), np.float32)
    given = devices.shard({"images": images, "labels": rng.integers(0, classes, batch)})
    given = devices.put({name: np.stack([a] * steps, 1) for name, a in given.items()})

    def call():
        nonlocal state  # it is donated
        state, metrics = program({}, state, given)
        return metrics

    def gradients(params, model_state, batch):
        mask = jnp.ones(batch["labels"].shape)

        def loss(params):
            terms, _ = objective(params, model_state, {**batch, "mask": mask}, None)
            return terms["ce"].values.mean()

        return jax.grad(loss)(params)

    one = jax.tree.map(lambda a: a[:, 0], given)
    return Work(
        f"{arch} training step, {batch} of {size}×{size}",
        call,
        batch,
        "images",
        flops=lambda: _count(gradients, state.params, state.model_state, one),
        memory=lambda: _needed(program, {}, state, given),
    )


def resnet34(sizes: Sizes) -> Work:
    """Training of the CIFAR networks: as many ID images as outliers."""
    return _training(sizes, "small", 100, sizes.resnet34)


def resnet50(sizes: Sizes) -> Work:
    """Training of ImageNet's network."""
    return _training(sizes, "imagenet", 1000, sizes.resnet50)


def sampler(sizes: Sizes) -> Work:
    """The embeddings of one class, ten rounds with noise of their own, on the host."""
    from dream_jax.sampling.rounds import sample_embeddings
    from dream_jax.sampling.settings import SamplerSettings

    settings = SamplerSettings(
        k=sizes.k, boundary=sizes.boundary, per_round=sizes.boundary,
        candidates=sizes.candidates, rounds=ROUNDS,
    )  # fmt: skip
    features = cluster(sizes.features, sizes.dimension)
    key = jax.random.key(0)
    candidates = sizes.boundary * sizes.candidates
    return Work(
        f"sampler round, k = {sizes.k}",
        lambda: sample_embeddings(features, key, settings),
        candidates,
        "candidates",
    )


def cluster(count: int, dimension: int) -> np.ndarray:
    """(count, dimension) unit vectors: a common direction plus a spread of the same length."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=dimension) + rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def knn(sizes: Sizes) -> Work:
    """The KNN score of some queries, float32."""
    from dream_jax.knn import knn_score
    from dream_jax.vectors import unit

    def vectors(seed, count):
        return unit(jax.random.normal(jax.random.key(seed), (count, KNN_DIMENSION)))

    points = jax.jit(vectors, static_argnums=(0, 1))(0, sizes.points)
    queries = jax.jit(vectors, static_argnums=(0, 1))(1, sizes.queries)
    return Work(
        f"KNN score among {sizes.points:,}, k = {sizes.neighbour}",
        lambda: knn_score(queries, points, sizes.neighbour),
        sizes.queries,
        "queries",
        flops=lambda: 2.0 * sizes.queries * sizes.points * KNN_DIMENSION,
        memory=lambda: _needed(knn_score, queries, points, sizes.neighbour),
    )


def decoding(sizes: Sizes) -> Work:
    """Images end to end: prompts to PNG files, as stage ③ makes them."""
    from dream_jax.data.parts import ImageWriter

    made, sampling, decoder = _decoder(sizes)
    folder = tempfile.TemporaryDirectory()

    def decode(count):
        done = 0
        with ImageWriter() as write:
            for batch in made.decode(*_prompts(sizes, count), sampling):
                for image in batch:
                    write(Path(folder.name) / f"{done:06d}.png", image)
                    done += 1
        assert done == count

    return Work(
        f"{sizes.images} images by {sizes.steps} steps, to files",
        functools.partial(decode, sizes.images),
        sizes.images,
        "images",
        warm=functools.partial(decode, decoder.batch_size),
    )


WORKS: dict[str, Callable[[Sizes], Work]] = {
    "knn": knn,
    "sampler": sampler,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "text_encoder": text_encoder,
    "vae": vae,
    "unet": unet,
    "decoding": decoding,
}


def pieces(name: str, sizes: Sizes) -> int:
    """Returns how many equal pieces a call of a work has: steps or rounds."""
    steps = {"unet": sizes.steps, "sampler": ROUNDS}
    steps |= {"resnet34": sizes.resnet34[-1], "resnet50": sizes.resnet50[-1]}
    return steps.get(name, 1)


IN_FLOAT32 = ("knn", "sampler")
OF_GENERATOR = ("text_encoder", "vae", "unet", "decoding")
