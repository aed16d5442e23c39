"""The process of a worker: the same program with the same flags, which makes what it is told to.

It is told by lines of JSON on its standard input: first {"rows": [keys]}, then {"stage": name},
one after the other. It answers by lines of JSON on a pipe of its own: {"said": text} for what it
prints, {"done": name}, and {"end": text, "status": number} where it ends by an error or a signal.

The end of its input is the end of its work. If it comes while a stage is made, the program that
started the worker has died without a word, and the worker ends at once, as it would by SIGKILL:
another program may take over the run's folder.
"""

import io
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

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


def told() -> Iterator[dict[str, Any]]:
    """Yields what the worker is told, one thing after the other; each is done before the next."""
    lines: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()

    def read() -> None:
        for line in sys.stdin:
            busy.set()
            lines.put(line)
        if busy.is_set():
            os._exit(1)
        lines.put(None)

    threading.Thread(target=read, daemon=True, name="told").start()
    for line in iter(lines.get, None):
        message = json.loads(line)
        yield message
        busy.clear()
        if "stage" in message:
            _say(done=message["stage"])


def _say(**message: Any) -> None:
    answers = json.loads(os.environ[VARIABLE])["answers"]
    with suppress(BrokenPipeError), open(answers, "w", closefd=False) as pipe:
        pipe.write(json.dumps(message) + "\n")
