"""What the launch programs share: flags, and the way from them to a run."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from dream_jax import config_file, ending, lock, starting
from dream_jax.command import command_of
from dream_jax.config_tree import run_name
from dream_jax.errors import UserError
from dream_jax.workers import worker

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file with get_config().")
flags.FLAGS["config"].parser = config_file.Parser("config")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/<config.name> if not set.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, 'Where process 0 of several listens, host:port; "auto" lets JAX find it.'
)
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")


def define_workers() -> flags.FlagHolder[int]:
    """Defines the flag of programs whose stages several processes can share."""
    return flags.DEFINE_integer(
        "workers",
        1,
        "Processes of this machine that share the trainings and evaluations, each on an equal part "
        "of its devices.",
    )


def _workdir(config: ConfigDict) -> Path:
    name = run_name(config)
    try:
        return Path(_WORKDIR.value or Path("runs") / name).expanduser()
    except RuntimeError as error:
        raise UserError(f"--workdir is {_WORKDIR.value!r}; {error}".rstrip(".")) from error


def _connect(starts_workers: bool) -> None:
    """Makes JAX and the processes ready."""
    if worker.is_worker():
        worker.begin()
    from dream_jax import environment  # JAX is not needed for --help

    environment.prepare()
    from dream_jax.training import hosts

    hosts.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value)
    environment.check_devices(reserve=worker.is_worker() or not starts_workers)
    if hosts.count() > 1:
        ending.program.farewell = hosts.leave
        if not hosts.is_main():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 until the end; process 0 speaks


def _lock(workdir: Path) -> AbstractContextManager[None]:
    """Locks the run's folder; of several processes, process 0 or what started them does it."""
    from dream_jax.training import hosts

    if not hosts.is_main() or worker.is_worker():
        return nullcontext()
    return lock.hold(workdir, lambda line: ending.end(f"error: {line}", 2))


def main(
    run: Callable[[ConfigDict, Path], None], workers: flags.FlagHolder[int] | None = None
) -> None:
    """Parses the flags and calls `run(config, workdir)`; see `ending.run` for how it ends.

    Args:
      workers: the flag of `define_workers`, where the program has it.
    """

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            raise UserError(
                f"unexpected argument {argv[1]!r}; settings are --config.<field>=<value>"
            )
        config = _CONFIG.value
        workdir = _workdir(config)
        _connect(workers is not None and workers.value > 1)
        ending.program.workdir, ending.program.command = workdir, command_of(sys.argv)
        with _lock(workdir):
            run(config, workdir)

    flags.mark_flag_as_required("config")
    starting.start(guarded)
