"""A row of a finished run, as what scores images."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dream_jax.data.groups import ood_names
from dream_jax.data.images import Images
from dream_jax.data.registry import set_title
from dream_jax.loaded_run import LoadedRun, load_run
from dream_jax.scoring_files.scorer import ImageScorer, Score


def open_row(path: Path, key: str) -> ImageScorer:
    """Returns the scorer of a row; its detector is fitted when it is prepared.

    Of a run with several seeds, the first counts.

    Raises:
      UserError: there is no finished run, or it does not have the row.
    """
    run = load_run(path)
    row, data, known = run.row(key), run.settings.data, known_scores(run, key)

    def prepare() -> Score:
        both = run.scorer(key)

        def score(images: Images) -> tuple[np.ndarray, np.ndarray]:
            logits, scores = both(images)
            return logits, scores[key]

        return score

    return ImageScorer(
        title=f"{row.title} of run {run.settings.name}",
        class_names=run.class_names,
        size=data.image_size,
        channels=data.channels,
        unreadable=data.unreadable,
        batch_size=run.settings.eval_batch_size,
        known=known,
        identity={"run": run.settings.name, "row": key, "detector": _digest(known)},
        prepare=prepare,
    )


def known_scores(run: LoadedRun, key: str) -> dict[str, Float[np.ndarray, " m"]]:
    """Returns a row's scores of the ID test images, "id", and of the OOD sets.

    Raises:
      UserError: the run is not finished, or does not have the row.
    """
    scores = run.scores(key)
    ood = map(set_title, ood_names(run.settings.data))
    return {name: scores[name] for name in ("id", *ood) if name in scores}


def _digest(known: Mapping[str, Float[np.ndarray, " m"]]) -> str:
    """Returns what tells a detector from another: the scores that it gave to the test sets."""
    digest = hashlib.sha256()
    for name, scores in known.items():
        digest.update(f"{name}\0".encode() + np.ascontiguousarray(scores, "<f4").tobytes())
    return digest.hexdigest()
