"""OOD detection: the scores of every row on ID and OOD test sets, and what they measure.

Decoded images of the ID classes are scored too. A detector that has not learned the decoder's
traces scores them like real ones.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dream_jax.data.groups import GROUPS, groups_of, ood_names
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.images import Images
from dream_jax.data.registry import check_available, load_for, set_title
from dream_jax.errors import UserError
from dream_jax.evaluation.full_spectrum import NAME, Scorer, score_shifted
from dream_jax.evaluation.metrics import METRICS
from dream_jax.files import write_json, write_npz
from dream_jax.results import Row, place, seeds_of, stage_of
from dream_jax.run import ID_FIELDS, Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts
from dream_jax.zero_shot.rows import trainings_of

READS = (
    *ID_FIELDS,
    *(f"data.{group}" for group in GROUPS),
    *("data.ood_count", "data.full_spectrum"),
)
# Decoded images of the ID classes: their name in results → the stage that made them.
KEPT = {"round_trips": "round trips test", "sampled_by_name": "decode by_name_test"}


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns a stage for every classifier; it measures all rows of that classifier in one pass."""
    classifiers = product(seeds_of(settings), trainings_of(rows))
    return [_stage(settings, rows, training, seed) for seed, training in classifiers]


def _stage(settings: Settings, rows: tuple[Row, ...], training: str, seed: int) -> Stage:
    own = tuple(row for row in rows if row.training == training)
    use = use_of(settings)
    options = {f"{row.key}: {name}": value for row in own for name, value in row.options.items()}
    # Results of a version that measured less are made again.
    options |= {"measures": [*METRICS, "id_aurc"]}
    return Stage(
        stage_of("evaluate", training, seed, settings.seed),
        "evaluate",
        f"evaluation/{place(training, seed, settings.seed)}",
        (*READS, *(["data.shifted"] if settings.data.full_spectrum else [])),
        partial(make, rows=own, seed=seed, use=use),
        (stage_of("train", training, seed, settings.seed), *KEPT.values()),
        options | {"rows": [row.key for row in own], "seed": seed},
        check=partial(check, use=use),
        derived=True,
    )


def use_of(settings: Settings) -> str:
    """Returns what messages call the sets, which launch/tune.py makes those to tune on."""
    data = settings.data
    return "tuning" if data.tuning and ood_names(data) == data.tuning else "OOD"


def available(work: Work, use: str) -> dict[str, str]:
    """Returns title → name of the OOD sets that are on this machine; names the others once."""
    options, names = _options(work), ood_names(work.settings.data)
    here = work.available(use, names, lambda name: check_available(name, options))
    return {set_title(name): name for name in here}


def _options(work: Work) -> DataOptions:
    return DataOptions.of(work.settings.data, count=work.settings.data.ood_count)


def check(work: Work, use: str) -> None:
    """Loads the OOD sets, which shows whether their images can be read."""
    if not ood_sets(work, use):
        data = work.settings.data
        groups = ["tuning"] if use == "tuning" else [g for g in GROUPS if getattr(data, g)]
        fields = " and ".join(f"config.data.{group}" for group in groups)
        verb = "are" if len(groups) > 1 else "is"
        raise UserError(f"{fields} {verb} {ood_names(data)}; none of these sets is here")


def ood_sets(work: Work, use: str) -> dict[str, Images]:
    """Returns the images of the OOD sets that are on this machine, by their titles."""
    options, found = _options(work), {}
    for title, name in available(work, use).items():
        load = partial(load_for, use, name, options)
        found[title] = work.run.cache.get(("OOD", name, options), load).images
    return found


def make(work: Work, rows: Sequence[Row], seed: int, use: str) -> None:
    """Fits the detectors of a classifier's rows and writes their scores and measures.

    scores_<detector>.npz has those of every set, results.json the measures of the rows,
    predictions.npz has the class of every image, by sets, and labels.npz those of ID images. With
    the full spectrum, all is measured with the shifted sets too, and they have the same files.
    """
    classifier = work.run.classifier(rows[0].training, seed)
    scorer = classifier.fit({row.key: (row.detector, row.options) for row in rows}, work.train)
    score(work, scorer, rows, use)


