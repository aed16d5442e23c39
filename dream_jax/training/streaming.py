"""Batches made ahead by worker processes, with Grain."""

import math
import multiprocessing
import os
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax import interrupts
from dream_jax.errors import UserError

# Threads that make batches where there are no worker processes; each batch is decoded by threads.
THREADS = 2
# Batches in shared memory: of each worker the one that it makes, one in its queue and one that was
# taken out ahead; and those of the call that is being put together.
WAITING_PER_WORKER, WAITING_HERE = 3, 10


def stream(make: Callable[[int], Any], steps: range, workers: int) -> Generator[Any, None, None]:
    """Yields `make(step)` of one step after the other, made ahead of their use.

    The order and the batches do not depend on the number of workers. A worker makes whole batches
    and has at most two in memory.

    Args:
      make: a pure function of the step, which is sent to the workers. What it returns is arrays.
      workers: processes; 0 for threads of this one.

    Raises:
      UserError: the memory that is shared with the workers is too small.
    """
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain's workers read flags; no program parsed any
        flags.FLAGS.mark_as_parsed()
    data = grain.MapDataset.range(steps.start, steps.stop, steps.step).map(_Guarded(make))
    threads = 1 if workers else THREADS
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    data = data.to_iter_dataset(reading)
    if not workers:
        with closing(iter(data)) as batches:
            yield from batches
        return
    check_shared_memory(_Guarded(make)(steps.start), workers)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    data = data.mp_prefetch(options, worker_init_fn=_end_with_parent)
    mask = interrupts.keep_from_thread()
    try:
        with closing(iter(data)) as batches:
            yield from batches
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def check_shared_memory(batch: Any, workers: int, folder: Path = Path("/dev/shm")) -> None:
    """Checks that the batches on their way from the workers fit into the memory they share.

    A worker that finds it full is killed by a bus error, and cannot say why.

    Args:
      batch: one batch, a dict of arrays.
      folder: where the system keeps shared memory, if it has one.

    Raises:
      UserError: it is too small.
    """
    if not folder.is_dir():
        return
    size = sum(np.asarray(column).nbytes for column in batch.values())
    needed = size * (WAITING_PER_WORKER * workers + WAITING_HERE)
    free = shutil.disk_usage(folder).free
    if needed > free:
        fit = max(0, math.floor((free / size - WAITING_HERE) / WAITING_PER_WORKER))
        raise UserError(
            f"config.data.workers is {workers}; their batches of {size / 2**20:.1f} MiB need "
            f"{needed / 2**20:.0f} MiB in {folder}, where {free / 2**20:.0f} MiB are free: set it "
            f"to at most {fit} (0 reads by threads), or make {folder} larger (docker --shm-size)"
        )


def _end_with_parent(worker: int, workers: int) -> None:
    """Ends a worker when its parent has been killed; by itself it would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
