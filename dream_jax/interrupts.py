"""Signals that end a program, SIGTERM and SIGINT (ctrl-C), by one mechanism.

The first signal raises `Interrupted` in the main thread, or waits there until a block that must not
be cut short has looked at `requested()`. The main thread cannot act while it is in compiled code,
such as a compilation; so a thread that Python's signal handling writes to ends the process `GRACE`
seconds later, whatever the main thread does. A second signal ends it at once.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Kubernetes and Slurm kill a process 30 seconds after they have asked it to end.
GRACE = 25
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """The program was asked to end. No `except Exception` catches it."""


class _State:
    reason = ""  # why the program ends; empty while it does not
    status = 0  # with which it then ends
    held = 0  # blocks that must not be cut short
    others: tuple[str, int] | None = None  # reason and status of another process of the run


_state = _State()


def install(end: Callable[[str, int], None]) -> None:
    """Begins to listen; called once, by the main thread.

    Args:
      end: called with the reason and the status, in another thread, when the main thread has not
        ended in time. It ends the process.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in SIGNALS:
        signal.signal(number, _handle)
    shown = sys.unraisablehook

    def hook(caught: Any) -> None:
        """Is silent where a callback of a library swallows it: the thread ends the process."""
        if not isinstance(caught.exc_value, Interrupted):
            shown(caught)

    sys.unraisablehook = hook
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, end), daemon=True, name="signals").start()


def _handle(number: int, frame: object) -> None:
    if _state.reason:
        return  # the thread ends the process
    _state.reason, _state.status = _state.others or reason_of(number)
    if not _state.held:
        raise Interrupted(_state.reason)


def reason_of(number: int) -> tuple[str, int]:
    """Returns what a signal is called, and the status of a program that it ended."""
    name = signal.Signals(number).name
    return f"{name} (ctrl-C)" if number == signal.SIGINT else name, 128 + number


def _watch(reading: int, end: Callable[[str, int], None]) -> None:
    """Waits for a signal, then for the next one or the end of the time that is left."""
    while (first := os.read(reading, 1)[0]) not in SIGNALS:
        pass
    while select.select([reading], [], [], GRACE)[0]:
        if os.read(reading, 1)[0] in SIGNALS:
            break
    end(*(_state.others or reason_of(first)))


def ask(reason: str, status: int) -> None:
    """Ends this process as a signal would, because another one of the run has ended."""
    if not _state.reason:
        _state.others = reason, status
        os.kill(os.getpid(), signal.SIGTERM)


def ignore() -> None:
    """Lets no signal cut short what ends the program; one still ends it after `GRACE` seconds."""
    _state.held += 1


def requested() -> bool:
    """Returns whether the program was asked to end."""
    return bool(_state.reason)


def status() -> tuple[str, int]:
    """Returns why the program was asked to end, and the status to end with."""
    return _state.reason, _state.status


@contextmanager
def held() -> Iterator[None]:
    """Lets a block finish before a signal takes effect; it can look at `requested()` by itself."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    if _state.reason and not _state.held:
        raise Interrupted(_state.reason)


def keep_from_thread() -> set[int]:
    """Keeps the signals from this thread, and so from the processes that it starts.

    Ctrl-C and job managers send them to all processes of a program; the one with the main thread
    ends the others. Returns the mask before, for `signal.pthread_sigmask(SIG_SETMASK, ...)`.
    """
    return set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)))
