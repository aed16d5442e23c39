"""What all cases share: the generator, the compiled programs, and runs to compare with."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.soak import programs, results
from tests.soak.programs import REPOSITORY, Ending, Program

METHODS = ("energy", "knn", "vos", "dream_ood", "dream_id", "outlier_exposure")
MORE_ROWS = "--config.methods=" + ",".join((*METHODS, "msp", "dream_ood/knn"))


class Layout(NamedTuple):
    """Over how many processes, and virtual devices of each, a run is spread."""

    processes: int
    devices: int
    workers: int = 1

    def __str__(self) -> str:
        if self.workers > 1:
            return f"workers: {self.workers}"
        return "2 processes" if self.processes > 1 else f"devices: {self.devices}"


ONE = Layout(1, 1)
# How often runs of each are killed. Two processes are slow: the second finds nothing in the cache.
LAYOUTS = {ONE: 3, Layout(1, 2): 3, Layout(1, 4): 3, Layout(2, 1): 2, Layout(1, 1, workers=2): 2}
# Programs that are compiled at every start need not be fast.
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


class Reference(NamedTuple):
    """A run that nothing disturbed."""

    workdir: Path
    results: dict[str, str]
    seconds: dict[str, float]  # of each stage


@dataclass
class Outcome:
    """What a case has counted and measured, and what was wrong in it."""

    counts: Counter = field(default_factory=Counter)
    most: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def expect(self, name: str, wrong: str) -> bool:
        """Counts a fault of a kind, unless the text is empty; returns whether it is."""
        if wrong:
            self.counts[name] += 1
            self.faults.append(f"{name}: {wrong}")
        return not wrong


@dataclass
class Laboratory:
    """The folder of the soak test, and what is made there once.

    Attributes:
      folder: made if missing; the cache of compiled programs in it is kept.
      deadline: on the monotonic clock; no disturbance begins after it.
      stopped: whether all programs were killed because the soak test was; it finds nothing then.
    """

    folder: Path
    deadline: float
    stopped: bool = False
    _locks: dict = field(default_factory=dict)
    _references: dict = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def over(self) -> bool:
        return time.monotonic() > self.deadline

    @property
    def compiled(self) -> Path:
        return self.folder / "compiled"

    @property
    def generator(self) -> Path:
        return self.folder / "generator"

    def build_generator(self) -> None:
        """Writes the tiny generator, in a process of its own, which then has no devices."""
        if self.generator.exists():
            return
        code = "import sys, pathlib, toy; toy.build_generator(pathlib.Path(sys.argv[1]))"
        partial = self.folder / "building" / "generator"
        shutil.rmtree(partial.parent, ignore_errors=True)
        partial.parent.mkdir(parents=True)
        paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
        variables = programs.environment(self.compiled) | {"PYTHONPATH": paths}
        ending = Program([sys.executable, "-c", code, str(partial)], variables, REPOSITORY).end()
        assert ending.status == 0, ending
        os.replace(partial, self.generator)

    def start(self, workdir: Path, layout: Layout = ONE, flags=(), prefix=()) -> list[Program]:
        """Starts the processes of a run; those of several have a coordinator on loopback."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        together = [f"--coordinator=127.0.0.1:{port}", f"--processes={layout.processes}"]
        arguments = [
            f"--config={Path(__file__).with_name('config.py')}",
            f"--config.generator.path={self.generator}",
            f"--workdir={workdir}",
            *(together if layout.processes > 1 else ()),
            *([f"--workers={layout.workers}"] if layout.workers > 1 else ()),
            *flags,
        ]
        return [
            Program(
                programs.command(
                    "launch/main.py",
                    arguments + ([f"--process_id={process}"] if layout.processes > 1 else []),
                    prefix,
                ),
                programs.environment(self.compiled, layout.devices)
                | (QUICK if layout.processes > 1 else {}),
                REPOSITORY,
            )
            for process in range(layout.processes)
        ]

    def finish(self, workdir: Path, layout: Layout = ONE, flags=(), prefix=()) -> Ending:
        """Runs to the end, and returns that of process 0, or of the first that ended wrongly."""
        endings = [program.end() for program in self.start(workdir, layout, flags, prefix)]
        return next((e for e in endings if e.status != 0 or e.wrong), endings[0])

    def reference(self, layout: Layout = ONE, flags: tuple[str, ...] = ()) -> Reference:
        """Returns the undisturbed run of a layout; the first call makes it."""
        key = layout, flags
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._references:
                workdir = (
                    self.folder
                    / "references"
                    / f"{str(layout).replace(': ', '-')}{'-more' * bool(flags)}"
                )
                shutil.rmtree(workdir, ignore_errors=True)
                ending = self.finish(workdir, layout, flags)
                if ending.status != 0 or ending.errors:
                    raise RuntimeError(f"a run that nothing disturbs ends with {ending}")
                found = results.read(workdir), results.stages(workdir)
                self._references[key] = Reference(workdir, *found)
            return self._references[key]


@dataclass
class Case:
    """One case of a part, which its number and the seed determine but for the timing."""

    laboratory: Laboratory
    part: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.part}:{self.number}"

    @property
    def folder(self) -> Path:
        return self.laboratory.folder / "cases" / f"{self.part}-{self.number}"

    def random(self) -> random.Random:
        return random.Random(f"{self.seed} {self.name}")


@cache
def without_privileges() -> list[str] | None:
    """Returns a prefix under which permissions count for root too, or None where there is none."""
    if os.geteuid() != 0:
        return []
    tool = shutil.which("setpriv")
    return tool and [tool, "--bounding-set=-dac_override,-dac_read_search"]
