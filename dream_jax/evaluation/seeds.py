"""Mean and standard deviation over the seeds of a run."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dream_jax.errors import UserError


def summarise(results: Mapping[int, Mapping[str, Mapping]]) -> dict:
    """The entries of all rows for all seeds, as metrics.json holds them.

    Args:
        results: {seed: {row: entry}}, an entry as `evaluate.measure` gives it: numbers, or
            mappings of such; the same rows with the same numbers for every seed.

    Returns:
        {"methods": {row: means}, "std": {row: sample standard deviations (ddof = 1)}, "by_seed":
        {seed as text: {row: entry}}}, where means and deviations have the layout of an entry. With
        one seed there is no "std".

    Raises:
        UserError: there is no seed, or the seeds do not have the same rows and numbers.
    """
    if not results:
        raise UserError("seeds: none was measured; at least one is needed")
    by_seed = {
        str(seed): {row: dict(e) for row, e in rows.items()} for seed, rows in results.items()
    }
    runs = list(by_seed.values())
    for seed, rows in by_seed.items():
        _check_same(rows, runs[0], f"seed {seed}")
    summary = {"methods": _over(runs, np.mean)}
    if len(runs) > 1:
        summary["std"] = _over(runs, lambda numbers: np.std(numbers, ddof=1))
    return summary | {"by_seed": by_seed}


def _over(trees: Sequence[Mapping], statistic: Callable) -> dict:
    """`statistic` of the numbers at each place of nested mappings of one shape."""
    return {
        key: _over([tree[key] for tree in trees], statistic)
        if isinstance(first, Mapping)
        else float(statistic([tree[key] for tree in trees]))
        for key, first in trees[0].items()
    }


def _check_same(tree, other, where: str) -> None:
    if isinstance(tree, Mapping) != isinstance(other, Mapping):
        raise UserError(f"{where}: a number and a group of numbers; all seeds need the same")
    if isinstance(tree, Mapping):
        if lone := sorted(set(tree) ^ set(other)):
            raise UserError(f"{where}: {', '.join(lone)}: not in all seeds; all need the same")
        for key in tree:
            _check_same(tree[key], other[key], f"{where}: {key}")
