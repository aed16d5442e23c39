"""How a program ends: errors and signals as one line, its status, and what it leaves behind."""

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dream_jax import interrupts, lock, system
from dream_jax.errors import UserError

CLOSED_PIPE = 128 + 13  # what a shell shows of a tool that wrote to a pipe without a reader


class Program:
    """The program of this process.

    Attributes:
      workdir: the run's folder, as soon as it is known.
      command: that makes the run; empty where it is called from Python.
      farewell: called last, where there are several processes, with the text that says why the
        program ends, and the status.
      speaks: whether it prints that text; a worker leaves it to the program that started it.
    """

    workdir: Path | None = None
    command: str = ""
    farewell: Callable[[str, int], None] | None = None
    speaks: bool = True


program = Program()


def run(main: Callable[[], None]) -> None:
    """Calls `main`, and ends the process if it does not return.

    The status is 2 for bad input and for what the system refuses, with one line; 128 and the
    number of the signal that ended the program; 1 with a traceback for a fault of the program.
    """
    interrupts.install(_end_by_signal)
    _keep_silent_about_closed_loops()
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except SystemExit:
        interrupts.ignore()  # what follows is the interpreter's own end
        raise
    except BaseException as error:
        interrupts.ignore()
        _end_by_error(error)


def _keep_silent_about_closed_loops() -> None:
    """Does not show what only follows another error.

    When a checkpoint cannot be written, tensorstore reports each of its arrays to a loop that the
    first error has ended already; that one is raised.
    """
    shown = sys.unraisablehook

    def hook(caught: Any) -> None:
        if str(caught.exc_value) != "Event loop is closed":
            shown(caught)

    sys.unraisablehook = hook


def _end_by_error(error: BaseException) -> None:
    reason, status = interrupts.status()
    if status or isinstance(error, interrupts.Interrupted):
        _end_by_signal(reason or str(error), status or 128 + signal.SIGTERM)
    line = str(error) if isinstance(error, UserError) else system.explain(error, program.workdir)
    if isinstance(error, KeyboardInterrupt):
        _end_by_signal(*interrupts.reason_of(signal.SIGINT))
    elif isinstance(error, BrokenPipeError) and _nobody_reads():
        end("", CLOSED_PIPE)
    elif line is not None:
        end(f"error: {' '.join(line.split())}", 2)
    end("".join(traceback.format_exception(error)).rstrip(), 1)


def _end_by_signal(reason: str, status: int) -> None:
    where = f" in {program.workdir}" if program.workdir else ""
    end(f"stopped by {reason}: what is done is kept{where}; the same command continues", status)


def end(text: str, status: int) -> None:
    """Prints the last line and ends this process now, with its helpers, and its lock given back.

    An ordinary exit would wait for threads, which may have hours of work before them.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        if text and program.speaks:
            print(text, file=sys.stderr, flush=True)
    lock.release_all()
    if program.farewell is not None:
        program.farewell(text or "a closed pipe", status)
    for helper in multiprocessing.active_children():
        helper.kill()
    os._exit(status)


def _nobody_reads() -> bool:
    """Whether the reader of standard output or error has gone."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
