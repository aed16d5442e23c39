"""Compiled programs, of which a process cannot hold any number."""

import gc
import sys
from pathlib import Path

# Lines of this file are ranges of memory that the process has mapped. Linux allows 65,530 of them,
# and XLA's CPU backend ends the process where the next one is refused. JAX holds every program that
# was called, and that of a training takes a thousand: tables and ablations of dozens of trainings
# went beyond it.
_MAPPINGS = Path("/proc/self/maps")
MOST_MAPPINGS = 16_000


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
