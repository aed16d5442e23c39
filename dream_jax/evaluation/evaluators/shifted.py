"""Accuracy of all classifiers on test sets that show the ID classes with another look."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from tqdm import tqdm

from dream_jax.data.image_sets import DataOptions
from dream_jax.errors import UserError
from dream_jax.files import write_json
from dream_jax.results import Row, stage_of
from dream_jax.run import ID_FIELDS, Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts
from dream_jax.zero_shot.rows import CLIP

NAME = "evaluate shifted"


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns one stage, which loads every set once for all classifiers; none without such sets."""
    if not settings.data.shifted:
        return []
    seeds = settings.seeds or (settings.seed,)
    trainings = dict.fromkeys(row.training for row in rows if row.training != CLIP)
    classifiers = [(training, seed) for seed in seeds for training in trainings]
    return [
        Stage(
            NAME,
            "evaluate",
            "evaluation/shifted",
            (*ID_FIELDS, "data.shifted"),
            partial(make, classifiers=classifiers),
            tuple(stage_of("train", *classifier, settings.seed) for classifier in classifiers),
            {"seeds": list(seeds)},
            check=check,
            derived=True,
        )
    ]


def available(work: Work) -> tuple[str, ...]:
    """Returns the names of the sets that are on this machine; names the others once."""
    from dream_jax.data.shifted import check_shifted

    options = DataOptions.of(work.settings.data, count=1)
    names = work.settings.data.shifted
    return work.available("shifted", names, lambda name: check_shifted(name, options))


def check(work: Work) -> None:
    """Opens every image, and names the sets that are not on this machine.

    Holds none of the images: together the sets of a benchmark may be larger than the memory.
    """
    from dream_jax.data.corruptions import CORRUPTIONS
    from dream_jax.data.shifted import load_shifted

    options = replace(DataOptions.of(work.settings.data, count=1), hold_bytes=0)
    for name in available(work):
        if name not in CORRUPTIONS:  # which are made of the ID test images
            try:
                for _ in load_shifted(name, work.test, options):
                    pass
            except UserError as error:
                raise UserError(f"the shifted set {name!r} cannot be used: {error}") from error


def make(work: Work, classifiers: list[tuple[str, int]]) -> None:
    """Writes results.json: {seed: {training: accuracies as `mean_accuracies` gives them}}."""
    from dream_jax.data.shifted import load_shifted

    options = DataOptions.of(work.settings.data, count=1)
    logits_of = {c: work.run.classifier(*c).logits for c in classifiers}
    accuracies: dict[tuple[str, int], dict[str, dict[int, float]]] = {c: {} for c in classifiers}
    sets = (load_shifted(name, work.test, options) for name in available(work))
    for family, strength, shifted in tqdm(chain.from_iterable(sets), "shifted", unit="set"):
        for classifier, own in accuracies.items():
            right = logits_of[classifier](shifted.images).argmax(-1) == shifted.labels
            own.setdefault(family, {})[strength] = float(np.mean(right))
    results: dict[str, dict] = {}
    for (training, seed), own in accuracies.items():
        results.setdefault(str(seed), {})[training] = mean_accuracies(own)
    if hosts.is_main():
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
    if NAME not in run.stages:
        return {}
    found = run.results(NAME)[str(seed)]
    first: dict[str, str] = {}
    for row in sorted(run.rows, key=lambda row: not row.main):
        first.setdefault(row.training, row.key)
    return {first[training]: {"shifted": own} for training, own in found.items()}
