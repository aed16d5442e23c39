"""A paired bootstrap over test images: which differences between rows of a table are not noise.

Each resample draws the ID test images and the images of each OOD set with replacement. All rows and
seeds see the same draw, so what an easy or a hard draw does to all of them cancels in their
differences (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13). The
seeds of the training are held fixed: their spread is the standard deviation of `seeds.summarise`.
"""

import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from dream_jax.errors import UserError

METRICS = ("fpr95", "auroc")
# Resamples at once; fewer where a set is so large that their counts would be more than CELLS. So
# the memory is that of a few arrays of CELLS numbers, whatever the number of images.
BLOCK, CELLS = 250, 2_500_000


def paired_bootstrap(
    scores: Mapping[int, Mapping[str, Mapping[str, np.ndarray]]],
    ood: Sequence[str],
    groups: Mapping[str, Sequence[str]] = MappingProxyType({}),
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict:
    """Percentile intervals of each row's FPR95 and AUROC, and of each pair's difference.

    Args:
        scores: {seed of a run: {row: {set: (n,) scores}}}, higher is more ID, among the sets "id"
            and all of `ood`; the images of a set are the same, in the same order, everywhere.
        ood: names of the OOD sets; their unweighted mean is measured as "mean".
        groups: {name: some of `ood`}, whose means are measured by these names.
        resamples: number of draws.
        level: share of the resamples that an interval covers.
        seed: of the draws. A set's draws depend on it and on the set's name and size alone.

    Returns:
        {"resamples", "level", "seed", "rows": {metric: {set: {row: [value, low, high]}}},
        "differences": {metric: {set: {row: {later row: [difference, low, high]}}}}}, ready for
        JSON. A value is the mean over runs on the images as they are; a difference is the row's
        value less the later row's (`difference` reads it either way).

    Raises:
        UserError: rows or numbers of scores differ between runs, a score is not finite, or there
            is nothing to resample.
    """
    if resamples < 1 or not 0 < level < 1:
        raise UserError(
            f"bootstrap: {resamples} resamples at level {level}; allowed are 1 or more, and a level"
            " between 0 and 1"
        )
    if not ood:
        raise UserError("bootstrap: no OOD set was measured; at least one is needed")
    sizes = _sizes(scores, ood)
    rows = list(next(iter(scores.values())))

    means = {**groups, "mean": ood}
    once = {name: np.ones((n, 1), int) for name, n in sizes.items()}
    observed = _measured(scores, ood, means, rows, once)
    draws = {name: np.random.default_rng([seed, zlib.crc32(name.encode())]) for name in sizes}
    blocks = []
    at_once = max(1, min(BLOCK, CELLS // max(sizes.values())))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        counts = {
            name: np.ascontiguousarray(rng.multinomial(n, np.full(n, 1 / n), count).T)
            for (name, n), rng in zip(sizes.items(), draws.values(), strict=True)
        }
        blocks.append(_measured(scores, ood, means, rows, counts))
    drawn = np.concatenate(blocks, axis=-1)

    ends = [(1 - level) / 2, (1 + level) / 2]
    of_metric: dict[str, dict] = {"rows": {}, "differences": {}}
    result = {"resamples": resamples, "level": level, "seed": seed, **of_metric}
    for m, metric in enumerate(METRICS):
        of_rows: dict[str, dict] = of_metric["rows"].setdefault(metric, {})
        of_pairs: dict[str, dict] = of_metric["differences"].setdefault(metric, {})
        for s, name in enumerate([*ood, *means]):
            value, sample = observed[m, s, :, 0], drawn[m, s]
            of_rows[name] = dict(zip(rows, _intervals(value, sample, ends), strict=True))
            of_pairs[name] = {
                row: dict(
                    zip(
                        rows[i + 1 :],
                        _intervals(value[i] - value[i + 1 :], sample[i] - sample[i + 1 :], ends),
                        strict=True,
                    )
                )
                for i, row in enumerate(rows[:-1])
            }
    return result


def difference(
    bootstrap: Mapping, metric: str, name: str, row: str, other: str
) -> tuple[float, float, float]:
    """(difference, low, high) of `row` less `other` on the set `name`, from `paired_bootstrap`."""
    pairs = bootstrap["differences"][metric][name]
    if other in pairs.get(row, {}):
        return tuple(pairs[row][other])
    value, low, high = pairs[other][row]
    return -value, -high, -low


class IdResamples(NamedTuple):
    """Resamples of the ID images, measured against any OOD set as `metrics.ood_metrics` does.

    Attributes:
      values: (v,) the different ID scores, ascending.
      dropped: (v + 1, b) how many drawn ID images lie below each value, and at last how many
        there are.
      threshold: (b,) the score from which on an image is taken for ID.
    """

    values: np.ndarray
    dropped: np.ndarray
    threshold: np.ndarray

    @classmethod
    def of(cls, scores, counts) -> "IdResamples":
        """From (n,) finite scores, higher is more ID, and (n, b) whole numbers.

        Args:
          counts: how often each of b resamples has each image; the sums over images are the same in
            all of them, and at least 1.
        """
        order = np.argsort(scores)
        # In float64, where the number after a score of lower precision is below any other score.
        values, starts = np.unique(np.asarray(scores, np.float64)[order], return_index=True)
        drawn = counts[order]
        if values.size < drawn.shape[0]:
            drawn = np.add.reduceat(drawn, starts, axis=0)
        dropped = np.zeros((values.size + 1, drawn.shape[1]), drawn.dtype)
        np.cumsum(drawn, axis=0, out=dropped[1:])
        n = dropped[-1, 0]

        # Of the numbers of kept ID images that some threshold has, the nearest to 95 % is the
        # largest one up to `most`, or the next above it.
        most = np.searchsorted(np.arange(n + 1) / n, 0.95, "right") - 1
        columns = np.arange(drawn.shape[1])
        few = np.sum(dropped[1:] < n - most, axis=0)  # whose images must go to keep no more
        fewer_kept = n - dropped[few + 1, columns]
        spared = dropped[few, columns]  # dropped by the next higher number kept
        many = np.sum(dropped[1:] < spared, axis=0)
        nearer = np.abs((n - spared) / n - 0.95) <= np.abs(fewer_kept / n - 0.95)
        # The lowest threshold is just above the last image that goes; where every ID image is
        # kept, it is the lowest ID score itself.
        last = values[np.where(nearer, many, few)]
        all_kept = nearer & (spared == 0)
        return cls(values, dropped, np.where(all_kept, values[few], np.nextafter(last, np.inf)))

    def against(self, scores, counts) -> np.ndarray:
        """(2, b): FPR95 and AUROC against (m,) OOD scores, drawn (m, b) times."""
        order = np.argsort(scores)
        ascending, drawn = np.asarray(scores)[order], counts[order]
        below = np.zeros((ascending.size + 1, drawn.shape[1]), drawn.dtype)
        np.cumsum(drawn, axis=0, out=below[1:])
        n, m = self.dropped[-1, 0], below[-1, 0]

        # Twice the pairs that an OOD image wins; a tie counts half.
        left, right = (np.searchsorted(self.values, ascending, side) for side in ("left", "right"))
        lost = np.einsum("ob,ob->b", drawn, self.dropped[left] + self.dropped[right])
        auroc = (2 * n * m - lost) / (2 * n * m)

        rejected = below[np.searchsorted(ascending, self.threshold), np.arange(drawn.shape[1])]
        return np.stack([(m - rejected) / m, auroc])


def _measured(scores, ood, means, rows, counts) -> np.ndarray:
    """(metrics, sets and then means over sets, rows, resamples), the mean over runs."""
    resamples = counts["id"].shape[1]
    total = np.zeros((len(METRICS), len(ood) + len(means), len(rows), resamples))
    for by_row in scores.values():
        for r, row in enumerate(rows):
            own = IdResamples.of(by_row[row]["id"], counts["id"])
            for s, name in enumerate(ood):
                total[:, s, r] += own.against(by_row[row][name], counts[name])
    for m, names in enumerate(means.values(), start=len(ood)):
        total[:, m] = total[:, [ood.index(name) for name in names]].mean(axis=1)
    return total / len(scores)


def _intervals(values, samples, ends) -> list[list[float]]:
    """[value, low, high] of each of (k,) values, from (k, resamples), to six decimals."""
    bounds = np.quantile(samples, ends, axis=-1).reshape(2, -1)
    # Adding zero turns -0.0 into 0.0.
    return (np.stack([values, *bounds], axis=-1).round(6) + 0.0).tolist()


def _sizes(scores, ood) -> dict[str, int]:
    """The number of images of "id" and of each OOD set, found the same everywhere."""
    if not scores:
        raise UserError("bootstrap: there are no scores; those of one seed at least are needed")
    first = next(iter(scores.values()))
    sizes: dict[str, int] = {}
    for run, by_row in scores.items():
        if set(by_row) != set(first):
            lone = ", ".join(sorted(set(by_row) ^ set(first)))
            raise UserError(
                f"bootstrap: seed {run}: all seeds need the same rows; unpaired: {lone}"
            )
        for row, of in by_row.items():
            for name in ("id", *ood):
                where = f"bootstrap: seed {run}: {row}: {name}"
                if name not in of:
                    raise UserError(f"{where}: no scores; every row needs those of every set")
                found = np.asarray(of[name])
                if found.ndim != 1 or not found.size or not np.isfinite(found).all():
                    raise UserError(
                        f"{where}: scores of shape {found.shape}; allowed are (n,) finite numbers"
                    )
                if sizes.setdefault(name, found.size) != found.size:
                    raise UserError(f"{where}: {found.size} scores; other rows have {sizes[name]}")
    return sizes
