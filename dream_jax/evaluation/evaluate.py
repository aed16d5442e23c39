"""⑤ Scores of all test images, and the measures made from them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dream_jax.evaluation.metrics import fraction_kept, mean_over_sets, ood_metrics


def score_sets(
    scores_of: Callable[[np.ndarray], tuple[np.ndarray, dict[str, np.ndarray]]],
    labels: np.ndarray,
    sets: dict[str, np.ndarray],
) -> tuple[dict[str, dict[str, np.ndarray]], float]:
    """Scores of every set by all scores of one classifier, and its ID accuracy.

    Args:
      scores_of: images (n, H, W, C) → (logits (n, classes), {name of the score: (n,)}), higher is
        more ID.
      labels: (n,) of the images in `sets["id"]`.
      sets: images by name, among them "id".

    Returns:
      ({name of the score: {name of the set: (n,)}}, accuracy).
    """
    outputs = {name: scores_of(images) for name, images in sets.items()}
    logits, names = outputs["id"]
    accuracy = float(np.mean(logits.argmax(-1) == labels))
    by_score = {
        score: {name: np.asarray(scores[score]) for name, (_, scores) in outputs.items()}
        for score in names
    }
    return by_score, accuracy


def measure(
    scores: dict[str, np.ndarray], accuracy: float, ood: list[str], kept: list[str]
) -> dict:
    """A method's entry in metrics.json (FPR95, AUROC, AUPR with ID positive, as fractions).

    Args:
      scores: by set, as `score_sets` gives them for one score.
      ood: names of the OOD sets.
      kept: names of the sets of decoded ID images; measured is the share above the threshold
        that keeps 95 % of the ID test images.
    """
    per_set = {name: ood_metrics(scores["id"], scores[name]) for name in ood}
    return {
        "id_accuracy": accuracy,
        "kept": {name: fraction_kept(scores["id"], scores[name]) for name in kept},
        "ood": per_set | {"mean": mean_over_sets(per_set)},
    }


def mean_accuracies(accuracies: dict[str, dict[int, float]]) -> dict[str, Any]:
    """Accuracies on shifted sets with their means: over strengths, then over families.

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
