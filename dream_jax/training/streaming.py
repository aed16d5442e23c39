"""Batches made ahead by worker processes, with Grain."""

import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

from dream_jax.errors import UserError

# Threads that make batches where there are no worker processes; each batch is decoded by threads.
THREADS = 2


def stream(make: Callable[[int], Any], steps: range, workers: int) -> Generator[Any, None, None]:
    """Yields `make(step)` of one step after the other, made ahead of their use.

    The order and the batches do not depend on the number of workers. A worker makes whole batches
    and has at most two in memory.

    Args:
      make: a pure function of the step, which is sent to the workers. What it returns is arrays.
      workers: processes; 0 for threads of this one.
    """
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain's workers read flags; no program parsed any
        flags.FLAGS.mark_as_parsed()
    data = grain.MapDataset.range(steps.start, steps.stop, steps.step).map(_Guarded(make))
    threads = 1 if workers else THREADS
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    data = data.to_iter_dataset(reading)
    if workers:
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
        data = data.mp_prefetch(options)
    with closing(iter(data)) as batches:
        yield from batches


class _Guarded:
    """`make`, whose errors are such that they can be sent from process to process.

    For one that cannot, Grain would wait forever.
    """

    def __init__(self, make: Callable[[int], Any]):
        self._make = make

    def __call__(self, step: int) -> Any:
        try:
            return self._make(step)
        except UserError:
            raise
        except Exception as error:
            raise RuntimeError(f"step {step}: {traceback.format_exc()}") from error
