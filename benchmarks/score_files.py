"""Scoring image files, from the folder to the table, against the bare forward pass on arrays.

    python -m benchmarks.score_files [--rounds 3] [--images 10000]

Ours is what launch/score.py does once JAX has started and the program is compiled: list the folder,
read the files (32x32 JPEGs in colour), score them by the network of the quickstart with the energy,
keep the parts, write the table. The other is the forward pass of the same network on an array that
holds the images.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks.paired import compare, parser
from dream_jax.console import accept_any_text
from dream_jax.detector.inputs import Outputs
from dream_jax.detector.scoring import fit_detectors, scorer
from dream_jax.models.resnet import build_model, init_model
from dream_jax.scoring_files.program import Request, score_by
from dream_jax.scoring_files.scorer import ImageScorer
from dream_jax.settings import ModelSettings
from dream_jax.training import devices

SIZE, CHANNELS, CLASSES, BATCH = 32, 3, 10, 250
MODEL = ModelSettings("resnet8", 24, "stride2", "float32")  # of configs/quickstart.py


def write_images(folder: Path, images: np.ndarray) -> None:
    for row, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{row:06d}.jpg", quality=90)


def main():
    flags = parser(__doc__, rounds=3)
    flags.add_argument("--images", type=int, default=10_000, help="files (%(default)s)")
    args = flags.parse_args()
    accept_any_text()
    devices.use_cores()
    network = build_model(MODEL, CLASSES)
    variables = init_model(network, jax.random.key(0), (SIZE, SIZE, CHANNELS))
    forward = lambda variables, images: Outputs(*network.apply(variables, images))  # noqa: E731
    both = scorer(forward, variables, fit_detectors({"row": ("energy", {})}, None), BATCH, 2.0)

    def score(images):
        logits, scores = both(images)
        return logits, scores["row"]

    bare = devices.MappedFunction(lambda v, batch: forward(v, batch["images"])[0], variables, BATCH)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (args.images, 8, 8, CHANNELS), np.uint8)
    pixels = coarse.repeat(SIZE // 8, 1).repeat(SIZE // 8, 2)
    names = tuple(f"class {label}" for label in range(CLASSES))
    known = {"id": rng.normal(size=1000)}
    energy = ImageScorer("Energy", names, SIZE, CHANNELS, "stop", BATCH, known, {}, lambda: score)
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "images"), Path(place, "scores.csv")
        folder.mkdir()
        write_images(folder, pixels)

        def files():
            out.unlink(missing_ok=True)
            score_by(energy, Request([str(folder)], out=str(out)))

        compare(
            "score_files",
            f"Scores of {args.images} files of {SIZE}x{SIZE}",
            {
                "dream_jax, files to table": files,
                "bare forward pass on arrays": lambda: bare({"images": pixels / np.float32(255)}),
            },
            args.rounds,
            {"images": args.images, "size": SIZE, "batch": BATCH, "arch": MODEL.arch},
            (args.images, "images"),
        )


if __name__ == "__main__":
    main()
