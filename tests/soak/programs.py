"""The programs that the soak test starts: what they print as it comes, and how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRESS = re.compile(r"\d+%\||\[\d\d:\d\d")  # what tqdm writes
PATIENCE = 180.0  # seconds in which a program ends, or prints something new


@dataclass(frozen=True)
class Ending:
    """How a program ended.

    Attributes:
      status: its exit status; negative for a signal, None where it had to be killed.
      printed: lines of its standard output.
      errors: lines of its standard error, without progress bars and empty ones.
      seconds: that it took.
      orphans: whether it left processes behind.
    """

    status: int | None
    printed: list[str]
    errors: list[str]
    seconds: float
    orphans: bool

    @property
    def wrong(self) -> str:
        """What is never right, whatever the program was asked to do; empty if nothing."""
        if self.status is None:
            return f"hangs; last lines: {(self.printed + self.errors)[-2:]}"
        if self.orphans:
            return "left processes behind"
        if any("Traceback" in line for line in self.errors):
            return f"a traceback, which ends with {self.errors[-1]!r}"
        return ""

    @property
    def refusal(self) -> str:
        """The line of a program that ended with status 2 and one line; empty otherwise."""
        one = len(self.errors) == 1 and self.errors[0].startswith("error: ")
        return self.errors[0] if self.status == 2 and one and not self.wrong else ""

    def __str__(self) -> str:
        wrong = self.wrong or f"{len(self.errors)} lines of errors"
        return f"status {self.status}, {wrong}: {' / '.join(self.errors[-3:])[:600]}"


class Program:
    """A process with a group of its own, and threads that read what it prints."""

    running: ClassVar[set[Program]] = set()

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path):
        self._begin = time.monotonic()
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        Program.running.add(self)
        self.printed: list[str] = []
        self._errors: list[str] = []
        streams = (self._process.stdout, self.printed), (self._process.stderr, self._errors)
        self._readers = [
            threading.Thread(target=_read, args=(*stream, self), daemon=True) for stream in streams
        ]
        self.heard = self._begin
        for reader in self._readers:
            reader.start()

    def wait(self, reached: Callable[[list[str]], bool]) -> bool:
        """Waits until the output is as wanted; returns whether that came before the end."""
        while not reached(self.printed):
            if self._process.poll() is not None or self.silent > PATIENCE:
                return False
            time.sleep(0.003)
        return True

    def sleep(self, seconds: float) -> bool:
        """Sleeps at most so long; returns whether the program still runs."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is None

    @property
    def silent(self) -> float:
        """Seconds since it last printed something, also a progress bar."""
        return time.monotonic() - self.heard

    def signal(self, kind: signal.Signals) -> None:
        """Sends SIGKILL to the group, others to the process alone."""
        if self._process.poll() is None:
            send = os.killpg if kind == signal.SIGKILL else os.kill
            send(self._process.pid, kind)

    def end(self, limit: float | None = None) -> Ending:
        """Waits for the end; kills what hangs, and what is left of the group.

        Args:
          limit: seconds; if not given, `PATIENCE` since the program last said something.
        """
        begin, hangs = time.monotonic(), False
        while self._process.poll() is None and not hangs:
            self.sleep(0.2)
            hangs = self.silent > PATIENCE if limit is None else time.monotonic() > begin + limit
        orphans = self.kill() and not hangs
        for reader in self._readers:
            reader.join(10)
        status = None if hangs else self._process.returncode
        errors = [line for line in self._errors if line.strip() and not PROGRESS.search(line)]
        seconds = time.monotonic() - self._begin
        return Ending(status, self.printed, errors, seconds, orphans)

    def kill(self) -> bool:
        """Kills all processes of the group; returns whether there were any."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
            found = True
        except ProcessLookupError:
            found = False
        self._process.wait()
        Program.running.discard(self)
        return found


def _read(stream, lines: list[str], program: Program) -> None:
    """Appends lines as they come; a carriage return ends one too."""
    rest = b""
    while block := os.read(stream.fileno(), 2**16):
        program.heard = time.monotonic()
        *whole, rest = re.split(rb"[\r\n]", rest + block)
        lines += [line.decode(errors="replace") for line in whole]
    lines += [rest.decode(errors="replace")] if rest else []
    stream.close()


def kill_all() -> None:
    """Kills whatever was started and has not ended."""
    for program in list(Program.running):
        program.kill()


def environment(cache: Path, devices: int = 1) -> dict[str, str]:
    """Returns the variables of a run on virtual devices, with a shared cache of programs."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return kept | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def command(program: str, arguments: Iterable[str], prefix: Sequence[str] = ()) -> list[str]:
    """Returns the command of a launch program, below another command such as `prlimit`."""
    return [*prefix, sys.executable, str(REPOSITORY / program), *arguments]
