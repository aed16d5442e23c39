"""What all tests share. Imported before any test file, so before JAX and diffusers."""

import dataclasses
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Many tests compile the same program: a cache for this session only, shared by the workers that run
# the tests and the processes that tests start.
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not IS_WORKER:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="dream-jax-tests-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

pytest_plugins = ["toy_fixtures"]
ROOT = Path(__file__).resolve().parents[1]
RUN = """
import runpy, sys, jax, numpy as np
file, function, out, count, *args = sys.argv[1:]
assert jax.local_device_count() == int(count)
np.savez(out, **runpy.run_path(file)[function](*args))
"""


# Files that take minutes come first, lest one worker be left alone with them at the end.
SLOWEST = (
    *("test_pipeline", "test_hosts", "test_train", "test_cli", "test_tuning", "test_gan"),
    "test_ablation_program",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in SLOWEST)


def pytest_unconfigure():
    if not IS_WORKER:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


# Linux gives a process 65,530 mappings of memory, of which each compiled program takes some; beyond
# them XLA crashes.
MOST_MAPPINGS = 25_000


@pytest.fixture(scope="module", autouse=True)
def programs_of_earlier_files():
    """Forgets compiled programs between files when they are many."""
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists():
        with maps.open("rb") as lines:
            many = sum(1 for _ in lines) > MOST_MAPPINGS
        if many:
            sys.modules["jax"].clear_caches()
            gc.collect()


@pytest.fixture(scope="session")
def on_devices(tmp_path_factory):
    """`on_devices(count, function, *args)`: what a test file's function returns on many devices.

    It runs in a process of its own, with `count` virtual devices. Arguments are passed as strings;
    the result is a dict of arrays.
    """

    def run(count: int, function, *args) -> dict[str, np.ndarray]:
        out = tmp_path_factory.mktemp("devices") / "out.npz"
        command = [sys.executable, "-c", RUN, function.__code__.co_filename, function.__name__]
        process = subprocess.run(
            [*command, str(out), str(count), *map(str, args)],
            env=os.environ
            | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
            | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert process.returncode == 0, process.stderr[-3000:]
        with np.load(out) as file:
            return dict(file)

    return run


@pytest.fixture
def decoding():
    """Settings of decoding with short prompts."""
    from configs import base
    from dream_jax.settings import DecodingSettings

    settings = DecodingSettings(**base.get_config().decoding.to_dict())
    return dataclasses.replace(
        settings, prompts=("a {name}", "the {name}"), id_prompt="{name}", name_suffixes={}
    )


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A tokenizer with 12 positions whose world has three captions."""
    from dream_jax.miniature.tokenizer import train_tokenizer

    captions = ("a picture of the dog", "a picture of the black cat", "a picture of the seven")
    return train_tokenizer(list(captions), 12, tmp_path_factory.mktemp("tokenizer"))
