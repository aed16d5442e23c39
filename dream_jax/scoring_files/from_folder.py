"""A detector in a folder of its own, as what scores images: with JAX and NumPy alone."""

from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.data.images import Images
from dream_jax.detector_folder.folder import open_folder
from dream_jax.scoring_files.scorer import ImageScorer, Score
from dream_jax.training.devices import MappedFunction
from dream_jax.training.finite import Origin


def open_detector(path: Path) -> ImageScorer:
    """Returns the scorer of a folder that launch/export.py wrote.

    Raises:
      UserError: it is no such folder, of another version, or damaged.
    """
    detector = open_folder(path)
    about = detector.about

    def prepare() -> Score:
        def program(weights: Any, batch: dict) -> Any:
            return detector(weights, batch["images"])

        origin = Origin(f"detector {path}")
        mapped = MappedFunction(program, detector.weights, about["batch_size"], origin)

        def score(images: Images) -> tuple[np.ndarray, np.ndarray]:
            made = mapped({"images": images})
            return made["logits"], made["score"]

        return score

    return ImageScorer(
        title=f"{about['title']} of run {about['run']}, from {path}",
        class_names=detector.class_names,
        size=about["input"]["size"],
        channels=about["input"]["channels"],
        unreadable=about["input"]["unreadable"],
        batch_size=about["batch_size"],
        known=detector.scores,
        identity={"run": about["run"], "row": about["row"], "detector": about["seal"]},
        prepare=prepare,
    )
