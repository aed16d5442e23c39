"""What all tests share. Imported before any test file, so before JAX and diffusers."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dream_jax.programs import drop_programs

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Programs have what they would else start anew for.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
# Most of the time goes into compiling small programs that run once or twice. This halves it, and
# results differ by rounding errors only. The processes that tests start inherit it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Else every process that a test starts compiles the package's modules anew, which takes a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# These nearly halve what is left. Processes of tests need the same ones for the same bits.
CHEAP = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    flags = [*CHEAP, *os.environ.get("XLA_FLAGS", "").split()]
    os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys(flags))

pytest_plugins = ["toy_fixtures"]
ROOT = Path(__file__).resolve().parents[1]
RUN = """
import runpy, sys, jax, numpy as np
file, function, out, count, *args = sys.argv[1:]
assert jax.local_device_count() == int(count)
np.savez(out, **runpy.run_path(file)[function](*args))
"""


DAYS_KEPT = 7


def pytest_configure(config):
    """Keeps compiled programs for the other workers, the processes of tests, and later sessions.

    They lie in pytest's cache, from which those are removed that are old or were cut off.
    """
    known = "JAX_COMPILATION_CACHE_DIR" in os.environ  # as in workers
    if known or not config.pluginmanager.hasplugin("cacheprovider"):
        return
    folder = config.cache.mkdir("compiled")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    oldest = time.time() - DAYS_KEPT * 24 * 3600
    for program in folder.iterdir():
        found = program.stat()
        if found.st_mtime < oldest or not found.st_size:
            program.unlink()


# Files that take longest come first, in this order, lest one worker be left alone with them at the
# end. The first one makes the finished run that many others wait for; the two behind it do without.
SLOWEST = (
    *("test_pipeline", "test_stable_diffusion", "test_detectors", "test_stages", "test_workers"),
    *("test_repair", "test_notebooks", "test_cli", "test_hosts", "test_tuning"),
    *("test_ablation_program", "test_trainings", "test_training", "test_start", "test_resizing"),
    *("test_gan", "test_last_layer", "test_finite", "test_godin", "test_weights", "test_models"),
)


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(SLOWEST)))


@pytest.fixture(scope="module", autouse=True)
def programs_of_earlier_files():
    """Forgets compiled programs between files when they are many."""
    drop_programs(25_000)


@pytest.fixture(scope="session")
def on_devices(tmp_path_factory):
    """`on_devices(count, function, *args)`: what a test file's function returns on many devices.

    It runs in a process of its own, with `count` virtual devices. Arguments are passed as strings;
    the result is a dict of arrays.
    """

    from toy_fixtures import environment

    def run(count: int, function, *args) -> dict[str, np.ndarray]:
        out = tmp_path_factory.mktemp("devices") / "out.npz"
        command = [sys.executable, "-c", RUN, function.__code__.co_filename, function.__name__]
        process = subprocess.run(
            [*command, str(out), str(count), *map(str, args)],
            env=environment(count, PYTHONPATH=os.pathsep.join((str(ROOT), str(ROOT / "tests")))),
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
