"""Taking a row of a finished run away as a folder: what launch/export.py does."""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.data.framing import CROP_FROM
from dream_jax.data.image_sets import ImageSet
from dream_jax.detector.detectors import DETECTORS
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector_folder import onnx_file
from dream_jax.detector_folder.card import Facts, model_card
from dream_jax.detector_folder.folder import DetectorFolder
from dream_jax.detector_folder.write import Exported, check_scores, write_folder
from dream_jax.errors import UserError
from dream_jax.files import read_json
from dream_jax.loaded_run import LoadedRun, load_run
from dream_jax.results import Row
from dream_jax.scoring_files.from_run import known_scores

CHECKED = 64  # test images whose scores are compared
EXTRA = {
    "": "",
    "outliers": "images of imagined outliers, and decoded images of the classes",
    "bood": "images of imagined outliers, and decoded images of the classes",
    "inliers": "imagined images of the classes",
    "auxiliary": "real images of other sets: {sets}",
}


def export(run_path: str, key: str, out: str, onnx: bool = False) -> DetectorFolder:
    """Writes the detector of a row into a folder, and compares its scores with the run's.

    Args:
      run_path: the folder of a finished run; of several seeds, the first is taken.
      key: of the row; "" for dream_ood.
      out: the folder, which must not be there.
      onnx: whether to write the detector as ONNX too.

    Raises:
      UserError: bad input, in one line before any work.
    """
    if not run_path:
        raise UserError("--run is not given; it must be the folder of a finished run")
    folder = Path(out).expanduser()
    if not out or folder.exists():
        fault = "is not given" if not out else f"is {out!r}, which is there already"
        raise UserError(f"--out {fault}; it must be a new folder")
    if not folder.parent.is_dir():
        raise UserError(f"--out is {out!r}; there is no folder {folder.parent}")
    if onnx:
        onnx_file.require_packages()
    run = load_run(run_path)
    row = run.row(key or "dream_ood")
    scores = known_scores(run, row.key)
    classifier = run.classifier(row.key)
    train = ImageSet("train", *run.images("train"), run.class_names)
    fitted = classifier.fitted({row.key: (row.detector, row.options)}, train)[row.key]
    card = model_card(_facts(run, row, folder.name))
    made = write_folder(folder, Exported(classifier, fitted, scores, _about(run, row), card))
    test = run.images("test")[0]
    images = test.take(np.arange(min(CHECKED, len(test))))
    expected = scores["id"][: len(images)]
    difference = check_scores(made, images, expected)
    print(
        f"checked: its scores of {len(images)} test images differ by at most {difference:.2g} from "
        f"the run's\nwritten: {folder}"
    )
    if onnx:
        path = folder / onnx_file.FILE
        difference = onnx_file.write_onnx(path, classifier, fitted, images[:], expected)
        print(f"written: {path}, whose scores differ by at most {difference:.2g}")
    return made


def _about(run: LoadedRun, row: Row) -> dict[str, Any]:
    """Returns what the description says of the detector, its images and its run."""
    data = run.settings.data
    return {
        "title": row.title,
        "run": run.settings.name,
        "row": row.key,
        "training": row.training,
        "detector": row.detector,
        "options": dict(row.options),
        "seed": run.seeds[0],
        "batch_size": run.settings.eval_batch_size,
        "classes": list(run.class_names),
        "input": {
            "layout": "NHWC",
            "type": "float32",
            "range": [0, 1],
            "size": data.image_size,
            "channels": data.channels,
            "unreadable": data.unreadable,
            "framing": _framing(data.image_size),
        },
    }


def _framing(size: int) -> str:
    """Returns in words how images are brought to the size; see `data/framing.py`."""
    start = "upright by EXIF, transparency on white, 8 bits a channel; bilinear, antialiased: "
    if size < CROP_FROM:
        return start + f"both sides to {size}"
    return start + f"the shorter side to {round(size * 256 / 224)}, then the centre {size} x {size}"


def _facts(run: LoadedRun, row: Row, folder: str) -> Facts:
    """Returns what the model card says."""
    settings, model = run.settings, run.settings.model
    training, detector = TRAININGS[row.training], DETECTORS[row.detector]
    metrics = read_json(run.folder / "metrics.json")
    return Facts(
        folder=folder,
        run=settings.name,
        title=row.title,
        training=f"{training.title} ({training.paper})",
        detector=f"{detector.title} ({detector.paper})",
        settings={**row.training_options, **row.options},
        data=settings.data.id,
        class_names=run.class_names,
        train_images=len(run.images("train")[0]),
        test_images=len(run.images("test")[0]),
        size=settings.data.image_size,
        channels=settings.data.channels,
        network=f"{model.arch}, width {model.width}, stem {model.stem}, {model.precision}",
        extra=EXTRA[row.extra].format(sets=", ".join(settings.data.auxiliary)),
        measures=metrics["by_seed"][str(run.seeds[0])][row.key],
        tuning=metrics.get("tuning", {}),
        row=row.key,
        seed=run.seeds[0],
        versions={name: importlib.metadata.version(name) for name in ("jax", "flax")},
    )
