"""④ Trains a classifier for each training and seed; the plain one first, which judges outliers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_jax.data.image_sets import DataOptions
from dream_jax.data.images import Images
from dream_jax.data.registry import load_for
from dream_jax.detector.extra_images import ExtraImages
from dream_jax.detector.methods import PLAIN, TRAININGS, Training, fine_tuning
from dream_jax.detector.options import resolve
from dream_jax.detector.recipe import Recipe, fields, recipe, starts_trained
from dream_jax.errors import UserError
from dream_jax.files import write_json
from dream_jax.results import (
    IMAGINED,
    OUTLIERS,
    Row,
    decode_stage,
    kind_shown,
    place,
    seeds_of,
    stage_of,
)
from dream_jax.run import ID_FIELDS, Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts

if TYPE_CHECKING:
    from dream_jax.detector.classifier import Classifier

AUXILIARY = ("data.auxiliary", "data.auxiliary_count")
ELSEWHERE = (*ID_FIELDS, "init_from", "model", "eval_batch_size")


@dataclass(frozen=True)
class Trained:
    """One classifier of a run.

    Attributes:
      training: how it is trained.
      options: all settings of the training.
      seed: of the training.
      judge: the name of the stage of the plain classifier with the same seed.
      kind: of the images that it shows with the ID images; "" for none.
    """

    training: Training
    options: Mapping[str, Any]
    seed: int
    judge: str
    kind: str


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns a stage for every training that a row needs and every seed."""
    rows = tuple(row for row in rows if row.training in TRAININGS)  # without those by CLIP
    options: dict[str, Mapping[str, Any]] = {row.training: row.training_options for row in rows}
    trainings = fine_tuning(settings.fine_tune.rows)
    if any(row.extra in IMAGINED or trainings[row.training].fine_tunes for row in rows):
        # It judges what was imagined, and is what a training goes on from.
        plain = settings.method_options.get(PLAIN, {})
        options.setdefault(PLAIN, resolve(PLAIN, TRAININGS[PLAIN].options, plain))
    found = []
    for seed in seeds_of(settings):
        judge = stage_of("train", PLAIN, seed, settings.seed)
        for name, training in trainings.items():
            if name in options:
                kind = kind_shown(settings, training.extra)
                trained = Trained(training, options[name], seed, judge, kind)
                found.append(_stage(settings, trained))
    return found


def starts_elsewhere(init_from: str) -> bool:
    """Returns whether `init_from` is a folder with the plain classifier of another run."""
    return init_from not in ("", PLAIN)


def _stage(settings: Settings, trained: Trained) -> Stage:
    name, extra = trained.training.name, trained.training.extra
    reads = (*ID_FIELDS, "model", *fields(trained.training, settings.init_from))
    if extra == "auxiliary":
        reads += AUXILIARY
    if extra == "inliers":
        reads += ("inliers.confirmed",)
    own = {f"method_options.{name}.{key}": value for key, value in trained.options.items()}
    adopted = name == PLAIN and starts_elsewhere(settings.init_from)
    return Stage(
        stage_of("train", name, trained.seed, settings.seed),
        "train",
        f"classifier/{place(name, trained.seed, settings.seed)}",
        ELSEWHERE if adopted else reads,
        partial(adopt if adopted else make, trained=trained),
        _inputs(settings, trained),
        own | {"seed": trained.seed},
        check=partial(adopt if adopted else check, trained=trained),
        open=partial(open_adopted if adopted else open_classifier, trained=trained),
    )


def _inputs(settings: Settings, trained: Trained) -> tuple[str, ...]:
    if trained.training.extra == "inliers":
        return "decode inliers", trained.judge
    if trained.training.extra not in OUTLIERS:
        return (trained.judge,) if trained.training.fine_tunes else ()
    by_name = ["decode by_name"] if settings.classifier.by_name_share else []
    trips = ["round trips train"] if settings.classifier.round_trip_share else []
    return (decode_stage(trained.kind), *by_name, *trips, trained.judge)


def check(work: Work, trained: Trained) -> None:
    """Checks that the training can do with its settings and these images."""
    training, train = trained.training, work.train
    own = recipe(work.settings, training, trained.seed)
    training.check(trained.options, train.images.shape[1:], train.labels, own.epochs)
    if training.extra == "auxiliary":
        _auxiliary_sets(work)


def make(work: Work, trained: Trained) -> None:
    """Trains the classifier, whose checkpoints stay in the folder."""
    from dream_jax.detector.train import train_classifier  # Orbax: slow to import

    training = trained.training
    own = recipe(work.settings, training, trained.seed)
    gather = {"inliers": _inliers, "auxiliary": _auxiliary} | dict.fromkeys(OUTLIERS, _outliers)
    extra = gather[training.extra](work, trained, own) if training.extra else None
    start = None
    if starts_trained(training, work.settings):
        start = work.run.classifier(PLAIN, trained.seed).variables.network
    model, options = work.settings.model, trained.options
    sets = work.train, work.test
    train_classifier(model, training, options, own, sets, extra, work.folder, start)


