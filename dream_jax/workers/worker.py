"""The process of a worker: the same program with the same flags, which makes what it is told to.

It is told by lines of JSON on its standard input: first {"about": anything}, then {"run": folder,
"stage": name} again and again. It answers by lines of JSON on a pipe of its own: {"said": text} for
what it prints, {"done": name} or {"failed": line} for each stage, and {"end": text} with a "status"
where the process ends by a signal or a fault.

The end of its input is the end of its work. If it comes while a stage is made, the program that
started the worker has died without a word, and the worker ends at once, as it would by SIGKILL:
another program may take over the run's folder.
"""

from __future__ import annotations

import io
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_jax.errors import UserError

if TYPE_CHECKING:
    from dream_jax.run import Run

VARIABLE = "DREAM_JAX_WORKER"  # {"answers": file descriptor, "cores": [...]}


def is_worker() -> bool:
    """Returns whether this process is a worker."""
    return VARIABLE in os.environ


def begin() -> None:
    """Takes this process's cores, and lets its end be told; to be called before JAX is imported."""
    from dream_jax import ending

    given = json.loads(os.environ[VARIABLE])
    if given["cores"]:
        os.sched_setaffinity(0, given["cores"])
    ending.program.farewell = lambda text, status: _say(end=text, status=status)
    ending.program.speaks = False
    sys.stdout = _Said()


class _Said(io.TextIOBase):
    """Standard output, told in one order with the rest."""

    def write(self, text: str) -> int:
        _say(said=text)
        return len(text)


def serve(runs: Callable[[Any], Mapping[Path, Run]], make: Callable[[Run, str], None]) -> None:
    """Makes stages until there are no more.

    Args:
      runs: returns the runs by their folders; it is given what the worker is told first.
      make: makes a stage of a run. UserError is told, and does not end the worker.
    """
    lines = _listen()
    known: Mapping[Path, Run] = {}
    while (line := lines.get()) is not None:
        message, answer = json.loads(line), {}
        if "about" in message:
            with redirect_stdout(io.StringIO()):  # the program that started this one has said it
                known = runs(message["about"])
        else:
            try:
                make(known[Path(message["run"])], message["stage"])
                answer = {"done": message["stage"]}
            except UserError as error:
                answer = {"failed": str(error)}
        lines.task_done()
        if answer:
            _say(**answer)


def _listen() -> queue.Queue[str | None]:
    """Returns what the worker is told, as it comes; None at the end."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        if lines.unfinished_tasks:
            os._exit(1)
        lines.put(None)

    threading.Thread(target=read, daemon=True, name="told").start()
    return lines


def _say(**message: Any) -> None:
    answers = json.loads(os.environ[VARIABLE])["answers"]
    with suppress(BrokenPipeError), open(answers, "w", closefd=False) as pipe:
        pipe.write(json.dumps(message) + "\n")
