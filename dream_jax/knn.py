"""The exact k-th nearest neighbour distance, without a sort of all distances.

Only one order statistic is needed, so it is found by bisection on the bits of the float: 32 passes
that compare and count, with a fixed trip count and neither a sort nor a gather. That is linear in
the number of points and made of the operations that accelerators do best. Where k is much smaller
than the number of points, the maxima of small groups first tell which few points can matter.
"""

import functools
from collections.abc import Callable

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dream_jax.vectors import unit

QUERIES_AT_ONCE = 1024
SIMILARITIES_AT_ONCE = 2**27  # at most, unless one query alone has more; 512 MB
GROUP = 32  # consecutive points that are represented by their largest similarity


def _ordered_bits(values: Float[Array, "..."]) -> Int[Array, "..."]:
    """Maps float32 to int32 with the same order: negative floats have theirs reversed."""
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32)
    return _flip_negative(bits)


def _flip_negative(bits: Int[Array, "..."]) -> Int[Array, "..."]:
    """Reverses the order of negative int32, keeping their sign; its own inverse."""
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def kth_smallest(
    values: Float[Array, "*lists n"], k: int | Int[Array, ""]
) -> Float[Array, "*lists"]:
    """Finds the exact k-th smallest value along the last axis.

    Args:
      values: taken as float32; may be negative, infinite or equal, but not NaN.
      k: 1-based rank in [1, n], a Python or a traced integer; a rank outside is not detected.

    Returns:
      float32, one of the n values of each list.
    """
    bits = _ordered_bits(values)

    def next_bit(i, prefix):
        # From the highest bit down, take the upper half if fewer than k values lie below it. The
        # highest bit is the sign, which counts the other way; exclusive or handles both alike.
        middle = prefix ^ jax.lax.shift_left(jnp.int32(1), 31 - i)
        below = jnp.sum(bits < middle[..., None], axis=-1, dtype=jnp.int32)
        return jnp.where(below < k, middle, prefix)

    lowest = jnp.full(bits.shape[:-1], jnp.iinfo(jnp.int32).min, jnp.int32)
    found = jax.lax.fori_loop(0, 32, next_bit, lowest)
    return jax.lax.bitcast_convert_type(_flip_negative(found), jnp.float32)


def kth_sq_distance(
    queries: Float[Array, "q d"],
    points: Float[Array, "n d"],
    k: int | Int[Array, ""],
    count: int | Int[Array, ""] | None = None,
) -> Float[Array, " q"]:
    """Computes d_k, the squared Euclidean distance of unit vectors to their k-th nearest point.

    Dream-OOD, section 3.1. A query that is itself one of the points counts itself first. Memory
    is bounded for any number of queries: three arrays of `SIMILARITIES_AT_ONCE` numbers.

    Args:
      queries: unit vectors.
      points: unit vectors.
      k: 1-based rank in [1, n].
      count: if given, only the first `count` points are real; the others, padding, are treated as
        infinitely far.

    Returns:
      float32 in [0, 4].
    """
    padding = jnp.arange(len(points)) >= (len(points) if count is None else count)

    def one(query):
        opposition = -jnp.matmul(points, query, precision="highest")
        return kth_smallest(jnp.where(padding, jnp.inf, opposition), k)

    # |q - z|² = 2 - 2 q·z for unit vectors, increasing in -q·z.
    kth = jax.lax.map(one, queries, batch_size=_at_once(points))
    return jnp.maximum(2.0 + 2.0 * kth, 0.0)


_compiled = jax.jit(kth_sq_distance)


def d_k(
    vectors: Float[np.ndarray, "q d"],
    features: Float[np.ndarray, "n d"],
    k: int,
    count: int | None = None,
) -> Float[np.ndarray, " q"]:
    """Returns d_k of vectors among the features of a class: what reports and notebooks call d_k.

    Dream-OOD, section 3.1: the squared distance on the unit sphere to the k-th nearest feature, of
    which a feature of the class counts itself first.

    Args:
      vectors, features: of any length above 0.
      k: of a class with fewer features, the farthest counts.
      count: if given, only the first `count` features are real; classes of different sizes then
        share one compiled program.

    Returns:
      float32 in [0, 4].
    """
    real = len(features) if count is None else count
    found = _compiled(unit(jnp.asarray(vectors)), unit(jnp.asarray(features)), min(k, real), count)
    return np.asarray(found)