def open_classifier(run: Run, trained: Trained) -> Classifier:
    """Returns the trained classifier."""
    from dream_jax.detector.classifier import Classifier
    from dream_jax.detector.train import load_variables

    work = run.work(stage_of("train", trained.training.name, trained.seed, run.settings.seed))
    own, model = recipe(work.settings, trained.training, trained.seed), work.settings.model
    arguments = (model, trained.training, trained.options)
    variables = load_variables(*arguments, own, work.train, work.folder)
    return Classifier(*arguments, variables, len(work.train.class_names), own.eval_batch_size)


def adopt(work: Work, trained: Trained) -> None:
    """Checks that the network of another run is that of these settings; makes nothing."""
    _adopted(work, trained)


def open_adopted(run: Run, trained: Trained) -> Classifier:
    """Returns the classifier of another run."""
    from dream_jax.detector.classifier import Classifier, Variables

    work = run.work(stage_of("train", trained.training.name, trained.seed, run.settings.seed))
    classes, batch_size = len(work.train.class_names), work.settings.eval_batch_size
    model, variables = work.settings.model, Variables(_adopted(work, trained))
    return Classifier(model, trained.training, trained.options, variables, classes, batch_size)


def _adopted(work: Work, trained: Trained) -> dict:
    from dream_jax.detector.train import load_network

    folder, train = Path(work.settings.init_from), work.train
    shape, classes = train.images.shape[1:], len(train.class_names)
    return load_network(work.settings.model, trained.options, shape, classes, folder)


def _outliers(work: Work, trained: Trained, own: Recipe) -> ExtraImages:
    """Returns the decoded images to train with; keeps the judgement of the outliers.

    The plain classifier judges whole pictures, also where patches of them are shown.
    """
    from dream_jax.detector.judge import judge_outliers

    run = work.run
    outliers, labels = run.decoded(trained.kind)
    first = np.arange(max(1, round(own.outliers_used * len(labels))))
    outliers, labels = outliers.take(first), labels[first]
    logits = run.classifier(PLAIN, trained.seed).logits(outliers)
    judgement = judge_outliers(logits, labels, own.keep_below, own.keep_from)
    if hosts.is_main():
        summary = {
            "outliers": len(labels),
            "in_class": judgement.in_class,
            "in_any_class": judgement.in_any_class,
            "too_sure": judgement.too_sure,
            "too_unsure": judgement.too_unsure,
            "used": len(judgement.kept),
        }
        write_json(work.folder / "outliers.json", summary)
    print(
        f"   the plain classifier is sure of the class of {judgement.in_class:.1%} of the "
        f"outliers; {len(judgement.kept)} of {len(labels)} are used, "
        f"{judgement.too_sure} are too sure and {judgement.too_unsure} too unsure",
        flush=True,
    )
    if own.outlier_view == "patches":
        outliers, _ = run.decoded(trained.kind, own.file_size)
    return ExtraImages(
        [outliers.take(judgement.kept)],
        None,
        run.round_trips("train") if own.round_trip_share else None,
        *(run.decoded("by_name") if own.by_name_share else (None, None)),
    )


def _inliers(work: Work, trained: Trained, own: Recipe) -> ExtraImages:
    """Returns the inlier images to train with; keeps how many are read as asked."""
    images, labels = work.run.decoded("inliers")
    read_as_asked = work.run.classifier(PLAIN, trained.seed).logits(images).argmax(-1) == labels
    used = np.arange(len(labels))
    if work.settings.inliers.confirmed:
        used = used[read_as_asked]
    if not len(used):
        raise UserError(
            f"config.inliers.confirmed is True; the plain classifier reads none of the "
            f"{len(labels)} inliers as asked: lower inliers.scale, or set it to False"
        )
    share = float(np.mean(read_as_asked))
    if hosts.is_main():
        summary = {"inliers": len(labels), "read_as_asked": share, "used": len(used)}
        write_json(work.folder / "inliers.json", summary)
    print(
        f"   the plain classifier reads {share:.1%} of the inliers as asked; {len(used)} of "
        f"{len(labels)} are used",
        flush=True,
    )
    return ExtraImages([images.take(used)], labels=labels[used])


def _auxiliary_sets(work: Work) -> list[Images]:
    """Returns the sets of real outliers, loaded once; an unavailable one is an error."""
    data, cache = work.settings.data, work.run.cache
    options = DataOptions.of(data, count=data.auxiliary_count)
    return [
        cache.get(("OOD", name, options), partial(load_for, "auxiliary", name, options)).images
        for name in data.auxiliary
    ]


def _auxiliary(work: Work, trained: Trained, own: Recipe) -> ExtraImages:
    """Returns real outliers to train with."""
    return ExtraImages(_auxiliary_sets(work))
