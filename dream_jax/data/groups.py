"""The groups of OOD sets: those near to the ID classes, those far from them, and others.

Benchmarks such as OpenOOD report the means of near and of far sets, for the two are unlike tasks.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from dream_jax.data.registry import set_title
from dream_jax.settings import DataSettings

GROUPS = ("ood", "near", "far")  # fields of `data`, in the order of tables


def ood_names(data: DataSettings) -> tuple[str, ...]:
    """Returns the names of all OOD sets to test on, group after group."""
    return tuple(name for group in GROUPS for name in getattr(data, group))


def on_tuning_sets(data: DataSettings) -> DataSettings:
    """Returns the settings of a run that is measured on the sets to tune on, and on no others."""
    return replace(data, ood=data.tuning, near=(), far=(), shifted=(), full_spectrum=False)


def groups_of(data: DataSettings, measured: Collection[str]) -> dict[str, list[str]]:
    """Returns group → the titles of its sets that were measured.

    A configuration without `data.near` and `data.far` has no groups, and one whose sets were not
    measured is left out.
    """
    found = {group: _titles(getattr(data, group), measured) for group in GROUPS}
    if not data.near and not data.far:
        return {}
    return {group: titles for group, titles in found.items() if titles}


def _titles(names: Sequence[str], measured: Collection[str]) -> list[str]:
    return [title for title in map(set_title, names) if title in measured]
