"""What the results of a run are: the rows of its table, stored features, names of stages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dream_jax.settings import Settings

# What trainings show as imagined outliers: those of `sampling`, and those of BOOD.
OUTLIERS = ("outliers", "bood")
IMAGINED = (*OUTLIERS, "inliers")
PLAIN = "cross_entropy"  # the training whose classifier reads decoded images
# Values of `sampling.method` with which outliers are decoded from texts, not from embeddings.
FROM_TEXT = ("prompts", "text")


@dataclass(frozen=True)
class Row:
    """A row of the results: a detector, fitted to the classifier that a training made.

    Attributes:
      key: in metrics.json: "knn", "dream_ood" or "outlier_exposure/knn".
      title: in tables.
      section: the title of the rows that it stands with.
      training, detector: their names.
      options: all settings of the detector.
      training_options: all settings of the training.
      extra: what the training shows with the ID images: "outliers", "bood", "inliers", "auxiliary"
        or "".
      main: whether the detector is the one of the training's paper.
    """

    key: str
    title: str
    section: str
    training: str
    detector: str
    options: Mapping[str, Any]
    training_options: Mapping[str, Any]
    extra: str
    main: bool


@dataclass(frozen=True)
class Features:
    """What stage ① leaves: the features h(x) of ID training images, and the anchors T(y)."""

    features: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]
    anchors: Float[np.ndarray, "classes d"]


def seeds_of(settings: Settings) -> tuple[int, ...]:
    """Returns the seeds of a run's classifiers; what they share has the seed of the run."""
    return settings.seeds or (settings.seed,)


def has_plain(rows: Iterable[Row]) -> bool:
    """Returns whether a run with these rows has a plain classifier, which reads decoded images."""
    return any(row.training == PLAIN or row.extra in IMAGINED for row in rows)


def stage_of(step: str, training: str, seed: int, run_seed: int) -> str:
    """Returns the name of a classifier's stage in a step; the run's own seed goes unnamed."""
    return f"{step} {training}" + (f", seed {seed}" if seed != run_seed else "")


def place(training: str, seed: int, run_seed: int) -> str:
    """Returns the name of a classifier's folders."""
    return training + (f"-seed{seed}" if seed != run_seed else "")


def kind_shown(settings: Settings, extra: str) -> str:
    """Returns the kind of images that a training shows, by its `extra`.

    Where `sampling.method` is "bood", BOOD's outliers are those of the run, not another kind.
    """
    return "outliers" if extra == "bood" and settings.sampling.method == "bood" else extra


def sample_stage(kind: str) -> str:
    """Returns the name of the stage that samples the embeddings of a kind of images."""
    return "sample" if kind == "outliers" else f"sample {kind}"


def decode_stage(kind: str) -> str:
    """Returns the name of the stage that decodes images of a kind."""
    return "decode" if kind == "outliers" else f"decode {kind}"


def images_of_kind(settings: Settings, kind: str) -> int:
    """Returns how many images of a kind are decoded."""
    if kind == "inliers":
        return settings.inliers.images
    return getattr(settings.decoding, "outliers" if kind in OUTLIERS else kind)
