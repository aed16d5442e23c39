"""Zero-shot OOD detection: CLIP's scores of the images that the other rows are measured on.

Nothing is drawn at random, so the scores are computed for the first seed and are those of all.
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from dream_jax.data.images import Images
from dream_jax.evaluation.evaluators import ood
from dream_jax.record import RECORD
from dream_jax.results import Row, place, seeds_of, stage_of
from dream_jax.run import Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts
from dream_jax.zero_shot.folder import find
from dream_jax.zero_shot.rows import CLIP, read_words


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns a stage for every seed if there are zero-shot rows."""
    own = tuple(row for row in rows if row.training == CLIP)
    if not own:
        return []
    first, *others = seeds_of(settings)
    made = _stage(settings, own, first, None)
    return [made, *(_stage(settings, own, seed, made.name) for seed in others)]


def _stage(settings: Settings, rows: tuple[Row, ...], seed: int, of: str | None) -> Stage:
    """Returns the stage of a seed; `of` is that of the first, for all others."""
    use, reads = ood.use_of(settings), ood.READS
    options = {f"{row.key}: {name}": value for row in rows for name, value in row.options.items()}
    if of is None:
        fields = ["path", "revision", "prompt"]
        fields += ["words"] if any(row.detector == "neg_label" for row in rows) else []
        reads += ("eval_batch_size", *(f"zero_shot.{field}" for field in fields))
        making = partial(make, rows=rows, use=use)
    else:
        making = partial(repeat, of=of)
    return Stage(
        stage_of("evaluate", CLIP, seed, settings.seed),
        "evaluate",
        f"evaluation/{place(CLIP, seed, settings.seed)}",
        reads,
        making,
        (of,) if of else tuple(ood.KEPT.values()),
        options | {"rows": [row.key for row in rows], "seed": seed},
        check=partial(ood.check, use=use),
        derived=True,
    )


def make(work: Work, rows: Sequence[Row], use: str) -> None:
    """Writes the scores of every zero-shot row on every set, and their measures."""
    from dream_jax.zero_shot.clip import load  # transformers: slow to import

    own = work.settings.zero_shot
    folder = find(own.path, own.revision)
    assert folder is not None  # rows without weights are left out
    clip = load(folder, work.settings.eval_batch_size)

    def embedded(names: Sequence[str]) -> np.ndarray:
        return clip.texts([own.prompt.format(name=name) for name in names])

    with_words = any(row.detector == "neg_label" for row in rows)
    words = embedded(read_words(own.words) if own.words else clip.words()) if with_words else None
    texts = texts_of(rows, embedded(work.train.class_names), words)
    program = partial(scores_of, rows=rows)

    def scorer(images: Images) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        found = clip.score(program, images, texts)
        return found["logits"], found["scores of"]

    ood.score(work, scorer, rows, use)


def texts_of(rows: Sequence[Row], classes: np.ndarray, words: np.ndarray | None) -> dict[str, Any]:
    """Returns the embeddings of the classes, and of the negative labels of each row with some."""
    from dream_jax.zero_shot.scores import choose_negatives

    negatives = {}
    for row in rows:
        if row.detector == "neg_label" and words is not None:
            own = row.options["share"], row.options["quantile"]
            negatives[row.key] = words[choose_negatives(classes, words, *own)]
    return {"classes": classes, "negatives": negatives}


def scores_of(whole: Any, local: Any, texts: Mapping, rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the cosines with the classes and the scores of all rows; traced."""
    from dream_jax.zero_shot.scores import gl_mcm, mcm, neg_label

    classes, found = texts["classes"], {}
    cosines = whole @ classes.T
    for row in rows:
        own = row.options
        if row.detector == "mcm":
            found[row.key] = mcm(cosines, own["temperature"])
        elif row.detector == "gl_mcm":
            found[row.key] = gl_mcm(cosines, local @ classes.T, own["temperature"], own["local"])
        else:
            negatives = texts["negatives"][row.key]
            groups = min(own["groups"], len(negatives))
            found[row.key] = neg_label(cosines, whole @ negatives.T, own["temperature"], groups)
    return {"logits": cosines, "scores of": found}


def repeat(work: Work, of: str) -> None:
    """Writes the scores and measures of the first seed once more."""
    if hosts.is_main():
        own = shutil.ignore_patterns(RECORD)  # what the stage itself keeps
        shutil.copytree(work.run.folder(of), work.folder, ignore=own, dirs_exist_ok=True)


def results(run: Run, seed: int) -> dict[str, dict]:
    """Returns row → its entry, of one seed."""
    name = stage_of("evaluate", CLIP, seed, run.settings.seed)
    return run.results(name) if name in run.stages else {}
