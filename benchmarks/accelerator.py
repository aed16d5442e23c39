"""The project's heaviest works on a GPU or TPU, with PyTorch's figures where it is installed.

    python -m benchmarks.accelerator [--only unet vae] [--seconds 5] [--steps 50] [--out FILE]

Stable Diffusion v1.4's parts with random weights in bfloat16, training of ResNet-34 (32×32) and
ResNet-50 (224×224), the outlier sampler, the KNN score, and 64 images decoded to PNG files. Nothing
is downloaded. `--tiny` runs all of it in small sizes, also on a CPU. For each work:

- the time of a step, a round or a batch: the median over the calls that fit into `--seconds`,
  after one that warms up;
- FLOP/s of a device by XLA's own count (`cost_analysis`) of the program as it is written, before
  compilation, as it counts nothing of what cuDNN and cuBLAS do; the KNN score's are those of its
  matrix product;
- their share of the device's peak in bfloat16 without sparsity, where the work is in bfloat16;
- the memory that the compiled program needs: arguments, results and temporaries;
- PyTorch's time on the same device and its most memory, from a process of its own: bfloat16
  (autocast in training), channels last, eager. Its UNet step has no scheduler, its decoding
  writes no files.

A work that fails is shown with its reason, the others are measured, and the exit status is 1.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too

import jax
import numpy as np

from benchmarks.accelerator_works import (
    IN_FLOAT32,
    OF_GENERATOR,
    SMALL,
    WORKS,
    Sizes,
    batch_of,
    pieces,
)
from benchmarks.paired import RESULTS, environment
from benchmarks.processes import InOwnProcess
from dream_jax.generator.attention import FORMS
from dream_jax.training import devices

# TFLOP/s in bfloat16 without sparsity, by a part of `device_kind`; the first that is found counts.
PEAKS = {
    "H100": 989,  # NVIDIA's data sheet of the H100, SXM; PCIe and NVL cards have less
    "H200": 989,  # NVIDIA's data sheet of the H200, SXM
    "A100": 312,  # NVIDIA's data sheet of the A100
    "TPU v4": 275,  # Google Cloud's TPU documentation, as the rest
    "TPU v5 lite": 197,  # v5e
    "TPU v5e": 197,
    "TPU v5": 459,  # v5p
}
OTHER_CARDS = ("PCIe", "NVL")  # whose peak is not that of SXM


def peak_of(kind: str) -> float | None:
    """Returns a device's peak in TFLOP/s, or None if it is not known."""
    if any(card in kind for card in OTHER_CARDS):
        return None
    return next((peak for name, peak in PEAKS.items() if name in kind), None)


def time_calls(
    call: Callable[[], Any], seconds: float, warm: Callable[[], Any] | None = None
) -> tuple[float, list[float]]:
    """Returns the seconds of a first call, and of more, at least one, until `seconds` are over."""
    start = time.perf_counter()
    jax.block_until_ready((warm or call)())
    first = time.perf_counter() - start
    taken: list[float] = []
    while not taken or sum(taken) < seconds:
        start = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - start)
    return first, taken


def measure(name: str, sizes: Sizes, seconds: float) -> dict[str, Any]:
    """Returns a work's figures, or why it failed."""
    begin = time.perf_counter()
    try:
        work = WORKS[name](sizes)
        first, taken = time_calls(work.call, seconds, work.warm)
    except Exception as error:  # of any kind, memory above all; shown, and the next is measured
        return {"failed": reason(error)}
    median = float(np.median(taken)) / pieces(name, sizes)
    figures = {
        "title": work.title,
        "seconds": median,
        "calls": len(taken),
        "first_call_seconds": first,
        "amount": work.amount,
        "unit": work.unit,
        "rate": work.amount / median,
        "peak_bytes_so_far": peak_memory(),
        "flops": None,
        "program_bytes": None,
    }
    try:
        figures["flops"] = work.flops() if work.flops else None
        figures["program_bytes"] = work.memory() if work.memory else None
    except Exception as error:  # of XLA on this platform; the times hold
        figures["not_analysed"] = reason(error)
    figures["flops_per_second"] = figures["flops"] / median if figures["flops"] else None
    return figures | {"measuring": time.perf_counter() - begin}


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:300]


def peak_memory() -> int | None:
    """Returns the most memory in use on the first device since the start, where it is known."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def rivals(names: list[str], sizes: Sizes, seconds: float) -> Callable[[], dict] | str:
    """Returns a call that measures PyTorch's works in turn, or why there is none."""
    backend = jax.default_backend()
    if importlib.util.find_spec("torch") is None:
        return "not installed"
    if backend not in ("gpu", "cpu"):
        return f"not measured on {backend}"
    device = "cuda" if backend == "gpu" else "cpu"
    if any(name in OF_GENERATOR for name in names):
        sizes = sizes._replace(batch=batch_of(sizes))
    run = InOwnProcess("benchmarks.accelerator_rivals:in_turn", names, sizes, device, seconds)

    def call() -> dict:
        try:
            return run()
        except (EOFError, ConnectionError):
            return {"failed": "PyTorch's process has ended"}

    return call


