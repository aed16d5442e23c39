"""OOD detection: the scores of every row on ID and OOD test sets, and what they measure.

Decoded images of the ID classes are scored too. A detector that has not learned the decoder's
traces scores them like real ones.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from dream_jax.data.image_sets import DataOptions
from dream_jax.data.images import Images
from dream_jax.data.registry import check_available, load_for, set_title
from dream_jax.errors import UserError
from dream_jax.files import write_json, write_npz
from dream_jax.results import Row, place, stage_of
from dream_jax.run import ID_FIELDS, Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts
from dream_jax.zero_shot.rows import CLIP

READS = (*ID_FIELDS, "data.ood", "data.ood_count")
# Decoded images of the ID classes: their name in results → the stage that made them.
KEPT = {"round_trips": "round trips test", "sampled_by_name": "decode by_name_test"}


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns a stage for every classifier; it measures all rows of that classifier in one pass."""
    seeds = settings.seeds or (settings.seed,)
    trainings = dict.fromkeys(row.training for row in rows if row.training != CLIP)
    return [_stage(settings, rows, training, seed) for seed in seeds for training in trainings]


def _stage(settings: Settings, rows: tuple[Row, ...], training: str, seed: int) -> Stage:
    own = tuple(row for row in rows if row.training == training)
    use = use_of(settings)
    options = {f"{row.key}: {name}": value for row in own for name, value in row.options.items()}
    return Stage(
        stage_of("evaluate", training, seed, settings.seed),
        "evaluate",
        f"evaluation/{place(training, seed, settings.seed)}",
        READS,
        partial(make, rows=own, seed=seed, use=use),
        (stage_of("train", training, seed, settings.seed), *KEPT.values()),
        options | {"rows": [row.key for row in own], "seed": seed},
        check=partial(check, use=use),
        derived=True,
    )


def use_of(settings: Settings) -> str:
    """Returns what messages call the sets of `data.ood`, which launch/tune.py tunes on."""
    return "tuning" if settings.data.ood == settings.data.tuning else "OOD"


def available(work: Work, use: str) -> dict[str, str]:
    """Returns title → name of the OOD sets that are on this machine; names the others once."""
    options = _options(work)
    names = work.available(use, work.settings.data.ood, lambda n: check_available(n, options))
    return {set_title(name): name for name in names}


def _options(work: Work) -> DataOptions:
    return DataOptions.of(work.settings.data, count=work.settings.data.ood_count)


def check(work: Work, use: str) -> None:
    """Loads the OOD sets, which shows whether their images can be read."""
    if not ood_sets(work, use):
        field = "tuning" if use == "tuning" else "ood"
        raise UserError(
            f"config.data.{field} is {work.settings.data.ood}; none of these sets is here"
        )


def ood_sets(work: Work, use: str) -> dict[str, Images]:
    """Returns the images of the OOD sets that are on this machine, by their titles."""
    options, found = _options(work), {}
    for title, name in available(work, use).items():
        load = partial(load_for, use, name, options)
        found[title] = work.run.cache.get(("OOD", name, options), load).images
    return found


def make(work: Work, rows: Sequence[Row], seed: int, use: str) -> None:
    """Writes the scores of every row on every set, and their measures as results.json."""
    sets = test_sets(work, use)
    classifier = work.run.classifier(rows[0].training, seed)
    scorer = classifier.fit({row.key: (row.detector, row.options) for row in rows}, work.train)
    by_row, accuracy = score_sets(scorer, work.test.labels, sets)
    if not hosts.is_main():
        return
    titles, results = [*available(work, use)], {}
    for row in rows:
        write_npz(work.folder / f"scores_{row.detector}.npz", **by_row[row.key])
        results[row.key] = measure(by_row[row.key], accuracy, titles, [*KEPT])
    write_json(work.folder / "results.json", results)


def test_sets(work: Work, use: str) -> dict[str, Images]:
    """Returns all images that are scored, by the names of their sets in results."""
    return {
        "id": work.test.images,
        **ood_sets(work, use),
        "round_trips": work.run.round_trips("test"),
        "sampled_by_name": work.run.decoded("by_name_test")[0],
    }


Scorer = Callable[[Images], tuple[Float[np.ndarray, "n classes"], dict[str, np.ndarray]]]


def score_sets(
    scorer: Scorer, labels: Int[np.ndarray, " n"], sets: Mapping[str, Images]
) -> tuple[dict[str, dict[str, np.ndarray]], float]:
    """Scores every set by all rows of one classifier, and measures its ID accuracy.

    Args:
      scorer: images → (logits (n, classes), {row: scores (n,)}), higher is more ID.
      labels: of the images in `sets["id"]`.
      sets: images by name, among them "id".

    Returns:
      ({row: {set: scores (n,)}}, accuracy).
    """
    outputs = {name: scorer(images) for name, images in sets.items()}
    logits, rows = outputs["id"]
    accuracy = float(np.mean(logits.argmax(-1) == labels))
    by_row = {
        row: {name: np.asarray(scores[row]) for name, (_, scores) in outputs.items()}
        for row in rows
    }
    return by_row, accuracy


def measure(
    scores: Mapping[str, Float[np.ndarray, " n"]],
    accuracy: float,
    ood: Sequence[str],
    kept: Sequence[str],
) -> dict:
    """Returns a row's entry in metrics.json: FPR95, AUROC and AUPR with ID positive, as fractions.

    Args:
      scores: by set, of one row.
      ood: names of the OOD sets.
      kept: names of the sets of decoded ID images, of which the share is measured that passes the
        threshold that keeps 95 % of the ID test images.
    """
    from dream_jax.evaluation.metrics import (  # scikit-learn: slow to import
        fraction_kept,
        mean_over_sets,
        ood_metrics,
    )

    per_set = {name: ood_metrics(scores["id"], scores[name]) for name in ood}
    return {
        "id_accuracy": accuracy,
        "kept": {name: fraction_kept(scores["id"], scores[name]) for name in kept},
        "ood": per_set | {"mean": mean_over_sets(per_set)},
    }


def results(run: Run, seed: int) -> dict[str, dict]:
    """Returns row → its entry, of one seed."""
    found: dict[str, dict] = {}
    for training in dict.fromkeys(row.training for row in run.rows if row.training != CLIP):
        found |= run.results(stage_of("evaluate", training, seed, run.settings.seed))
    return found
