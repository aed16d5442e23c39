"""Time of one round of the outlier sampler against the published way of computing it.

    python -m benchmarks.sampler [--rounds 5] [--rivals jax_sort numpy_partition]

Paper size by default: 500 features of 768 dimensions, 50 boundary features, 1,500 noise vectors,
k = 300. The rivals build all 75,000 candidates and all their distances to the features, as the
published code does (there with faiss), and take the k-th:

- `jax_sort`: compiled JAX, matrix product and `jnp.sort`;
- `numpy_partition`: NumPy, matrix product and `np.partition`.

All choose the same candidates, which is checked. Every repetition times each of them once, in
turn, and the ratio is the median over repetitions of rival / ours, so that a busy machine slows
both sides alike. Prints a table, then one line of JSON.
"""

import argparse
import functools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.sampling.boundary import boundary_set, sample_round
from dream_jax.sampling.knn import kth_sq_distance


def numpy_partition(features, boundary_features, noise, k, scale, keep):
    """All candidates, all distances, `np.partition`: (p, keep, d)."""
    candidates = (boundary_features[:, None] + scale * noise).reshape(-1, features.shape[1])
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    distance = 2 - 2 * candidates @ features.T
    kth = np.partition(distance, k - 1, axis=1)[:, k - 1].reshape(len(boundary_features), -1)
    chosen = np.argsort(-kth, axis=1)[:, :keep]
    candidates = candidates.reshape(*kth.shape, -1)
    return np.take_along_axis(candidates, chosen[..., None], axis=1)


@functools.partial(jax.jit, static_argnames=("k", "keep"))
def jax_sort(features, boundary_features, noise, k, scale, keep):
    """All candidates, all distances, `jnp.sort`: (p, keep, d)."""
    candidates = boundary_features[:, None] + scale * noise
    candidates /= jnp.linalg.norm(candidates, axis=-1, keepdims=True)
    distance = 2 - 2 * jnp.matmul(candidates, features.T, precision="highest")
    kth = jnp.sort(distance, axis=-1)[..., k - 1]
    chosen = jax.lax.top_k(kth, keep)[1]
    return jnp.take_along_axis(candidates, chosen[..., None], axis=1)


RIVALS = {"jax_sort": jax_sort, "numpy_partition": numpy_partition}
ours = jax.jit(sample_round, static_argnames=("k", "keep", "largest"))


def seconds(function, arguments):
    """Seconds of one call, and its result as NumPy."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start, np.asarray(result)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed repetitions")
    parser.add_argument("--rivals", nargs="+", choices=list(RIVALS), default=list(RIVALS))
    parser.add_argument("--features", type=int, default=500)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--boundary", type=int, default=50)
    parser.add_argument("--candidates", type=int, default=1500)
    parser.add_argument("--k", type=int, default=300)
    parser.add_argument("--scale", type=float, default=0.07)
    parser.add_argument("--keep", type=int, default=2)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    # A class is a cluster: a common direction plus a spread of the same length.
    features = rng.normal(size=args.dimension) + rng.normal(size=(args.features, args.dimension))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    noise = rng.normal(size=(args.candidates, args.dimension)).astype(np.float32)
    chosen = np.asarray(boundary_set(features, args.k, args.boundary))
    on_host = (features, features[chosen], noise)
    on_device = jax.device_put(on_host)
    settings = (args.k, args.scale, args.keep)

    functions = {"dream_jax": (ours, (*on_device, *settings))}
    for name in args.rivals:
        data = on_host if name == "numpy_partition" else on_device
        functions[name] = (RIVALS[name], (*data, *settings))

    # The first call compiles. Another candidate may be kept only if its d_k ties but for rounding.
    def kept_distances(points):
        flat = points.reshape(-1, args.dimension)
        return np.asarray(kth_sq_distance(flat, features, args.k)).reshape(points.shape[:2])

    expected = kept_distances(seconds(*functions["dream_jax"])[1])
    for name in args.rivals:
        kept = kept_distances(seconds(*functions[name])[1])
        np.testing.assert_allclose(kept, expected, atol=5e-6, err_msg=name)

    times = {name: [] for name in functions}
    for _ in range(args.rounds):
        for name, call in functions.items():
            times[name].append(seconds(*call)[0])

    medians = {name: float(np.median(t)) for name, t in times.items()}
    ratios = {
        name: float(np.median(np.divide(times[name], times["dream_jax"]))) for name in args.rivals
    }
    print(
        f"one round: {args.features} features, {args.dimension}-d, {args.boundary} boundary × "
        f"{args.candidates} candidates, k={args.k}; {jax.default_backend()}; "
        f"median of {args.rounds} paired repetitions"
    )
    print(f"{'':18}{'seconds':>10}{'rival / ours':>14}")
    for name, median in medians.items():
        ratio = f"{ratios[name]:13.1f}×" if name in ratios else f"{'':>14}"
        print(f"{name:18}{median:10.3f}{ratio}")
    sizes = {name: value for name, value in vars(args).items() if name != "rivals"}
    summary = {"benchmark": "sampler", "backend": jax.default_backend(), **sizes}
    print(json.dumps(summary | {"seconds": medians, "ratio": ratios}))


if __name__ == "__main__":
    main()
