"""The disk: whether the run's folder can be written into, and whether what is free will do."""

import math
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dream_jax.data.groups import ood_names
from dream_jax.detector.last_layer import feature_dimension
from dream_jax.detector.methods import PLAIN, TRAININGS, Training
from dream_jax.detector.methods.base import Shape
from dream_jax.errors import UserError
from dream_jax.results import FROM_TEXT, Row, decode_stage, images_of_kind, seeds_of, stage_of
from dream_jax.run import Run
from dream_jax.settings import Settings

BLOCK = 4096  # bytes; a file takes whole blocks
# Of a decoded image as PNG, for each pixel and channel: photographs take 0.5 to 0.7.
PNG_BYTES = 0.75
# Figures, tables and the page, and for each row what its figures add; measured.
REPORT, REPORT_ROW = 2 * 2**20, 2**18
FLOAT = 4  # bytes
CHECKPOINT = 2**17  # bytes of a checkpoint that are no arrays
FOLDER = 4 * BLOCK  # bytes of a stage's record and lists
KINDS = ("outliers", "bood", "by_name", "by_name_test", "inliers")


@dataclass(frozen=True)
class Sizes:
    """What the estimate needs to know of the data.

    Attributes:
      classes: of the ID set.
      train, test: the numbers of its images.
      image: (H, W, C).
      width: of the token embeddings, and so of features; 0 where no stage that needs it is made.
    """

    classes: int
    train: int
    test: int
    image: tuple[int, int, int]
    width: int


def estimate(
    settings: Settings, rows: Sequence[Row], sizes: Sizes, stages: Collection[str]
) -> dict[str, int]:
    """Returns the bytes that some stages of a run will take, by the names of the stages.

    Args:
      stages: names of those that will be made.
    """
    sampling, inliers, size = settings.sampling, settings.inliers, settings.decoding.image_size
    features = min(sizes.train, sizes.classes * settings.latent_space.features_per_class)
    bood = math.ceil(features * settings.bood.share)
    knn = sizes.classes * sampling.rounds * sampling.per_round * sampling.keep
    vectors = {
        "learn": features,
        "sample": bood if sampling.method == "bood" else knn,
        "sample bood": bood,
        "sample inliers": sizes.classes * inliers.rounds * inliers.per_round * inliers.keep,
    }
    if sampling.method in FROM_TEXT:
        vectors["sample"] = sizes.classes
    found = {name: _blocks(count * sizes.width * FLOAT) for name, count in vectors.items()}
    if "learn" in stages:
        found["learn"] += 2 * (CHECKPOINT + _network(settings, sizes.image, sizes.width)[0])
    picture = _blocks(size * size * settings.data.channels * PNG_BYTES)
    for kind in KINDS:
        found[decode_stage(kind)] = images_of_kind(settings, kind) * picture
    for part, count in (("train", sizes.train), ("test", sizes.test)):
        found[f"round trips {part}"] = _blocks(count * math.prod(sizes.image))
    found |= _trainings(settings, rows, sizes, stages)
    found |= _evaluations(settings, rows, sizes)
    found["report"] = REPORT + REPORT_ROW * len(rows)
    return {name: FOLDER + found.get(name, 0) for name in stages}


def _blocks(count: float) -> int:
    return BLOCK * math.ceil(count / BLOCK)


def _trainings(
    settings: Settings, rows: Sequence[Row], sizes: Sizes, stages: Collection[str]
) -> dict[str, int]:
    """Returns the bytes of each training's two checkpoints."""
    if not any(name.startswith("train ") for name in stages):
        return {}
    found: dict[str, int] = {}
    plain: dict[str, Any] = {PLAIN: settings.method_options.get(PLAIN, {})}
    trained = {row.training: row.training_options for row in rows if row.training in TRAININGS}
    for training, options in (plain | trained).items():
        reduced = feature_dimension(options)
        network, features = _network(settings, sizes.image, sizes.classes, reduced)
        shape = Shape(sizes.image, features, sizes.classes)
        init = partial(_init, TRAININGS[training], shape, options)
        own = jax.eval_shape(init, jax.random.key(0))
        for seed in seeds_of(settings):
            name = stage_of("train", training, seed, settings.seed)
            found[name] = 2 * (CHECKPOINT + network + 2 * _bytes(own[0]) + _bytes(own[1]))
    return found


