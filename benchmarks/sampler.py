"""Rounds of the outlier sampler against the published way of computing them.

    python -m benchmarks.sampler [--rounds 5]

Paper size by default: 500 features of 768 dimensions, 50 boundary features, 1,500 noise vectors,
k = 300, and as many rounds as there are devices, over which the project maps them. Both rivals
build all 75,000 candidates of a round and take the k-th of all their distances to the features:
torch with faiss' exact search, as the published code does, and compiled JAX with a sort. All must
choose the same candidates, up to ties.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.paired import compare, parser, require
from dream_jax.knn import kth_sq_distance
from dream_jax.sampling.boundary import boundary_set, sample_round
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.training import devices


def torch_faiss(features, boundary_features, noise, k, scale, keep):
    """All candidates in torch, all k neighbours of each by faiss: (p, keep, d)."""
    torch, faiss = require("torch"), require("faiss")
    p, dimension = boundary_features.shape
    shifted = torch.from_numpy(boundary_features)[:, None] + scale * torch.from_numpy(noise)
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
    for package in ("torch", "faiss"):
        require(package)

    devices.use_cores()
    rng = np.random.default_rng(0)
    features = cluster(args.features, args.dimension, rng)
    rounds = jax.local_device_count()
    noise = rng.normal(size=(rounds, args.candidates, args.dimension)).astype(np.float32)
    chosen = np.asarray(boundary_set(features, args.k, args.boundary))
    known = features, features[chosen]
    settings = SamplerSettings(k=args.k, scale=args.scale, keep=args.keep)
    mapped = devices.pmap(lambda noise: sample_round(*known, noise, settings))

    def one_by_one(one_round, known, noise):
        rival = (args.k, args.scale, args.keep)
        return np.stack([one_round(*known, of_round, *rival) for of_round in noise])

    contenders = {
        "dream_jax": functools.partial(mapped, devices.put(noise)),
        "torch + faiss": functools.partial(one_by_one, torch_faiss, known, noise),
        "jnp.sort": functools.partial(one_by_one, jax_sort, *jax.device_put((known, noise))),
    }

    # Another candidate may be kept only if its d_k ties but for rounding.
    def kept_distances(points):
        flat = np.asarray(points).reshape(-1, args.dimension)
        return np.asarray(kth_sq_distance(flat, features, args.k))

    expected = kept_distances(contenders["dream_jax"]())
    for who, call in contenders.items():
        np.testing.assert_allclose(kept_distances(call()), expected, atol=5e-6, err_msg=who)

    sizes = {name: value for name, value in vars(args).items() if name != "rounds"}
    sizes["sampled_rounds"] = rounds
    number = args.boundary * args.candidates
    compare(
        "sampler",
        f"{rounds} sampler rounds, {number:,} candidates × {args.features} features, k = {args.k}",
        contenders,
        args.rounds,
        sizes,
        (rounds * number, "candidates"),
    )


if __name__ == "__main__":
    main()
