"""Rivals in processes of their own, which import nothing of ours but what measures memory."""

import contextlib
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from dream_jax import memory


def require(package: str) -> ModuleType:
    """Returns a rival's package; where it is missing, see `check_installed`."""
    check_installed(package)
    return importlib.import_module(package)


def check_installed(*packages: str) -> None:
    """Says how to install a rival's package that is missing, and exits with status 2."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            advice = "pip install -r benchmarks/requirements.txt"
            print(f"{package} is missing: {advice}", file=sys.stderr)
            sys.exit(2)


class InOwnProcess:
    """A contender that runs in a process of its own, as its users run it, from its first call on.

    Two libraries in one process share memory allocator and cores, and the threads of one wait
    actively where the other is to run.

    Args:
      make: "module:function", called there with `arguments`; it returns the contender.
    """

    def __init__(self, make: str, *arguments: Any):
        self._make = make, arguments
        self._pipe: Connection | None = None

    def _ask(self, question: str) -> Any:
        if self._pipe is None:
            self._pipe, there = Pipe()
            number = there.fileno()
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.processes", str(number)], pass_fds=[number]
            )
            there.close()
            self._pipe.send(self._make)
        self._pipe.send(question)
        return self._pipe.recv()

    def __call__(self) -> Any:
        return self._ask("run")

    def peak_mb(self) -> float:
        """Returns the largest resident size of its process, in MB."""
        return self._ask("peak")


def _serve(pipe: Connection) -> None:
    with contextlib.suppress(EOFError):  # the benchmark has ended
        make, arguments = pipe.recv()
        module, _, function = make.partition(":")
        call: Callable[[], Any] = getattr(importlib.import_module(module), function)(*arguments)
        while question := pipe.recv():
            pipe.send(memory.peak_mb() if question == "peak" else call())


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
