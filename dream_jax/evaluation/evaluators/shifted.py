"""Accuracy of all classifiers on test sets that show the ID classes with another look."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from tqdm import tqdm

from dream_jax.data.image_sets import DataOptions
from dream_jax.errors import UserError
from dream_jax.files import write_json
from dream_jax.results import Row, place, seeds_of, stage_of
from dream_jax.run import ID_FIELDS, Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts
from dream_jax.zero_shot.rows import trainings_of

SHIFTED = "shifted"


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns a stage for every seed, which loads each set once for all classifiers of the seed.

    There are none without such sets.
    """
    trainings = trainings_of(rows)
    return [
        Stage(
            stage_of("evaluate", SHIFTED, seed, settings.seed),
            "evaluate",
            f"evaluation/{place(SHIFTED, seed, settings.seed)}",
            (*ID_FIELDS, "data.shifted"),
            partial(make, trainings=trainings, seed=seed),
            tuple(stage_of("train", training, seed, settings.seed) for training in trainings),
            {"seed": seed},
            check=check,
            derived=True,
        )
        for seed in (seeds_of(settings) if settings.data.shifted else ())
    ]


def available(work: Work) -> tuple[str, ...]:
    """Returns the names of the sets that are on this machine; names the others once."""
    from dream_jax.data.shifted import check_shifted

    options = DataOptions.of(work.settings.data, count=1)
    names = work.settings.data.shifted
    return work.available("shifted", names, lambda name: check_shifted(name, options))


def check(work: Work) -> None:
    """Opens every image, once for all seeds, and names the sets that are not on this machine.

    Holds none of the images: together the sets of a benchmark may be larger than the memory.
    """
    from dream_jax.data.corruptions import CORRUPTIONS

    options = replace(DataOptions.of(work.settings.data, count=1), hold_bytes=0)
    for name in available(work):
        if name not in CORRUPTIONS:  # which are made of the ID test images
            load = partial(_open_all, work, name, options)
            work.run.cache.get((SHIFTED, name, options), load)


def _open_all(work: Work, name: str, options: DataOptions) -> None:
    from dream_jax.data.shifted import load_shifted

    try:
        for _ in load_shifted(name, work.test, options):
            pass
    except UserError as error:
        raise UserError(f"the shifted set {name!r} cannot be used: {error}") from error


def make(work: Work, trainings: Sequence[str], seed: int) -> None:
    """Writes results.json: {training: accuracies as `mean_accuracies` gives them}."""
    from dream_jax.data.shifted import load_shifted

    options = DataOptions.of(work.settings.data, count=1)
    logits_of = {training: work.run.classifier(training, seed).logits for training in trainings}
    accuracies: dict[str, dict[str, dict[int, float]]] = {training: {} for training in trainings}
    sets = (load_shifted(name, work.test, options) for name in available(work))
    for family, strength, shifted in tqdm(chain.from_iterable(sets), "shifted", unit="set"):
        for training, own in accuracies.items():
            right = logits_of[training](shifted.images).argmax(-1) == shifted.labels
            own.setdefault(family, {})[strength] = float(np.mean(right))
    if hosts.is_main():
        results = {training: mean_accuracies(own) for training, own in accuracies.items()}
        write_json(work.folder / "results.json", results)


def mean_accuracies(accuracies: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    """Returns accuracies with their means: over strengths, then over families.

    Args:
      accuracies: {family: {strength: accuracy}}; strength 0 is that of a set without strengths.

    Returns:
      {family: {"1": ..., "5": ..., "mean": ...}, ..., "mean": ...}.
    """
    families = {
        family: {str(s): value for s, value in own.items() if s}
        | {"mean": float(np.mean(list(own.values())))}
        for family, own in accuracies.items()
    }
    return families | {"mean": float(np.mean([own["mean"] for own in families.values()]))}


def results(run: Run, seed: int) -> dict[str, dict]:
    """Returns {row: {"shifted": accuracies}} of one seed.

    Accuracy belongs to a classifier, so it stands in one row of each: that of the detector of its
    paper, or else its first.
    """
    stage = stage_of("evaluate", SHIFTED, seed, run.settings.seed)
    if stage not in run.stages:
        return {}
    first: dict[str, str] = {}
    for row in sorted(run.rows, key=lambda row: not row.main):
        first.setdefault(row.training, row.key)
    return {first[training]: {"shifted": own} for training, own in run.results(stage).items()}
