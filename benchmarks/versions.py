"""The same work under two Pythons, or two versions of JAX.

    python -m benchmarks.versions .compatibility/3.11-tested/venv/bin/python \\
        .compatibility/3.13-tested/venv/bin/python [--rounds 5]

Each command is a Python with the project's packages; what stands before it is for `env`, such as
"PYTHONPATH=/folder/of/another/jax python". Every round gives each command the same work once. The
times are processor seconds of the whole process, which other programs on the machine change little;
a ratio is the median over rounds of the command's seconds / the first one's.

- `training`: four training steps of a ResNet-8 in one call, 32 images of 32×32;
- `sampler`: ten rounds of the outlier sampler, of 20 boundary features;
- `unet`: five denoising steps of a small UNet with guidance, 4 images;
- `bare call`: 200 calls of a program that does next to nothing, with a hundred arrays.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import accelerator_works
from benchmarks.accelerator_works import Sizes
from benchmarks.architectures import TINY
from dream_jax.training import devices

ROOT = Path(__file__).resolve().parents[1]
SIZES = Sizes(
    TINY,
    batch=4,
    steps=5,
    precision="float32",
    resnet34=("resnet8", 32, 32, 4),
    k=100,
    boundary=20,
    candidates=500,
)
CALLS, ARRAYS = 200, 100


def bare_call() -> Callable[[], Any]:
    """Returns `CALLS` calls of a program that adds 1 to `ARRAYS` small arrays."""
    program = devices.pmap(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree))
    tree = devices.put([np.zeros((jax.local_device_count(), 16), np.float32)] * ARRAYS)

    def calls() -> Any:
        made = tree
        for _ in range(CALLS):
            made = program(made)
        return made

    return calls


WORKS: dict[str, Callable[[], Callable[[], Any]]] = {
    "training": lambda: accelerator_works.WORKS["resnet34"](SIZES).call,
    "sampler": lambda: accelerator_works.WORKS["sampler"](SIZES).call,
    "unet": lambda: accelerator_works.WORKS["unet"](SIZES).call,
    "bare call": bare_call,
}


def serve() -> None:
    """Does one work for each name that is read, and answers with the processor seconds it took."""
    devices.use_cores()
    ready = {}
    versions = {"python": sys.version.split()[0], "jax": jax.__version__}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        name = line.strip()
        work = ready.get(name)
        if work is None:
            work = ready[name] = WORKS[name]()
            jax.block_until_ready(work())  # compiles
        before = os.times()
        jax.block_until_ready(work())
        after = os.times()
        print(after.user + after.system - before.user - before.system, flush=True)


class Contender:
    """A Python that works in a process of its own."""

    def __init__(self, command: str):
        self._process = subprocess.Popen(
            ["env", *shlex.split(command), "-m", "benchmarks.versions", "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def versions(self) -> str:
        """Returns what it runs, as its first line says; to be called once, first."""
        return ", ".join(f"{k} {v}" for k, v in json.loads(self._answer()).items())

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a contender ended with status {self._process.wait()}")
        return line

    def seconds(self, work: str) -> float:
        """Returns the processor seconds of a work; the first time, it is compiled before."""
        self._process.stdin.write(f"{work}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def end(self) -> None:
        """Waits until the process has ended."""
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("commands", nargs="*", help="Pythons, the first is the one compared with")
    flags.add_argument("--rounds", type=int, default=5, help="timed rounds (%(default)s)")
    flags.add_argument("--works", default=",".join(WORKS), help="some of %(default)s")
    flags.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.serve:
        return serve()
    if len(args.commands) < 2 or args.rounds < 1:
        flags.error("two commands and one round are the least")
    works = args.works.split(",")
    if wrong := sorted({*works} - {*WORKS}):
        flags.error(f"--works: {wrong[0]!r} is none of {', '.join(WORKS)}")
    contenders = [Contender(command) for command in args.commands]
    versions = [contender.versions() for contender in contenders]
    print("| work | Python | processor seconds | ratio |\n|---|---|--:|--:|")
    for work in works:
        times = np.array([[c.seconds(work) for c in contenders] for _ in range(args.rounds)])
        ratios = np.median(times / times[:, :1], axis=0)
        for who, seconds, ratio in zip(versions, np.median(times, axis=0), ratios, strict=True):
            print(f"| {work} | {who} | {seconds:.3g} | {ratio:.2f} |", flush=True)
    for contender in contenders:
        contender.end()


if __name__ == "__main__":
    main()
