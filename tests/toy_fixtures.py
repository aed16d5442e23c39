"""Fixtures of the end-to-end tests: a tiny generator and one finished run at toy size."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import toy as toy_module
from filelock import FileLock
from ml_collections import ConfigDict

from dream_jax.files import read_json, write_json

LAUNCH = [sys.executable, str(toy_module.REPOSITORY / "launch" / "main.py")]


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """The environment of a process on so many virtual devices."""
    known = os.environ.get("XLA_FLAGS", "").split()
    flags = (flag for flag in known if "device_count" not in flag)
    own = {"XLA_FLAGS": " ".join(flags), "JAX_NUM_CPU_DEVICES": str(devices)}
    return os.environ | own | more


_started: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def no_program_outlives_its_test():
    """Where a test fails while a program runs, it ends, and its workers with it."""
    yield
    while _started:
        _started.pop().kill()


class Toy(NamedTuple):
    """What runs at toy size share: the generator's folder."""

    generator: Path

    def config(self) -> ConfigDict:
        config = toy_module.get_config()
        config.generator.path = str(self.generator)
        return config

    def start(self, workdir: Path, flags: Sequence[str] = (), devices: int = 1, **more: str):
        """launch/main.py as a process of its own, with more environment variables."""
        process = subprocess.Popen(
            [
                *LAUNCH,
                f"--config={toy_module.__file__}",
                f"--config.generator.path={self.generator}",
                f"--workdir={workdir}",
                *flags,
            ],
            env=environment(devices, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        _started.append(process)
        return process

    def finish(
        self, workdir: Path, flags: Sequence[str] = (), devices: int = 1, **more: str
    ) -> str:
        """Runs to the end and returns what was printed."""
        process = self.start(workdir, flags, devices, **more)
        try:
            output, _ = process.communicate(timeout=600)
        finally:
            process.kill()
        assert process.returncode == 0, output[-3000:]
        return output


class FinishedRun(NamedTuple):
    """A whole run at toy size, not to be changed."""

    workdir: Path
    output: str
    seconds: float


def once_per_session(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """Returns a folder that all workers of a session share; the first that asks fills it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = folder / "done"
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Toy:
    def make(folder: Path) -> None:
        toy_module.build_generator(folder / "generator")

    return Toy(once_per_session(tmp_path_factory, "toy", make) / "generator")


@pytest.fixture(scope="session")
def toy_run(toy, tmp_path_factory) -> FinishedRun:
    def make(folder: Path) -> None:
        begin = time.perf_counter()
        output = toy.finish(folder / "toy")
        about = {"output": output, "seconds": time.perf_counter() - begin}
        write_json(folder / "about.json", about)

    folder = once_per_session(tmp_path_factory, "toy_run", make)
    return FinishedRun(folder / "toy", **read_json(folder / "about.json"))


@pytest.fixture
def copied_run(toy_run, tmp_path):
    """`copied_run("evaluation", ...)`: the finished run's folder anew, without these parts."""

    def copy(*without: str) -> Path:
        workdir = tmp_path / "copy"
        shutil.copytree(toy_run.workdir, workdir)
        for part in without:
            path = workdir / part
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return workdir

    return copy
