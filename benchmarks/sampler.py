"""Rounds of the outlier sampler against the plain way of computing them.

    python -m benchmarks.sampler [--rounds 5]

Paper size by default: 500 features of 768 dimensions, 50 boundary features with 1,500 candidates
each, k = 300, and as many rounds as there are devices, over which the project maps them. The rivals
build all 75,000 candidates of a round and take the k-th of all their distances to the features:
torch with faiss' exact search, as the published code does, and compiled JAX with a sort.

First with own noise for each boundary feature, as the paper has it, drawing included: all keep
candidates of the same distances on average. Then with noise that the features share, as in the
published code, given: all must choose the same candidates, up to ties.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.paired import compare, parser
from benchmarks.processes import check_installed, require
from dream_jax.knn import kth_sq_distance
from dream_jax.sampling.boundary import boundary_set
from dream_jax.sampling.own_noise import describe, own_round
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.sampling.shared_noise import shared_round
from dream_jax.training import devices


def torch_faiss(features, boundary_features, noise, k, scale, keep):
    """All candidates in torch, all k neighbours of each by faiss: (p, keep, d)."""
    torch, faiss = require("torch"), require("faiss")
    p, dimension = boundary_features.shape
    shifted = torch.from_numpy(boundary_features)[:, None] + scale * torch.as_tensor(noise)
    candidates = torch.nn.functional.normalize(shifted, dim=-1)
    index = faiss.IndexFlatL2(dimension)
    index.add(features)
    distance, _ = index.search(candidates.reshape(-1, dimension).numpy(), k)
    kth = torch.from_numpy(distance[:, -1]).reshape(p, -1)
    chosen = kth.topk(keep, dim=1).indices
    return candidates[torch.arange(p)[:, None], chosen].numpy()


@functools.partial(jax.jit, static_argnames=("k", "keep"))
def jax_sort(features, boundary_features, noise, k, scale, keep):
    """All candidates, all distances, `jnp.sort`: (p, keep, d)."""
    candidates = boundary_features[:, None] + scale * noise
    candidates /= jnp.linalg.norm(candidates, axis=-1, keepdims=True)
    distance = 2 - 2 * jnp.matmul(candidates, features.T, precision="highest")
    kth = jnp.sort(distance, axis=-1)[..., k - 1]
    chosen = jax.lax.top_k(kth, keep)[1]
    return jnp.take_along_axis(candidates, chosen[..., None], axis=1)


def cluster(count, dimension, rng):
    """(count, dimension) unit vectors: a common direction plus a spread of the same length."""
    vectors = rng.normal(size=dimension) + rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def torch_faiss_own(features, boundary_features, generator, k, scale, keep, candidates):
    """`torch_faiss` with noise of its own for each boundary feature, drawn here."""
    shape = len(boundary_features), candidates, features.shape[1]
    noise = require("torch").randn(shape, generator=generator)
    return torch_faiss(features, boundary_features, noise, k, scale, keep)


@functools.partial(jax.jit, static_argnames=("k", "keep", "candidates"))
def jax_sort_own(features, boundary_features, key, k, scale, keep, candidates):
    """`jax_sort` with noise of its own for each boundary feature, a feature at a time."""

    def one(number_and_feature):
        number, feature = number_and_feature
        noise = jax.random.normal(jax.random.fold_in(key, number), (candidates, features.shape[1]))
        return jax_sort(features, feature[None], noise, k, scale, keep)[0]

    return jax.lax.map(one, (jnp.arange(len(boundary_features)), boundary_features))


def main():
    flags = parser(__doc__)
    flags.add_argument("--features", type=int, default=500)
    flags.add_argument("--dimension", type=int, default=768)
    flags.add_argument("--boundary", type=int, default=50)
    flags.add_argument("--candidates", type=int, default=1500)
    flags.add_argument("--k", type=int, default=300)
    flags.add_argument("--scale", type=float, default=0.07)
    flags.add_argument("--keep", type=int, default=2)
    args = flags.parse_args()
    check_installed("torch", "faiss")
    devices.use_cores()
    features = cluster(args.features, args.dimension, np.random.default_rng(0))
    chosen = np.asarray(boundary_set(features, args.k, args.boundary))
    known = features, features[chosen]
    settings = SamplerSettings(
        k=args.k, scale=args.scale, keep=args.keep, candidates=args.candidates
    )
    rounds = jax.local_device_count()
    sizes = {name: value for name, value in vars(args).items() if name != "rounds"}
    sizes["sampled_rounds"] = rounds
    number = args.boundary * args.candidates
    title = (
        f"{rounds} sampler rounds, {number:,} candidates × {args.features} features, k = {args.k}"
    )
    for noise, make in (("own", own_noise), ("shared", shared_noise)):
        contenders, agree = make(known, settings, rounds)
        compare(
            "sampler" if noise == "own" else "sampler_shared",
            f"{title}, {noise} noise",
            contenders,
            args.rounds,
            sizes,
            (rounds * number, "candidates"),
            agree,
        )


def kept_distances(points, features, k):
    """d_k of all kept candidates."""
    flat = np.asarray(points).reshape(-1, features.shape[1])
    return np.asarray(kth_sq_distance(flat, features, k))


def own_noise(known, settings, rounds):
    """Contenders that draw the noise themselves; what they keep is as far out on average."""
    features = known[0]
    keys = jax.random.split(jax.random.key(0), rounds)

    def one(key_data):
        class_known = describe(features, len(features))
        return own_round(class_known, known[1], jax.random.wrap_key_data(key_data), settings)

    mapped = devices.pmap(one)
    rival = {
        **{"k": settings.k, "scale": settings.scale, "keep": settings.keep},
        "candidates": settings.candidates,
    }
    generator = functools.cache(lambda: require("torch").Generator().manual_seed(0))
    contenders = {
        "dream_jax": functools.partial(mapped, devices.put(jax.random.key_data(keys))),
        "torch + faiss": lambda: np.stack(
            [torch_faiss_own(*known, generator(), **rival) for _ in range(rounds)]
        ),
        "jnp.sort": lambda: np.stack([jax_sort_own(*known, key, **rival) for key in keys]),
    }

    def agree(points):
        expected = kept_distances(points["dream_jax"], features, settings.k)
        for who, kept in points.items():
            found = kept_distances(kept, features, settings.k)
            error = np.hypot(found.std(), expected.std()) / np.sqrt(len(found))
            np.testing.assert_allclose(found.mean(), expected.mean(), atol=4 * error, err_msg=who)

    return contenders, agree


def shared_noise(known, settings, rounds):
    """Contenders that are given noise for all boundary features; they keep the same candidates."""
    features = known[0]
    shape = rounds, settings.candidates, features.shape[1]
    noise = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    mapped = devices.pmap(lambda noise: shared_round(*known, noise, settings))

    def one_by_one(one_round, known, noise):
        rival = settings.k, settings.scale, settings.keep
        return np.stack([one_round(*known, of_round, *rival) for of_round in noise])

    contenders = {
        "dream_jax": functools.partial(mapped, devices.put(noise)),
        "torch + faiss": functools.partial(one_by_one, torch_faiss, known, noise),
        "jnp.sort": functools.partial(one_by_one, jax_sort, *jax.device_put((known, noise))),
    }

    def agree(points):
        # Another candidate may be kept only if its d_k ties but for rounding.
        expected = kept_distances(points["dream_jax"], features, settings.k)
        for who, kept in points.items():
            found = kept_distances(kept, features, settings.k)
            np.testing.assert_allclose(found, expected, atol=5e-6, err_msg=who)

    return contenders, agree


if __name__ == "__main__":
    main()