def significant(value: float | None, unit: str = "", scale: float = 1) -> str:
    """Returns a value in three digits, or a dash for None."""
    return "-" if value is None else f"{value / scale:.3g}{unit}"


def row(name: str, ours: dict, theirs: dict, peak: float | None) -> list[str]:
    """Returns a line of the table."""
    if "failed" in ours:
        cells = [name, "failed", *"----"]
    else:
        speed = ours["flops_per_second"]
        known = speed and peak and ours["bfloat16"]
        cells = [
            ours["title"],
            significant(ours["seconds"] * 1e3, " ms"),
            f"{ours['rate']:.3g} {ours['unit']}/s",
            significant(speed, "", 1e12),
            f"{speed / peak / 1e12:.1%}" if known else "-",
            significant(ours["program_bytes"], " GB", 1e9),
        ]
    rival = theirs.get("seconds")
    ratio = f"{rival / ours['seconds']:.2f}×" if rival and "seconds" in ours else "-"
    failed = "failed" if "failed" in theirs else "-"
    return [
        *cells,
        significant(rival * 1e3, " ms") if rival else failed,
        significant(theirs.get("memory"), " GB", 1e9),
        ratio,
    ]


HEADER = [
    *("work", "time", "rate", "TFLOP/s", "of peak", "memory"),
    *("PyTorch", "its memory", "PyTorch / ours"),
]
WIDTHS = (40, 11, 22, 8, 8, 11, 11, 11, 15)


def line(cells: list[str]) -> str:
    """Returns cells as wide as their columns, the first to the left."""
    first, *rest = [f"{c:>{width}}" for c, width in zip(cells, WIDTHS, strict=True)]
    return " ".join([f"{first.strip():{WIDTHS[0]}}", *rest])


def flags() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK")
    made.add_argument("--seconds", type=float, default=5.0, help="for a measurement (%(default)s)")
    made.add_argument("--steps", type=int, help="denoising steps (50)")
    made.add_argument("--batch", type=int, help="images decoded at once (16); 0: all that fit")
    made.add_argument("--images", type=int, help="images decoded end to end (64)")
    made.add_argument("--precision", choices=("float32", "bfloat16"))
    made.add_argument("--attention", choices=("auto", *FORMS), help="form of the UNet's (auto)")
    made.add_argument("--peak", type=float, help="of a device in bfloat16, TFLOP/s")
    made.add_argument("--tiny", action="store_true", help="small sizes, float32 by default")
    made.add_argument("--no-rivals", action="store_true", help="leave PyTorch out")
    made.add_argument("--out", type=Path, default=RESULTS / "accelerator.json")
    return made


def sizes_of(args: argparse.Namespace) -> Sizes:
    """Returns the sizes that the flags ask for."""
    names = ("steps", "batch", "images", "precision", "attention")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return (SMALL if args.tiny else Sizes())._replace(**given)


def main(arguments: list[str] | None = None) -> int:
    args = flags().parse_args(arguments)
    sizes = sizes_of(args)
    names = [name for name in WORKS if name in args.only]  # the decoding last
    kind = jax.local_devices()[0].device_kind
    peak = args.peak or peak_of(kind)
    found = "left out" if args.no_rivals else rivals(names, sizes, args.seconds)
    print(f"{jax.local_device_count()} × {kind}, JAX {jax.__version__}")
    print(f"peak in bfloat16: {significant(peak, ' TFLOP/s')}")
    if isinstance(found, str):
        print(f"PyTorch: {found}")
    result: dict[str, Any] = {
        "name": "accelerator",
        "device": kind,
        "devices": jax.local_device_count(),
        "peak_tflops": peak,
        "sizes": sizes._replace(parts=vars(sizes.parts))._asdict(),
        "works": {},
        **environment(),
    }
    print(line(HEADER), flush=True)
    whole = True
    for name in names:
        ours = measure(name, sizes, args.seconds)
        ours["bfloat16"] = sizes.precision == "bfloat16" and name not in IN_FLOAT32
        theirs = {} if isinstance(found, str) else found()
        print(line(row(name, ours, theirs, peak)), flush=True)
        for who, figures in (("dream_jax", ours), ("PyTorch", theirs)):
            for what in ("failed", "not_analysed", "missing"):
                if what in figures:
                    print(f"  {who}, {what}: {figures[what]}", flush=True)
            whole = whole and "failed" not in figures and "not_analysed" not in figures
        result["works"][name] = {"dream_jax": ours, "PyTorch": theirs}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"most memory in use on the first device: {significant(peak_memory(), ' GB', 1e9)}")
    return 0 if whole else 1


if __name__ == "__main__":
    devices.use_cores()
    if jax.config.jax_compilation_cache_dir is not None:
        sys.exit(main())
    with tempfile.TemporaryDirectory() as cache:  # a program is looked at after it was measured
        jax.config.update("jax_compilation_cache_dir", cache)
        sys.exit(main())
