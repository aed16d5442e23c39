"""Paired timing of programs that do the same work: ours and its rivals.

    python -m benchmarks.paired     prints the results of all benchmarks as a Markdown table

A benchmark program hands `compare` one callable per contender, ours first. After a first call of
each, which compiles, every round calls each of them in turn, untimed for a second and then once
more, and the ratio is the median over rounds of rival's seconds / ours: a machine that is busy for
a while slows both sides of a ratio alike. The untimed calls put a contender into the middle of many
calls, as it is in use: while others work, a virtual machine takes back the memory that it had. The
result is printed and written to `benchmarks/results/<name>.json`.

Memory is measured apart from time: the program is started once more for each contender, which it
then calls twice, alone in its process, and the result is the largest resident size of that process:
libraries, compilation, inputs and the work. `--no-memory` leaves that out.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.processes import InOwnProcess
from dream_jax import huge_pages, memory

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "torch", "faiss-cpu")  # whose versions a result states
# Of a process whose memory is measured: the comparison and the contender.
ALONE = "DREAM_JAX_BENCHMARK_ALONE"
NO_MEMORY = "--no-memory"


def parser(doc: str, rounds: int = 5) -> argparse.ArgumentParser:
    """A command line with the flag `--rounds`, described by the program's docstring.

    Gets all contenders huge pages, as the project's programs do.
    """
    huge_pages.use()
    flags = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--rounds", type=int, default=rounds, help="timed rounds (%(default)s)")
    flags.add_argument(NO_MEMORY, action="store_true", help="measure time alone")
    return flags


def run(doc: str, benchmark: Callable[[str, int], None], works: Iterable[str]) -> None:
    """Calls `benchmark(work, rounds)` for each work, with the rounds of the command line."""
    args = parser(doc).parse_args()
    for work in works:
        benchmark(work, args.rounds)


def compare(
    name: str,
    title: str,
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    sizes: Mapping[str, Any],
    work: tuple[float, str] | None = None,
    agree: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Times the contenders against the first of them, prints a table and writes the result.

    In a process that measures memory (see above) it calls one contender and ends the process.

    Args:
      name: of the result's file.
      title: the work in a few words, for the tables.
      contenders: from a contender's name to a callable without arguments that returns when the
        work is done; JAX arrays that it returns are waited for. Ours comes first.
      rounds: number of timed rounds, at least 1.
      sizes: the problem's sizes and settings, kept with the result.
      work: amount of work in one call and its unit, such as (64, "images"), to state a rate.
      agree: raises AssertionError where what the contenders returned first, by name, differs.

    Returns:
      What is written: `seconds` (median of each contender), `ratios` (of each rival; above 1, ours
      is faster), `rates` (if `work` is given), `peak_mb` (of each contender's process), and where
      and how they were measured.

    Raises:
      ValueError: if there is no round or no rival.
    """
    if rounds < 1 or len(contenders) < 2:
        raise ValueError("a comparison needs at least one round and one rival")
    if ALONE in os.environ:
        return _say_peak(name, contenders)
    first = {who: jax.block_until_ready(call()) for who, call in contenders.items()}
    if agree is not None:
        agree(first)
    del first
    times = np.empty((rounds, len(contenders)))
    for row in times:
        for column, call in enumerate(contenders.values()):
            _warm_up(call)
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
    if NO_MEMORY not in sys.argv:
        result["peak_mb"] = {who: _peak_alone(name, who, call) for who, call in contenders.items()}
    _print(result)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def _warm_up(call: Callable[[], Any]) -> None:
    end = time.perf_counter() + 1
    while time.perf_counter() < end:
        jax.block_until_ready(call())


def _peak_alone(name: str, who: str, call: Callable[[], Any]) -> float:
    """Returns the largest resident size of a process in which a contender alone works, in MB."""
    if isinstance(call, InOwnProcess):
        return call.peak_mb()
    program = sys.modules["__main__"].__spec__.name.removesuffix(".__main__")
    done = subprocess.run(
        [sys.executable, "-m", program, *sys.argv[1:]],
        env=os.environ | {ALONE: json.dumps([name, who])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def _say_peak(name: str, contenders: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Calls the contender that is asked for twice, prints the peak, and ends the process.

    Returns an empty result if another comparison of this program is asked for.
    """
    wanted, who = json.loads(os.environ[ALONE])
    if wanted != name:
        return {}
    for _ in range(2):
        jax.block_until_ready(contenders[who]())
    print(memory.peak_mb(), flush=True)
    sys.exit(0)


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
    peaks = result.get("peak_mb")
    peak_title = f"{'peak MB':>10}" if peaks else ""
    print(f"{'':{width}}{'seconds':>12}{rate_title}{peak_title}{'rival / ours':>15}")
    for who, seconds in result["seconds"].items():
        rate = f"{rates[who]:16.4g}" if rates else ""
        ratio = f"{result['ratios'][who]:14.2f}×" if who in result["ratios"] else ""
        peak = f"{peaks[who]:10,.0f}" if peaks else ""
        print(f"{who:{width}}{seconds:12.4g}{rate}{peak}{ratio}")
    print(flush=True)


def table(results: list[Mapping[str, Any]]) -> str:
    """A Markdown table of results of `compare`, a row for each rival.

    "–" stands for memory that was not measured.
    """
    rows = [
        "| Work | Rival | Rival's time | Ours | Ratio | Rival's memory | Ours |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        us, ours = next(iter(result["seconds"].items()))
        peaks = result.get("peak_mb", {})
        rows += [
            f"| {result['title']} | {rival} | {_time(result['seconds'][rival])} | {_time(ours)} "
            f"| {_significant(ratio)}× | {_memory(peaks.get(rival))} | {_memory(peaks.get(us))} |"
            for rival, ratio in result["ratios"].items()
        ]
    return "\n".join(rows)


def _memory(megabytes: float | None) -> str:
    return "–" if megabytes is None else f"{megabytes:,.0f} MB"


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
