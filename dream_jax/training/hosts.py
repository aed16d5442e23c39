"""Several processes, as a rule one per host: which one this is, and what they tell each other.

All processes run the same program on the same settings and share the run's folder. Each computes
its part on its own devices; process 0, the main one, writes the files of which a run has one. A
process that ends before its time tells the others, which end with it; they find out that one was
killed within `SILENCE` seconds. With one process nothing here communicates or waits.
"""

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
import numpy as np

from dream_jax import interrupts
from dream_jax.errors import UserError

SILENCE = 60  # seconds without a sign of life after which a process is held to be dead
# What one process does alone may take long, and one that died is found out by its silence.
_LONGEST_WAIT = 7 * 24 * 3600
_waits = itertools.count()  # equal in all processes, as they wait for each other in one order


def initialize(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Connects the processes, where the arguments or the environment ask for several.

    To be called before JAX makes its first array. What is None is taken from the variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. If all three remain unset, JAX
    finds them itself in a Slurm or Open MPI job of several tasks, and on a TPU pod that lists its
    workers in TPU_WORKER_HOSTNAMES; the coordinator "auto" makes it look for them anywhere.

    Args:
      coordinator: "host:port" of process 0, which listens there.
      processes: how many there are.
      process_id: the number of this one, from 0.

    Raises:
      UserError: some of the three are missing or out of range, the processes do not find each
        other, or they have unequal numbers of devices.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    processes = _from_environment(processes, "JAX_NUM_PROCESSES")
    process_id = _from_environment(process_id, "JAX_PROCESS_ID")
    found = coordinator == "auto" or _job_of_several_tasks()
    if processes is None and process_id is None and found:
        settings: dict[str, Any] = {"coordinator_address": coordinator}
        if coordinator == "auto":
            settings = {}
    elif coordinator is None and processes is None and process_id is None:
        return
    else:
        _check(coordinator, processes, process_id)
        if processes == 1:
            return
        settings = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process_id,
            "cluster_detection_method": "deactivate",
        }
    # A signal must not be left to JAX, which would only note it.
    jax.config.update("jax_enable_preemption_service", False)
    where = coordinator or "not set"
    try:
        with _deadline(f"--coordinator is {where}", processes):
            jax.distributed.initialize(
                **settings,
                initialization_timeout=2 * SILENCE,
                heartbeat_timeout_seconds=SILENCE,
            )
    except Exception as error:  # JAX, gRPC and the system raise many kinds
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"--coordinator is {where}; the processes could not be connected "
            f"({type(error).__name__}: {reason})"
        ) from error
    if jax.device_count() != count() * jax.local_device_count():
        raise UserError(
            f"--processes: {count()} processes have {jax.device_count()} devices together, this "
            f"one has {jax.local_device_count()}; each must have the same number"
        )
    threading.Thread(target=_listen, daemon=True, name="other processes").start()


@contextmanager
def _deadline(asked: str, processes: int | None) -> Iterator[None]:
    """Ends this process if a block takes longer than `SILENCE`; says meanwhile what it waits for.

    JAX would wait in silence, and then abort the process from compiled code.
    """
    done = threading.Event()

    def watch() -> None:
        for passed in range(10, SILENCE, 10):
            if done.wait(10):
                return
            print(f"{asked}: waiting for all processes, {passed} of {SILENCE} s", file=sys.stderr)
        if not done.wait(10):
            print(
                f"error: {asked}; not all {processes or ''} processes were there within {SILENCE} "
                f"s: process 0 must run at that address, and each --process_id once",
                file=sys.stderr,
                flush=True,
            )
            os._exit(2)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


_ENDED, _GONE = "dream_jax/ended", "dream_jax/gone"
# Seconds that process 0 waits for the others to end; clusters kill 30 s after they asked.
_FAREWELL = 20


def _client() -> Any:
    from jax._src import distributed  # JAX has no public way to the store that processes share

    return distributed.global_state.client


def _listen() -> None:
    """Ends this process soon after another one has said that it ends."""
    while (client := _client()) is not None:
        with suppress(Exception):  # there is no such entry yet
            reason, status = json.loads(client.key_value_try_get(_ENDED))
            interrupts.ask(reason, status)
            return
        time.sleep(1)


def leave(text: str, status: int) -> None:
    """Tells the other processes that this one ends; process 0 waits for them for a moment.

    Without it, which holds what they share, they could not end in order.

    Args:
      text: says why; they tell its last line.
    """
    reason = text.splitlines()[-1]
    with suppress(Exception):  # one of them has told all before, or process 0 has been killed
        _client().key_value_set(_ENDED, json.dumps([f"process {index()} ({reason})", status]))
    with suppress(Exception):
        _client().key_value_set(f"{_GONE}/{index()}", "")
    for _ in range(10 * _FAREWELL if is_main() else 0):
        with suppress(Exception):
            if len(_client().key_value_dir_get(_GONE)) == count():
                break
        time.sleep(0.1)


