"""Paired timing of programs that do the same work: ours and its rivals.

    python -m benchmarks.paired     prints the results of all benchmarks as a Markdown table

A benchmark program hands `compare` one callable per contender, ours first. After a first call of
each, which compiles, every round calls each of them once in turn, and the ratio is the median over
rounds of rival's seconds / ours: a machine that is busy for a while slows both sides of a ratio
alike. The result is printed and written to `benchmarks/results/<name>.json`.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "torch", "faiss-cpu")  # whose versions a result states


def parser(doc: str, rounds: int = 5) -> argparse.ArgumentParser:
    """A command line with the flag `--rounds`, described by the program's docstring."""
    flags = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--rounds", type=int, default=rounds, help="timed rounds (%(default)s)")
    return flags


def require(package: str) -> ModuleType:
    """A rival's package; where it is missing, says how to install it and exits with status 2."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        print(f"{package} is missing: pip install -r benchmarks/requirements.txt", file=sys.stderr)
        sys.exit(2)


class InOwnProcess:
    """A contender that runs in a process of its own, as its users run it.

    Two libraries in one process share memory allocator and cores, and the threads of one wait
    actively where the other is to run.

    Args:
      make: a function of a module, called there with `arguments`; it returns the contender.
    """

    def __init__(self, make: Callable[..., Callable[[], Any]], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, arguments), daemon=True)
        self._process.start()

    def __call__(self) -> Any:
        self._here.send("run")
        return self._here.recv()


def _serve(pipe: Connection, make: Callable, arguments: tuple) -> None:
    call = make(*arguments)
    with contextlib.suppress(EOFError):  # the benchmark has ended
        while pipe.recv():
            pipe.send(call())


def compare(
    name: str,
    title: str,
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    sizes: Mapping[str, Any],
    work: tuple[float, str] | None = None,
) -> dict[str, Any]:
    """Times the contenders against the first of them, prints a table and writes the result.

    Args:
      name: of the result's file.
      title: the work in a few words, for the tables.
      contenders: from a contender's name to a callable without arguments that returns when the
        work is done; JAX arrays that it returns are waited for. Ours comes first.
      rounds: number of timed rounds, at least 1.
      sizes: the problem's sizes and settings, kept with the result.
      work: amount of work in one call and its unit, such as (64, "images"), to state a rate.

    Returns:
      What is written: `seconds` (median of each contender), `ratios` (of each rival; above 1, ours
      is faster), `rates` (if `work` is given), and where and how they were measured.

    Raises:
      ValueError: if there is no round or no rival.
    """
    if rounds < 1 or len(contenders) < 2:
        raise ValueError("a comparison needs at least one round and one rival")
    for call in contenders.values():
        jax.block_until_ready(call())
    times = np.empty((rounds, len(contenders)))
    for row in times:
        for column, call in enumerate(contenders.values()):
            start = time.perf_counter()
            jax.block_until_ready(call())
            row[column] = time.perf_counter() - start

    seconds = dict(zip(contenders, np.median(times, axis=0).tolist(), strict=True))
    ratios = np.median(times / times[:, :1], axis=0).tolist()
    result = {
        "name": name,
        "title": title,
        "sizes": dict(sizes),
        "rounds": rounds,
        "seconds": seconds,
        "ratios": dict(list(zip(contenders, ratios, strict=True))[1:]),
        **environment(),
    }
    if work:
        amount, unit = work
        result["rates"] = {who: amount / median for who, median in seconds.items()}
        result["unit"] = f"{unit}/s"
    _print(result)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def environment() -> dict[str, Any]:
    """Where a result was measured: `backend`, `machine` and the packages' `versions`."""
    return {
        "backend": jax.default_backend(),
        "machine": {"cpu": _cpu_model(), "cores": os.cpu_count()},
        "versions": _versions(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _print(result: Mapping[str, Any]) -> None:
    machine, rates = result["machine"], result.get("rates")
    print(f"{result['title']}: {result['backend']}, {machine['cpu']} × {machine['cores']}")
    print(f"median of {result['rounds']} paired rounds; ratio above 1: ours is faster")
    width = max(map(len, result["seconds"]))
    rate_title = f"{result['unit']:>16}" if rates else ""
    print(f"{'':{width}}{'seconds':>12}{rate_title}{'rival / ours':>15}")
    for who, seconds in result["seconds"].items():
        rate = f"{rates[who]:16.4g}" if rates else ""
        ratio = f"{result['ratios'][who]:14.2f}×" if who in result["ratios"] else ""
        print(f"{who:{width}}{seconds:12.4g}{rate}{ratio}")
    print(flush=True)


def table(results: list[Mapping[str, Any]]) -> str:
    """A Markdown table of results of `compare`, a row for each rival."""
    rows = ["| Work | Rival | Rival's time | Ours | Ratio |", "|---|---|--:|--:|--:|"]
    for result in results:
        ours = next(iter(result["seconds"].values()))
        rows += [
            f"| {result['title']} | {rival} | {_time(result['seconds'][rival])} | {_time(ours)} "
            f"| {_significant(ratio)}× |"
            for rival, ratio in result["ratios"].items()
        ]
    return "\n".join(rows)


def _time(seconds: float) -> str:
    return f"{_significant(seconds)} s" if seconds >= 1 else f"{_significant(seconds * 1e3)} ms"


def _significant(value: float, digits: int = 3) -> str:
    """Three significant digits without an exponent; more before the point are kept."""
    decimals = max(0, digits - 1 - int(np.floor(np.log10(value))))
    return f"{value:.{decimals}f}"


if __name__ == "__main__":
    argparse.ArgumentParser(description="Prints the results as a Markdown table.").parse_args()
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    print(table([result for result in results if "ratios" in result]))  # those with a rival
