"""Peak of memory of each stage with some images, and with four times as many.

    python -m benchmarks.memory [--images 2000] [--hold-bytes 0]

Two whole runs at toy size (tests/toy.py), on folders of PNG files with noise: training, test and
OOD images, and the pictures that are decoded, are four times as many in the second. Every stage
runs in a process of its own, and its peak is that of its record. With `--hold-bytes 0` no set of
images is held; by default sets of up to `data.hold_bytes` = 1 GiB are, which is the larger part of
what a run takes then. A growth of a few KB an image is what the method itself keeps of each image:
features, scores, names. The result is written to `benchmarks/results/memory.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.paired import RESULTS, environment
from dream_jax.files import read_json

ROOT = Path(__file__).resolve().parents[1]
SIZE, TIMES = 28, 4  # pixels, and how many times as many images the second run has
STEPS = ("learn", "sample", "decode", "train", "evaluate", "report")


def write_images(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Writes so many grey images of noise."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (SIZE, SIZE), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.png", compress_level=1)


def data(folder: Path, images: int, classes: tuple[str, ...]) -> list[str]:
    """Writes the images of a run; returns the flags that name them."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in classes:
            write_images(folder / "id" / part / name, images // len(classes), rng)
    write_images(folder / "ood", images, rng)
    return [
        "--config.data.id=imagefolder",
        f"--config.data.folder={folder / 'id'}",
        f"--config.data.ood=('unknown={folder / 'ood'}',)",
        f"--config.data.ood_count={images}",
        f"--config.decoding.outliers={images // 10}",
        f"--config.decoding.by_name={images // 10}",
        f"--config.decoding.by_name_test={images // 10}",
    ]


def peaks(folder: Path, flags: list[str]) -> dict[str, dict[str, Any]]:
    """Makes a run, each step in a process of its own; returns stage → its record's peak and start.

    Those that share a process with another stage of their step begin with what that one has left.
    """
    workdir = folder / "run"
    command = [sys.executable, "launch/main.py", "--config=tests/toy.py", f"--workdir={workdir}"]
    for step in STEPS:
        done = subprocess.run(
            [*command, *flags, f"--stages={step}"], cwd=ROOT, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{step} ended with {done.returncode}\n{done.stderr[-2000:]}")
    records = [read_json(path) for path in sorted(workdir.rglob("stage.json"))]
    return {
        record["stage"]: {key: record[key] for key in ("peak_memory_mb", "start_memory_mb")}
        for record in sorted(records, key=lambda record: STEPS.index(_step(record["stage"])))
    }


def _step(stage: str) -> str:
    """Returns the step of a stage, by the first word of its name."""
    word = stage.split()[0].rstrip(",")
    return {"round": "decode", "metrics": "evaluate"}.get(word, word)


def table(result: Mapping[str, Any]) -> str:
    """Returns a Markdown table of the stages."""
    few, many = result["images"], TIMES * result["images"]
    lines = [
        f"| Stage | Peak, {few:,} images | Peak, {many:,} images | Growth per image |",
        "|---|--:|--:|--:|",
    ]
    for stage, row in result["stages"].items():
        lines.append(
            f"| {stage} | {row['few_mb']:,} MB | {row['many_mb']:,} MB "
            f"| {row['growth_kb_per_image']:+.1f} KB |"
        )
    return "\n".join(lines)


def measure(folder: Path, images: int, hold_bytes: int) -> dict[str, Any]:
    """Returns the result that is written."""
    from dream_jax.data.sets.digits import CLASS_NAMES
    from tests.toy import build_generator

    generator = build_generator(folder / "generator")
    shared = [
        f"--config.generator.path={generator}",
        f"--config.data.hold_bytes={hold_bytes}",
        "--config.inliers.images=100",
    ]
    found = []
    for count in (images, TIMES * images):
        print(f"a run with {count:,} images ...", flush=True)
        place = folder / str(count)
        found.append(peaks(place, data(place, count, CLASS_NAMES) + shared))
    few, many = found
    more = (TIMES - 1) * images
    stages = {
        stage: {
            "few_mb": few[stage]["peak_memory_mb"],
            "many_mb": many[stage]["peak_memory_mb"],
            "growth_kb_per_image": 1024
            * (many[stage]["peak_memory_mb"] - few[stage]["peak_memory_mb"])
            / more,
        }
        for stage in few
    }
    return {
        **{"name": "memory", "images": images, "times": TIMES, "hold_bytes": hold_bytes},
        **{"stages": stages, **environment()},
    }


if __name__ == "__main__":
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--images", type=int, default=2000, help="training images (%(default)s)")
    flags.add_argument("--hold-bytes", type=int, default=0, help="of config.data (%(default)s)")
    arguments = flags.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = measure(Path(place), arguments.images, arguments.hold_bytes)
    print(table(result))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.json").write_text(json.dumps(result, indent=2) + "\n")
