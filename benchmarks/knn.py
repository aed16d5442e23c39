"""The KNN score of a detector against faiss: k-th nearest of a million stored features, exact.

    python -m benchmarks.knn [--rounds 3] [--points 1000000] [--queries 100] [--k 50 1000]

The rival is faiss' exact search, IndexFlatIP, of the same unit vectors: as it comes, with matrix
products of its BLAS, and with its own kernels, which are faster where that BLAS is slow. The
distance to the k-th neighbour is all that is asked of it. All must give the same distances. Needs
about 6 GB for a million features of 512 dimensions.
"""

import functools

import jax
import numpy as np

from benchmarks.paired import compare, parser
from benchmarks.processes import check_installed
from dream_jax.knn import knn_score

BLOCK = 50_000  # rows generated at once


def unit_vectors(count: int, dimension: int, seed: int) -> np.ndarray:
    """(count, dimension) float32 random unit vectors, made block by block to save memory."""
    rng = np.random.default_rng(seed)
    vectors = np.empty((count, dimension), np.float32)
    for start in range(0, count, BLOCK):
        block = vectors[start : start + BLOCK]
        rng.standard_normal(out=block, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def main():
    flags = parser(__doc__, rounds=3)
    flags.add_argument("--points", type=int, default=1_000_000)
    flags.add_argument("--dimension", type=int, default=512)
    flags.add_argument("--queries", type=int, default=100)
    flags.add_argument("--k", type=int, nargs="+", default=[50, 1000])
    args = flags.parse_args()
    check_installed("faiss")

    # Each side has the points once it is called, so that the memory of one counts alone.
    @functools.cache
    def points():
        return jax.device_put(unit_vectors(args.points, args.dimension, seed=0))

    @functools.cache
    def index():
        import faiss

        made = faiss.IndexFlatIP(args.dimension)
        made.add(unit_vectors(args.points, args.dimension, seed=0))
        return made

    queries = unit_vectors(args.queries, args.dimension, seed=1)
    queries_on_device = jax.device_put(queries)

    def ours(k):
        return knn_score(queries_on_device, points(), k)

    def agree(scores):
        for who, score in scores.items():
            np.testing.assert_allclose(score, scores["dream_jax"], atol=1e-5, err_msg=who)

    def search(blas_from, k):
        import faiss

        faiss.cvar.distance_compute_blas_threshold = blas_from  # queries
        return -np.sqrt(np.maximum(2 - 2 * index().search(queries, k)[0][:, -1], 0))

    contenders = {
        "dream_jax": ours,
        "faiss IndexFlatIP": functools.partial(search, 20),
        "faiss IndexFlatIP without BLAS": functools.partial(search, args.queries + 1),
    }
    for k in args.k:
        calls = {who: functools.partial(call, k) for who, call in contenders.items()}
        compare(
            f"knn_{k}",
            f"KNN score of {args.queries} features among {args.points:,} of "
            f"{args.dimension} dimensions, k = {k}",
            calls,
            args.rounds,
            {"points": args.points, "dimension": args.dimension, "queries": args.queries, "k": k},
            (args.queries, "queries"),
            agree,
        )


if __name__ == "__main__":
    main()
