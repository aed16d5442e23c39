"""Statistics of fitting data that is read in parts: class means, covariances, exact quantiles."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dream_jax.detector.detectors.base import FitData
from dream_jax.errors import UserError

# A variance that is a smaller share of the largest is the rounding of float32 features.
SMALLEST_VARIANCE = 1e-12
COLUMN_BYTES = 2**27


class Scatter(NamedTuple):
    """Means and covariances in float64, divided by n.

    Attributes:
      mean: (d,) of all rows.
      class_means: (classes, d).
      within: (d, d) covariance around the class means.
      total: (d, d) covariance around the mean.
    """

    mean: np.ndarray
    class_means: np.ndarray
    within: np.ndarray
    total: np.ndarray


def class_means(
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    classes: int,
    detector: str,
    kind: str = "training image",
) -> tuple[np.ndarray, np.ndarray]:
    """(means (classes, d), counts (classes,)) of rows and their class numbers.

    Raises:
      UserError: a class has no row; names the detector, the class and the `kind` of row.
    """
    sums, counts = 0.0, np.zeros(classes, np.int64)
    for rows, labels in parts:
        # A product with one-hot labels: faster than np.add.at.
        sums = sums + (labels == np.arange(classes)[:, None]).astype(np.float64) @ rows
        counts += np.bincount(labels, minlength=classes)
    if not counts.all():
        raise UserError(
            f"detector {detector}: class {int(counts.argmin())} has no {kind}; every class must "
            f"have one"
        )
    return sums / counts[:, None], counts


def mean_feature(data: FitData) -> np.ndarray:
    """The mean of all rows of the features, in float64: (d,)."""
    total = sum(np.sum(part.features, axis=0) for part in data.parts())
    return np.asarray(total / len(data.labels))


def scatter(data: FitData, detector: str) -> Scatter:
    """Two passes over the data: means, then the centred products, which do not cancel."""
    means, counts = class_means(_rows(data), data.classes, detector)
    within = sum((r - means[y]).T @ (r - means[y]) for r, y in _rows(data)) / counts.sum()
    share = counts / counts.sum()
    mean = share @ means
    between = (means - mean).T @ ((means - mean) * share[:, None])
    return Scatter(mean, means, within, within + between)


def _rows(data: FitData) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return ((part.features, part.labels) for part in data.parts())


def whitening(covariance: np.ndarray) -> np.ndarray:
    """W (d, d) with W Wᵀ the inverse: |vW|² is v's squared Mahalanobis length.

    A unit that never fired in training and fires now is evidence, though nobody knows how far it
    would usually go. Directions in which the data do not vary get the variance of that in which
    they vary least. Where all vary, this is the inverse; data that vary nowhere have lengths of 0.
    """
    values, vectors = np.linalg.eigh(covariance)
    varies = values > SMALLEST_VARIANCE * values[-1]
    if not varies.any():
        return np.zeros_like(vectors)
    return vectors / np.sqrt(np.where(varies, values, values[varies][0]))


def column_quantiles(features: np.ndarray, q: Sequence[float]) -> np.ndarray:
    """The exact q-quantiles of each column: (len(q), d).

    Reads `COLUMN_BYTES` of columns at a time, in float64, or one column if that has more.
    """
    n, d = features.shape
    width = max(1, COLUMN_BYTES // (8 * n))
    blocks = [
        np.quantile(np.asarray(features[:, start : start + width], np.float64), q, axis=0)
        for start in range(0, d, width)
    ]
    return np.concatenate(blocks, axis=1)


def quantile(parts: Callable[[], Iterable[np.ndarray]], q: float) -> float:
    """The exact q-quantile of float32 values, with NumPy's linear interpolation.

    By radix: one pass counts the upper halves of the values' bits, and one for each of the two
    order statistics between which the quantile lies counts the lower halves of the bits below the
    upper half that holds it. Memory does not depend on the number of values.

    Args:
      parts: starts a pass over arrays of values of any shape.
      q: in [0, 1].
    """
    none = np.zeros(2**16, np.int64)
    upper = sum((np.bincount(_ordered(p) >> 16, minlength=2**16) for p in parts()), none)
    ends = np.cumsum(upper)
    position = q * (ends[-1] - 1)

    def order_statistic(rank: int) -> float:
        high = int(np.searchsorted(ends, rank, side="right"))
        before = ends[high] - upper[high]

        def lower(part):
            bits = _ordered(part)
            return np.bincount(bits[bits >> 16 == high] & 0xFFFF, minlength=2**16)

        inside = np.cumsum(sum(lower(p) for p in parts()))
        low = int(np.searchsorted(inside, rank - before, side="right"))
        return _value(high << 16 | low)

    floor, ceiling = int(np.floor(position)), int(np.ceil(position))
    below = order_statistic(floor)
    above = order_statistic(ceiling) if ceiling > floor else below
    return below + (position - floor) * (above - below)


def _ordered(values: np.ndarray) -> np.ndarray:
    """float32 → uint32 of the same order, flat: the sign bit counts the other way round."""
    bits = np.asarray(values, np.float32).ravel().view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value(ordered: int) -> float:
    bits = np.uint32(ordered)
    bits = bits & np.uint32(0x7FFFFFFF) if ordered >> 31 else ~bits
    return float(bits.view(np.float32))
