"""Compiled programs: who shares them, and that a process cannot hold any number."""

import functools
import gc
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Made = TypeVar("Made")

# Lines of this file are ranges of memory that the process has mapped. Linux allows 65,530 of them,
# and XLA's CPU backend ends the process where the next one is refused. JAX holds every program that
# was called, and that of a training takes a thousand: tables and ablations of dozens of trainings
# went beyond it.
_MAPPINGS = Path("/proc/self/maps")
MOST_MAPPINGS = 40_000
KEPT = 32  # things of each kind; the table of all rows has 18 trainings


def shared(make: Callable[..., Made]) -> Callable[..., Made]:
    """Returns `make` such that equal arguments give the same thing, of which the last are kept.

    JAX traces and compiles a function for what it is, not for what it does: two that are made alike
    are two. The seeds of a training, and the parts of a run, so share what they can.

    Args:
      make: takes positional arguments that can be hashed, or mappings and sequences of such. Those
        of different types are never equal.
    """

    @functools.lru_cache(maxsize=KEPT)
    def kept(given: _Given) -> Made:
        return make(*given.arguments)

    @functools.wraps(make)
    def shared_make(*arguments: Any) -> Made:
        return kept(_Given(arguments))

    return shared_make


class _Given:
    """Arguments, which are hashed and compared by their content."""

    def __init__(self, arguments: tuple[Any, ...]):
        self.arguments, self._content = arguments, _content(arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Given) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)


def _content(value: Any) -> Any:
    if isinstance(value, Mapping):
        return frozenset((key, _content(of_key)) for key, of_key in value.items())
    if isinstance(value, list | tuple):
        return type(value), *map(_content, value)
    return type(value), value  # 1, 1.0 and True are equal


def drop_programs(most_mappings: int | None = None) -> None:
    """Makes JAX forget its compiled programs if they have become many.

    Those that are called again are compiled anew, or read from the compilation cache. Does nothing
    where the system has no such limit.

    Args:
      most_mappings: of memory, that the process may have; `MOST_MAPPINGS` if None.
    """
    most = MOST_MAPPINGS if most_mappings is None else most_mappings
    if "jax" not in sys.modules or not _MAPPINGS.exists():
        return
    with _MAPPINGS.open("rb") as lines:
        mappings = sum(1 for _ in lines)
    if mappings > most:
        sys.modules["jax"].clear_caches()
        gc.collect()