def any_of(value: bool) -> bool:
    """Returns whether it is true in any process; all must ask together."""
    return bool(np.any(gather(np.array([value]), count())))


def _from_environment(value: int | None, name: str) -> int | None:
    text = os.environ.get(name)
    if value is not None or not text:
        return value
    if not text.isdecimal():
        raise UserError(f"{name} is {text!r}; it must be a whole number")
    return int(text)


def _check(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Raises UserError unless the three describe one of several processes."""
    given = {"--coordinator": coordinator, "--processes": processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if coordinator is None or processes is None or process_id is None:
        raise UserError(
            f"{', '.join(missing)}: not given; several processes need all of {', '.join(given)}"
        )
    if processes < 1 or not 0 <= process_id < processes:
        raise UserError(
            f"--process_id is {process_id} and --processes is {processes}; processes are numbered "
            f"from 0 to one less than --processes"
        )
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"--coordinator is {coordinator!r}; it must be host:port of process 0")


def _job_of_several_tasks() -> bool:
    """Whether this is a task of a job that JAX knows how to connect."""
    env = os.environ
    slurm = {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"} <= env.keys()
    mpi = "OMPI_MCA_orte_hnp_uri" in env
    workers = env.get("TPU_WORKER_HOSTNAMES") or env.get("TPU_PROCESS_ADDRESSES") or ""
    return (
        (slurm and int(env.get("SLURM_NTASKS", 1)) > 1)
        or (mpi and int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1)
        or len(workers.split(",")) > 1
    )


def count() -> int:
    """The number of processes."""
    return jax.process_count()


def index() -> int:
    """The number of this process, from 0."""
    return jax.process_index()


def is_main() -> bool:
    """Whether this is process 0, which writes what a run has one of."""
    return index() == 0


def barrier(name: str) -> None:
    """Waits until all processes are here. They must come to their barriers in the same order."""
    if count() > 1:
        from orbax.checkpoint import multihost  # not needed, and slow to import, for one process

        # Not by a computation on the devices, whose communication has time limits of its own.
        unique = f"{name} {next(_waits)}"
        multihost.sync_global_processes(unique, timeout=_LONGEST_WAIT)


def share_of(total: int, processes: int | None = None, process: int | None = None) -> slice:
    """The contiguous part of `total` rows that a process, this one if not given, works on.

    All parts have the same size, but for the last, which may be smaller, and those behind it,
    which are empty.
    """
    size = share_size(total, processes)
    start = size * (index() if process is None else process)
    return slice(min(start, total), min(start + size, total))


def share_size(total: int, processes: int | None = None) -> int:
    """The size of the largest share: `total` over the number of processes, rounded up."""
    return -(-total // (processes or count()))


def gather(part: np.ndarray, total: int) -> np.ndarray:
    """The rows of all processes in order: each gives those of its `share_of(total)`.

    Every process gets all of them, and holds them for a moment on each of its devices.
    """
    if count() == 1:
        return part
    from jax.experimental import multihost_utils

    padded = np.zeros((share_size(total), *part.shape[1:]), part.dtype)
    padded[: len(part)] = part
    barrier("gather")
    return multihost_utils.process_allgather(padded, tiled=True)[:total]


def from_main(function: Callable[[], Any]) -> Any:
    """What `function()` returns in process 0, which alone calls it: a value that JSON can hold.

    For decisions that all processes must take alike, such as what is done already: they could see
    the files at different times.
    """
    if count() == 1:
        return function()
    from jax.experimental import multihost_utils

    text = json.dumps(function()).encode() if is_main() else b""
    barrier("from main")
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    message = np.frombuffer(text, np.uint8) if is_main() else np.zeros(length, np.uint8)
    return json.loads(multihost_utils.broadcast_one_to_all(message).tobytes())


def check_same(value: Any, name: str) -> None:
    """Compares a value that JSON can hold with process 0's.

    Raises:
      UserError: in all processes, unless it is the same in all.
    """
    own, main = json.dumps(value), from_main(lambda: json.dumps(value))
    differs = np.flatnonzero(gather(np.array([own != main]), count()))
    if len(differs):
        raise UserError(
            f"{name}: those of process {differs[0]} are not those of process 0; start all "
            f"processes with the same ones"
        )