def score(work: Work, scorer: Scorer, rows: Sequence[Row], use: str) -> None:
    """Scores all sets by the rows of one scorer and writes what `make` says."""
    by_row, predictions = score_sets(scorer, test_sets(work, use))
    full = work.settings.data.full_spectrum
    shifted = score_shifted(work, scorer, [row.key for row in rows]) if full else None
    if not hosts.is_main():
        return
    wrong = predictions["id"] != work.test.labels
    write_npz(work.folder / "predictions.npz", **predictions)
    write_npz(work.folder / "labels.npz", id=work.test.labels)
    titles, results = [*available(work, use)], {}
    groups = groups_of(work.settings.data, titles)
    for row in rows:
        own = by_row[row.key]
        write_npz(work.folder / f"scores_{row.detector}.npz", **own)
        results[row.key] = measure(own, wrong, titles, [*KEPT], groups)
        if shifted:
            write_npz(work.folder / NAME / f"scores_{row.detector}.npz", **shifted.by_row[row.key])
            joined, misread = shifted.joined(row.key, own["id"], wrong)
            results[row.key][NAME] = measure(own | {"id": joined}, misread, titles, [], groups)
    if shifted:
        write_npz(work.folder / NAME / "predictions.npz", **shifted.predictions)
        write_npz(work.folder / NAME / "labels.npz", **shifted.labels)
    write_json(work.folder / "results.json", results)


def test_sets(work: Work, use: str) -> dict[str, Images]:
    """Returns all images that are scored, by the names of their sets in results."""
    return {
        "id": work.test.images,
        **ood_sets(work, use),
        "round_trips": work.run.round_trips("test"),
        "sampled_by_name": work.run.decoded("by_name_test")[0],
    }


def score_sets(
    scorer: Scorer, sets: Mapping[str, Images]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Int[np.ndarray, " n"]]]:
    """Scores every set by all rows of one classifier.

    Args:
      scorer: images → (logits (n, classes), {row: scores (n,)}), higher is more ID.
      sets: images by name.

    Returns:
      ({row: {set: scores (n,)}}, {set: the classes that the images are read as (n,)}).
    """
    predictions: dict[str, np.ndarray] = {}
    by_row: dict[str, dict[str, np.ndarray]] = {}
    for name, images in sets.items():
        logits, scores = scorer(images)
        predictions[name] = logits.argmax(-1).astype(np.int32)
        for row, own in scores.items():
            by_row.setdefault(row, {})[name] = np.asarray(own)
    return by_row, predictions


def measure(
    scores: Mapping[str, Float[np.ndarray, " n"]],
    wrong: Bool[np.ndarray, " n"],
    ood: Sequence[str],
    kept: Sequence[str],
    groups: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict:
    """Returns a row's entry in metrics.json, as fractions: see `metrics.ood_metrics`.

    Args:
      scores: by set, of one row.
      wrong: whether the classifier is wrong about an ID test image.
      ood: names of the OOD sets.
      kept: names of the sets of decoded ID images, of which the share is measured that passes the
        threshold that keeps 95 % of the ID test images.
      groups: names of the OOD sets of each group whose means are measured too.
    """
    from dream_jax.evaluation.metrics import (  # scikit-learn: slow to import
        fraction_kept,
        mean_over_sets,
        ood_metrics,
        risk_coverage_area,
    )

    per_set = {name: ood_metrics(scores["id"], scores[name]) for name in ood}
    entry: dict[str, Any] = {
        "id_accuracy": float(np.mean(~wrong)),
        "id_aurc": risk_coverage_area(scores["id"], wrong),
    }
    if kept:
        entry["kept"] = {name: fraction_kept(scores["id"], scores[name]) for name in kept}
    entry |= {
        "ood": per_set | {"mean": mean_over_sets(per_set)},
    }
    if groups:
        entry["groups"] = {
            group: mean_over_sets({name: per_set[name] for name in names})
            for group, names in groups.items()
        }
    return entry


def results(run: Run, seed: int) -> dict[str, dict]:
    """Returns row → its entry, of one seed."""
    found: dict[str, dict] = {}
    for training in trainings_of(run.rows):
        found |= run.results(stage_of("evaluate", training, seed, run.settings.seed))
    return found
