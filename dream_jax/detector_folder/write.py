"""Writes the detector of a run's row into a folder of its own; see `folder`."""

import importlib.metadata
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from jaxtyping import Float

from dream_jax.data.images import Images
from dream_jax.detector.classifier import Classifier
from dream_jax.detector.scoring import Fitted, scoring_program
from dream_jax.detector_folder.folder import (
    DESCRIPTION,
    FORMAT,
    PLATFORMS,
    PROGRAM,
    SCORES,
    WEIGHTS,
    DetectorFolder,
    export_program,
)
from dream_jax.errors import UserError
from dream_jax.files import PARTIAL, checksum, write_json, write_npz
from dream_jax.models.resnet import INPUT_SCALE
from dream_jax.record import seal
from dream_jax.scoring_files.calibration import Calibration

SHARES = (0.9, 0.95, 0.99)  # of the ID test images, for which the description has thresholds
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
PACKAGES = ("jax", "jaxlib", "numpy", "flax")


@dataclass(frozen=True, eq=False)
class Exported:
    """A detector on its way into a folder.

    Attributes:
      classifier: the network.
      fitted: the detector that is fitted to it.
      scores: the scores of the run's test sets, "id" first.
      about: what the description says of the detector, its images and its run.
      card: the model card.
    """

    classifier: Classifier
    fitted: Fitted
    scores: Mapping[str, Float[np.ndarray, " m"]]
    about: Mapping[str, Any]
    card: str


def write_folder(folder: Path, detector: Exported) -> DetectorFolder:
    """Writes the folder, whole or not at all.

    Raises:
      UserError: there is something at its path already.
    """
    if folder.exists():
        raise UserError(f"--out {folder} is there already; give another, or delete it")
    partial = folder.with_name(f"{PARTIAL}{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights, module, convention = _program(detector)
    write_npz(partial / WEIGHTS, **weights)
    write_npz(
        partial / SCORES, **{n: np.asarray(s, np.float32) for n, s in detector.scores.items()}
    )
    (partial / PROGRAM).write_bytes(module)
    (partial / "README.md").write_text(detector.card, encoding="utf-8", errors="backslashreplace")
    id_scores = detector.scores["id"]
    about = {
        "format": FORMAT,
        **detector.about,
        "output": {"logits": "(n, classes)", "score": "(n,), higher is more in-distribution"},
        "thresholds": {f"{keep:g}": Calibration(id_scores, keep).threshold for keep in SHARES},
        "id_score_quantiles": {
            f"{at:g}": float(value)
            for at, value in zip(QUANTILES, np.quantile(id_scores, QUANTILES), strict=True)
        },
        "sets": list(detector.scores),
        "platforms": list(PLATFORMS),
        "calling_convention": convention,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "files": {name: checksum(partial / name) for name in (PROGRAM, WEIGHTS, SCORES)},
    }
    write_json(partial / DESCRIPTION, seal(about))
    os.replace(partial, folder)
    return DetectorFolder(folder, seal(about))


def _program(detector: Exported) -> tuple[dict[str, np.ndarray], bytes, int]:
    """Returns the arrays that the program needs by name, its module and calling convention.

    It is traced without the convolutions for CPUs, whose shapes need the number of images.
    """
    classifier, fitted = detector.classifier, detector.fitted
    variables, states = classifier.variables, {"score": fitted.state}
    program = scoring_program(classifier.forward, {"score": fitted}, INPUT_SCALE)
    leaves, tree = jax.tree_util.tree_flatten_with_path((variables, states))
    values = [np.asarray(leaf) for _, leaf in leaves]
    names = [_name(path) for path, _ in leaves]
    shape = (detector.about["input"]["size"],) * 2 + (detector.about["input"]["channels"],)

    def some(given: Mapping[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        filled = [given.get(name, value) for name, value in zip(names, values, strict=True)]
        network, states = jax.tree.unflatten(tree, filled)
        made = program(network, states, images)
        return {"logits": made["logits"], "score": made["scores of"]["score"]}

    used = _used(some, names, values, shape)
    weights = {name: value for name, value in zip(names, values, strict=True) if name in used}
    shapes = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in weights.items()}
    made = export_program(some, shapes, shape)
    return weights, made.mlir_module_serialized, made.calling_convention_version


def _used(
    program: Any, names: list[str], values: list[np.ndarray], shape: tuple[int, ...]
) -> set[str]:
    """Returns the names of the arrays that a program uses; a training may keep others."""
    given = dict(zip(names, values, strict=True))
    traced = jax.export.export(jax.jit(program), platforms=("cpu",))
    made = traced(given, jax.ShapeDtypeStruct((1, *shape), np.float32))
    ordered = sorted(names)  # as JAX flattens a dict
    return {ordered[index] for index in made.module_kept_var_idx if index < len(ordered)}


def _name(path: tuple[Any, ...]) -> str:
    """Returns the name of an array by its place, such as "network/params/head/kernel"."""
    group, *rest = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return "/".join(["detector", *rest[1:]] if group == "1" else rest)


def check_scores(folder: DetectorFolder, images: Images, expected: np.ndarray) -> float:
    """Returns the largest difference of scores by the folder from those by the run.

    Args:
      images: some that the run has scored.
      expected: their scores.

    Raises:
      RuntimeError: they differ by more than rounding.
    """
    found = folder.score(np.asarray(images[:]))["score"]
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(found - expected).max())
    if difference > 1e-4 * scale:
        raise RuntimeError(f"the exported detector's scores differ by {difference} from the run's")
    return difference
