"""Fixtures of the end-to-end tests: a tiny generator and one finished run at toy size."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import toy as toy_module
from ml_collections import ConfigDict

LAUNCH = [sys.executable, str(toy_module.REPOSITORY / "launch" / "main.py")]


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """The environment of a run on so many virtual devices."""
    variables = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return variables | {"JAX_NUM_CPU_DEVICES": str(devices)} | more


class Toy(NamedTuple):
    """What runs at toy size share: the generator's folder and one of compiled programs."""

    generator: Path
    cache: Path

    def config(self) -> ConfigDict:
        config = toy_module.get_config()
        config.generator.path = str(self.generator)
        return config

    def start(self, workdir: Path, flags: Sequence[str] = (), devices: int = 1, **more: str):
        """launch/main.py as a process of its own, with more environment variables."""
        return subprocess.Popen(
            [
                *LAUNCH,
                f"--config={toy_module.__file__}",
                f"--config.generator.path={self.generator}",
                f"--workdir={workdir}",
                *flags,
            ],
            env=environment(
                devices,
                JAX_COMPILATION_CACHE_DIR=str(self.cache),
                JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
                **more,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

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


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Toy:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    folder = tmp_path_factory.mktemp("toy")
    # This process and those that it starts share their compiled programs.
    jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()
    return Toy(toy_module.build_generator(folder / "generator"), folder / "xla")


@pytest.fixture(scope="session")
def toy_run(toy, tmp_path_factory) -> FinishedRun:
    workdir = tmp_path_factory.mktemp("toy_run") / "toy"
    begin = time.perf_counter()
    output = toy.finish(workdir)
    return FinishedRun(workdir, output, time.perf_counter() - begin)


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
