"""The settings of one training, and the fields of the configuration that they come from."""

from dataclasses import dataclass
from typing import Any

from dream_jax.detector.methods import Training
from dream_jax.results import OUTLIERS
from dream_jax.run import CURVES
from dream_jax.settings import OptimizerSettings, Settings

_PLAIN = (
    *CURVES,
    *("save_every", "eval_batch_size", "data.workers", "classifier.augment"),
    *("classifier.optimizer.final_learning_rate", "classifier.optimizer.warmup"),
    *("classifier.optimizer.momentum", "classifier.optimizer.weight_decay"),
)
_RATES = ("learning_rate", "muon")
_SCHEDULE = ("epochs", "batch_size", "degrade")
_COLLAPSE = ("classifier.collapse_below", "classifier.collapse_after")
_OUTLIERS = (
    *("init_from", "classifier.round_trip_share", "classifier.by_name_share"),
    *("classifier.filter_confidence", "classifier.filter_least_confidence"),
    *("classifier.outlier_view", "classifier.outliers_used", "decoding.image_size"),
)


@dataclass(frozen=True)
class Recipe:
    """What a training is made with; shares and sizes that it does not use are 0.

    Attributes are those of `settings.classifier`, or of `settings.fine_tune` where the training
    starts from a trained network, and

      seed: of the training.
      extra_batch_size: examples that a step shows in addition to the ID images.
      keep_below: outliers that the plain classifier is surer of than this are left out ...
      keep_from: ... and those that it is less sure of than this.
      outliers_used: share of the decoded outliers that is taken, the first ones.
      file_size: height and width of the outliers' files.
      watched: whether the training is stopped when ID accuracy collapses.
    """

    seed: int
    epochs: int
    batch_size: int
    extra_batch_size: int
    augment: str
    degrade: float
    optimizer: OptimizerSettings
    save_every: int
    eval_batch_size: int
    workers: int
    test_every: int = 0
    wandb: str = ""
    round_trip_share: float = 0.0
    by_name_share: float = 0.0
    keep_below: float = 1.0
    keep_from: float = 0.0
    outlier_view: str = "whole"
    outliers_used: float = 1.0
    file_size: int = 0
    watched: bool = False
    collapse_below: float = 0.0
    collapse_after: float = 0.0

    def steps(self, images: int) -> int:
        """Returns the steps of the training on this number of ID images."""
        return self.epochs * -(-images // self.batch_size)


def fine_tunes(training: Training, init_from: str) -> bool:
    """Returns whether a training starts from a trained network."""
    return training.fine_tunes or (training.extra in OUTLIERS and bool(init_from))


def starts_trained(training: Training, settings: Settings) -> bool:
    """Does what `fine_tunes` does; reads `init_from` only for the trainings that depend on it."""
    return fine_tunes(training, settings.init_from if training.extra in OUTLIERS else "")


def fields(training: Training, init_from: str) -> tuple[str, ...]:
    """Returns the fields of the configuration that `recipe` reads for a training."""
    found: tuple[str, ...] = _PLAIN
    if training.extra in OUTLIERS:
        found += _OUTLIERS
    if training.extra in (*OUTLIERS, "auxiliary"):
        found += _COLLAPSE
    sizes = (*_SCHEDULE, *(["outlier_batch_size"] if training.extra else []))
    if fine_tunes(training, init_from):
        return found + tuple(f"fine_tune.{name}" for name in (*sizes, *_RATES))
    found += tuple(f"classifier.{name}" for name in sizes)
    return found + tuple(f"classifier.optimizer.{name}" for name in _RATES)


def recipe(settings: Settings, training: Training, seed: int) -> Recipe:
    """Returns the settings of a training; reads the fields that it uses, and no others."""
    own, optimizer = settings.classifier, settings.classifier.optimizer
    sizes, rates = settings.classifier, settings.classifier.optimizer
    more: dict[str, Any] = {}
    if starts_trained(training, settings):
        sizes = rates = settings.fine_tune  # type: ignore[assignment]
    if training.extra in OUTLIERS:
        more = {
            "round_trip_share": own.round_trip_share,
            "by_name_share": own.by_name_share,
            "keep_below": own.filter_confidence,
            "keep_from": own.filter_least_confidence,
            "outlier_view": own.outlier_view,
            "outliers_used": own.outliers_used,
            "file_size": settings.decoding.image_size,
        }
    if training.extra in (*OUTLIERS, "auxiliary"):
        more |= {
            "watched": True,
            "collapse_below": own.collapse_below,
            "collapse_after": own.collapse_after,
        }
    return Recipe(
        seed=seed,
        epochs=sizes.epochs,
        batch_size=sizes.batch_size,
        extra_batch_size=sizes.outlier_batch_size if training.extra else 0,
        augment=own.augment,
        degrade=sizes.degrade,
        optimizer=OptimizerSettings(
            learning_rate=rates.learning_rate,
            final_learning_rate=optimizer.final_learning_rate,
            warmup=optimizer.warmup,
            momentum=optimizer.momentum,
            weight_decay=optimizer.weight_decay,
            muon=rates.muon,
        ),
        save_every=settings.save_every,
        eval_batch_size=settings.eval_batch_size,
        workers=settings.data.workers,
        test_every=settings.test_every,
        wandb=settings.wandb,
        **more,
    )
