"""Questions to a run beyond its own results: walks through the embeddings, scales, disagreements.

Everything is computed anew from what the run left, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax
from scipy.stats import rankdata

from dream_jax.data.images import Images
from dream_jax.data.sources import Pixels, to_bytes
from dream_jax.detector.methods import PLAIN
from dream_jax.errors import UserError
from dream_jax.keys import stage_key
from dream_jax.knn import d_k
from dream_jax.sampling.rounds import sample_embeddings
from dream_jax.sampling.settings import BY_DISTANCE, SamplerSettings
from dream_jax.settings import as_dict, flatten
from dream_jax.variety import measure
from dream_jax.vectors import unit_on_host, walk

if TYPE_CHECKING:
    import pandas as pd

    from dream_jax.loaded_run import LoadedRun


class Walk(NamedTuple):
    """Points on the way from a class's anchor to an outlier and beyond.

    Attributes:
      share: of the angle to the outlier, which is at 1.
      embeddings: (n, d), of the length of the anchor.
      distance: d_k to the features of the class, on the unit sphere.
      images: decoded from the embeddings, all from the same noise.
      confidence: of the plain classifier in the class.
    """

    share: Float[np.ndarray, " n"]
    embeddings: Float[np.ndarray, "n d"]
    distance: Float[np.ndarray, " n"]
    images: Float[np.ndarray, "n H W C"]
    confidence: Float[np.ndarray, " n"]


class Scales(NamedTuple):
    """Outliers of one class at several scales of the noise.

    Attributes:
      table: a line for each scale: `distance`, the mean d_k of the embeddings; `in_class`, the mean
        confidence of the plain classifier in the class; `still_in_class`, the share of images that
        it gives to the class.
      images: scale → (n, H, W, C); the same noise begins the images of all scales.
    """

    table: pd.DataFrame
    images: dict[float, Float[np.ndarray, "n H W C"]]


def label_of(run: LoadedRun, name: str) -> int:
    """Returns the label of a class by its name.

    Raises:
      UserError: the run has no such class.
    """
    if name not in run.class_names:
        raise UserError(f"the run has no class {name!r}; it has {', '.join(run.class_names)}")
    return run.class_names.index(name)


def class_features(run: LoadedRun, label: int) -> Float[np.ndarray, "n d"]:
    """Returns the ID features of a class as unit vectors."""
    known = run.features
    return unit_on_host(known.features[known.labels == label])


def distances(
    run: LoadedRun, embeddings: Float[np.ndarray, "n d"], label: int
) -> Float[np.ndarray, " n"]:
    """Returns d_k: the squared distance to the k-th nearest feature of a class, on the unit sphere.

    k is the run's `sampling.k`, or the number of features if they are fewer, as they may be where
    BOOD samples. Dream-OOD's step ② looks for embeddings that have it large.
    """
    return d_k(embeddings, class_features(run, label), run.settings.sampling.k)


def variety(run: LoadedRun) -> pd.DataFrame:
    """Measures how varied the outlier embeddings of each class are, and where they lie.

    Returns:
      A line for each class, with the numbers that metrics.json has of it after the evaluation:
      `distinct`, `effective_rank`, `collapsed`, and columns such as `d_k.embeddings.median` and
      `nearest_cosine.own_class.max`; see `dream_jax.variety`.
    """
    import pandas as pd

    sampling = run.settings.sampling
    found = measure(run.features, run.embeddings, sampling.k, sampling.boundary)
    return pd.DataFrame(map(flatten, found), index=pd.Index(run.class_names, name="class"))


def confidence(
    run: LoadedRun, images: Float[np.ndarray, "n H W C"], label: int
) -> Float[np.ndarray, " n"]:
    """Returns the probability that the plain classifier gives to a class."""
    return softmax(_plain_logits(run, images), axis=-1)[:, label]


def walk_beyond(
    run: LoadedRun, name: str, outlier: int = 0, steps: int = 9, reach: float = 2.0, seed: int = 0
) -> Walk:
    """Walks from the anchor of a class to one of its outliers and beyond, decoding on the way.

    Args:
      name: of the class.
      outlier: which of its outlier embeddings.
      steps: number of points.
      reach: how far to go, in angles from the anchor to the outlier.
      seed: of the noise.

    Raises:
      UserError: the run has no such class or outlier, or there are fewer than 2 steps.
    """
    label, count = label_of(run, name), run.embeddings.shape[1]
    if not 0 <= outlier < count:
        raise UserError(f"there is no outlier {outlier} of class {name!r}; it has {count}, from 0")
    if steps < 2:
        raise UserError(f"steps is {steps}; it must be at least 2")
    points = walk(run.features.anchors[label], run.embeddings[label, outlier], steps, reach)
    images = _decoded(run, points, label, np.zeros(steps, int), seed)
    return Walk(
        np.linspace(0, reach, steps),
        points,
        distances(run, points, label),
        images,
        confidence(run, images, label),
    )


def by_scale(
    run: LoadedRun, name: str, scales: Sequence[float], count: int = 8, seed: int = 0
) -> Scales:
    """Samples and decodes outliers of a class at several scales of the noise.

    Args:
      name: of the class.
      scales: values of `sampling.scale`; the other settings are the run's.
      count: images at each scale.
      seed: of the sampler and of the decoder.

    Raises:
      UserError: the run has no such class, it samples otherwise than by distance, or a scale is not
        allowed.
    """
    import pandas as pd

    if (method := run.settings.sampling.method) not in BY_DISTANCE:
        raise UserError(
            f"the run's sampling.method is {method!r}; by_scale samples by distance and takes runs "
            f"with one of {', '.join(BY_DISTANCE)}"
        )
    if not len(scales) or count < 1:
        raise UserError(f"scales are {scales!r} and count is {count}; one of each is the least")
    label, known = label_of(run, name), run.features
    features = known.features[known.labels == label]
    length = np.linalg.norm(known.anchors[label])
    settings = SamplerSettings.of_outliers(run.settings.sampling)
    lines, images = [], {}
    for scale in scales:
        key = stage_key(seed, "explore", label)
        sampled = sample_embeddings(features, key, replace(settings, scale=scale)) * length
        chosen = np.random.default_rng(seed).choice(len(sampled), count, len(sampled) < count)
        images[scale] = _decoded(run, sampled[chosen], label, np.arange(count), seed)
        logits = _plain_logits(run, images[scale])
        lines.append(
            {
                "distance": distances(run, sampled, label).mean(),
                "in_class": softmax(logits, axis=-1)[:, label].mean(),
                "still_in_class": np.mean(logits.argmax(-1) == label),
            }
        )
    return Scales(pd.DataFrame(lines, index=pd.Index(scales, name="scale")), images)


def disagreements(
    run: LoadedRun, one: str, other: str, kind: str, count: int = 8
) -> Int[np.ndarray, " count"]:
    """Returns the images of a set on which two rows disagree most.

    Scores of two rows have no common scale, so their ranks among the set's and the ID test images
    are compared.

    Args:
      one, other: keys of the rows.
      kind: "id" or the name of an OOD set, as in `run.scores`.
      count: how many, at most.

    Returns:
      Indices of images that `one` takes for more ID than `other` does, the most first.
    """
    ranks = []
    for row in (one, other):
        scores = run.scores(row)
        if kind not in scores:
            raise UserError(f"the run has no scores of {kind!r}; it has {', '.join(scores)}")
        ranks.append(rankdata(np.concatenate([scores[kind], scores["id"]]))[: len(scores[kind])])
    return np.argsort(ranks[1] - ranks[0], kind="stable")[:count]


def compare(runs: Mapping[str, LoadedRun], measure: str = "fpr95") -> pd.DataFrame:
    """Returns a measure of all rows of several runs side by side, as means over their seeds.

    Args:
      runs: title → run.
      measure: "fpr95", "auroc" or "aupr_in".

    Returns:
      A line for each (run, row), a column for each OOD set that a run has, and "mean".
    """
    import pandas as pd

    if not runs:
        raise UserError("compare got no runs; give it at least one")
    parts = {
        title: run.metrics.xs(measure, axis="columns", level="measure").groupby("row", sort=False)
        for title, run in runs.items()
    }
    return pd.concat({title: part.mean() for title, part in parts.items()}, names=("run", "row"))


def differences(runs: Mapping[str, LoadedRun]) -> pd.DataFrame:
    """Returns the settings in which runs differ, a line each, with a column for each run.

    Args:
      runs: title → run.
    """
    import pandas as pd

    if not runs:
        raise UserError("differences got no runs; give it at least one")
    columns = {title: flatten(as_dict(run.settings)) for title, run in runs.items()}
    frame = pd.DataFrame({title: pd.Series(own, dtype=object) for title, own in columns.items()})
    shown = frame.map(repr)
    return frame[shown.ne(shown.iloc[:, 0], axis="index").any(axis="columns")]


def _plain_logits(run: LoadedRun, images: np.ndarray) -> Float[np.ndarray, "n classes"]:
    return run.classifier(PLAIN).logits(Images.of(images))


def _decoded(
    run: LoadedRun, embeddings: np.ndarray, label: int, noise: np.ndarray, seed: int
) -> Float[np.ndarray, "n H W C"]:
    """Returns decoded images as they are read from their files: at the size of the run's data.

    By the prompt of ID images, so that only the embeddings lead away from the class.
    """
    prompt = run.settings.decoding.id_prompt
    made = run.decode(embeddings, np.full(len(embeddings), label), seed, noise, prompt)
    data = run.settings.data
    return Images(
        Pixels(to_bytes(made)), np.arange(len(made)), data.image_size, data.channels, crop=False
    )[:]