@jax.jit
def nearest_cosines(
    queries: Float[Array, "q d"], points: Float[Array, "n d"], own: Bool[Array, " n"]
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    """Computes the cosine to the nearest of the own points, and to the nearest of the others.

    Memory is bounded as for `knn_score`.

    Args:
      queries, points: unit vectors.
      own: which points are one's own.

    Returns:
      Two float32 arrays; -inf where there are no such points.
    """

    def one(query):
        cosines = jnp.matmul(points, query, precision="highest")
        return (
            jnp.max(jnp.where(own, cosines, -jnp.inf)),
            jnp.max(jnp.where(own, -jnp.inf, cosines)),
        )

    return jax.lax.map(one, queries, batch_size=_at_once(points))


@functools.partial(jax.jit, static_argnames="k")
def knn_score(
    queries: Float[Array, "q d"], points: Float[Array, "n d"], k: int
) -> Float[Array, " q"]:
    """Computes the KNN score: minus the distance to the k-th nearest stored feature.

    Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022, section 3.
    Higher is more in-distribution. Exact, by one matrix product of which little is searched: the
    k nearest points lie in the k groups of `GROUP` consecutive points with the largest maxima, for
    those hold k similarities that no point outside them exceeds. Apart from the arguments, memory
    is bounded by two arrays of `SIMILARITIES_AT_ONCE` numbers, 1 GB, or of the n similarities of a
    single query if those are more.

    Args:
      queries: unit vectors.
      points: unit vectors, the stored features.
      k: 1-based rank of the neighbour, in [1, n].

    Returns:
      float32 in [-2, 0]. The squared distance has the rounding of a product of unit vectors, about
      1e-6.

    Raises:
      ValueError: k is not in [1, n].
    """
    _check_rank(k, points)

    def one(query):
        return kth_smallest(-_candidates(query, points, k), k)

    kth = map_queries(one, queries, points)
    return -jnp.sqrt(jnp.maximum(2.0 + 2.0 * kth, 0.0))


@functools.partial(jax.jit, static_argnames="k")
def mean_of_largest(
    queries: Float[Array, "q d"], points: Float[Array, "n d"], k: int
) -> Float[Array, " q"]:
    """Computes the mean of the k largest inner products of each query with the points.

    Exact, with the memory of `knn_score`, and for vectors of any length.

    Args:
      queries: vectors.
      points: vectors.
      k: the number of products to average, in [1, n].

    Returns:
      float32.

    Raises:
      ValueError: k is not in [1, n].
    """
    _check_rank(k, points)

    def one(query):
        return jnp.mean(jax.lax.top_k(_candidates(query, points, k), k)[0])

    return map_queries(one, queries, points)


def _check_rank(k: int, points: Float[Array, "n d"]) -> None:
    if not 1 <= k <= len(points):
        raise ValueError(f"k is {k}, not a rank among {len(points)} points")


def _candidates(
    query: Float[Array, " d"], points: Float[Array, "n d"], k: int
) -> Float[Array, " found"]:
    """Returns inner products that include the k largest: those of the best groups."""
    n = len(points)
    whole = n // GROUP
    groups = -(-n // GROUP)
    similarity = jnp.matmul(query, points.T, precision="highest")
    maxima = jnp.max(similarity[: whole * GROUP].reshape(whole, GROUP), axis=1)
    if groups > whole:
        maxima = jnp.append(maxima, jnp.max(similarity[whole * GROUP :]))
    chosen = jax.lax.top_k(maxima, min(k, groups))[1]
    members = (chosen[:, None] * GROUP + jnp.arange(GROUP)).ravel()
    return similarity.at[members].get(mode="fill", fill_value=-jnp.inf)


def map_queries(
    function: Callable[[jax.Array], jax.Array], queries: Float[Array, "q d"], points: jax.Array
) -> Float[Array, " q"]:
    """Maps a function over queries, some at once.

    In an exported program, whose number of queries is not known, all at once: whoever calls it
    chooses how many there are.
    """
    if jax.export.is_symbolic_dim(queries.shape[0]):
        return jax.vmap(function)(queries)
    return jax.lax.map(function, queries, batch_size=_at_once(points))


def _at_once(points: Float[Array, "n d"]) -> int:
    return max(1, min(QUERIES_AT_ONCE, SIMILARITIES_AT_ONCE // len(points)))