def _init(training: Training, shape: Shape, options: Mapping[str, Any], key: jax.Array) -> tuple:
    return tuple(training.init(key, shape, options))


def _network(
    settings: Settings, image: tuple[int, int, int], outputs: int, reduced: int = 0
) -> tuple[int, int]:
    """Returns the bytes of a network's state in training, and the width of its features."""
    from dream_jax.models.resnet import build_model, init_model

    model = build_model(settings.model, outputs, reduced)
    variables = jax.eval_shape(lambda key: init_model(model, key, image), jax.random.key(0))
    with_momentum = _bytes(variables) + _bytes(variables["params"])
    return with_momentum, variables["params"]["head"]["kernel"].shape[0]


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _evaluations(settings: Settings, rows: Sequence[Row], sizes: Sizes) -> dict[str, int]:
    """Returns the bytes of each classifier's scores."""
    data = settings.data
    images = 2 * sizes.test + len(ood_names(data)) * data.ood_count + settings.decoding.by_name_test
    if data.full_spectrum:  # corruptions have five strengths
        images += 5 * sizes.test * len(data.shifted)
    found: dict[str, int] = {}
    for row in rows:
        for seed in seeds_of(settings):
            name = stage_of("evaluate", row.training, seed, settings.seed)
            predictions = _blocks(images * FLOAT)  # of a classifier, whatever its rows
            found[name] = found.get(name, predictions) + _blocks(images * FLOAT)
    return found


def check_space(run: Run, stages: Collection[str]) -> None:
    """Refuses a folder that cannot be written into, or has no room for what will be made.

    What the stages have left there already is no longer needed, or will be deleted.

    Args:
      stages: names of those that will be made.

    Raises:
      UserError: names the folder, and what is needed and free.
    """
    probe(run.workdir)
    check_free(run.workdir, needed(run, stages))


def needed(run: Run, stages: Collection[str]) -> dict[str, int]:
    """Returns the bytes that stages will take beyond those that they have taken, by their names."""
    sizes = estimate(run.settings, run.rows, _sizes(run, stages), stages)
    return {name: max(0, size - _used(run.folder(name))) for name, size in sizes.items()}


def check_free(folder: Path, left: Mapping[str, int]) -> None:
    """Raises UserError if a folder has no room for what stages will take, given by their names."""
    free = shutil.disk_usage(folder).free
    if sum(left.values()) > free:
        most = max(left, key=lambda name: left[name])
        raise UserError(
            f"--workdir {folder}: the run needs about {_gb(sum(left.values()))} more there "
            f"({_gb(left[most])} of it for stage {most!r}), and {_gb(free)} are free; make room, "
            f"or give another --workdir"
        )


def probe(folder: Path) -> None:
    """Raises UserError if no file can be written into a folder."""
    file = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(BLOCK))
    except OSError as error:
        raise UserError(
            f"--workdir {folder}: nothing can be written there ({error.strerror}); make room or "
            f"give the right to it, or give another --workdir"
        ) from error
    finally:
        if file.exists():
            file.unlink()


def _sizes(run: Run, stages: Collection[str]) -> Sizes:
    work = run.work("learn")
    train, test = work.train, work.test
    height, width, channels = train.images.shape[1:]
    image = (height, width, channels)
    return Sizes(len(train.class_names), len(train), len(test), image, _width(run, stages))


def _width(run: Run, stages: Collection[str]) -> int:
    """Returns the width of embeddings: of the generator's, or of those that are learned already."""
    if "learn" in stages:
        from dream_jax.generator.cached import vocabulary_of

        return vocabulary_of(run.work("learn")).table.shape[1]
    if any(name.partition(" ")[0] == "sample" for name in stages):
        with np.load(run.folder("learn") / "features.npz", allow_pickle=False) as file:
            return file["anchors"].shape[1]
    return 0


def _used(folder: Path) -> int:
    """Returns the bytes that a folder takes on the disk."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_blocks * 512
        for parent, _, names in os.walk(folder)
        for name in names
    )


def _gb(count: int) -> str:
    """Returns bytes in GB, as text with two significant digits."""
    return f"{float(f'{count / 1e9:.2g}'):.10g} GB"
