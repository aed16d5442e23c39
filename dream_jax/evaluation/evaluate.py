"""⑤ Scores of all test images, and the measures made from them."""

from collections.abc import Callable

import numpy as np

from dream_jax.evaluation.metrics import fraction_kept, mean_over_sets, ood_metrics


def score_sets(
    logits_of: Callable[[np.ndarray], np.ndarray],
    score: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    sets: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], float]:
    """Scores of every set and the ID accuracy.

    Args:
      logits_of: images (n, H, W, C) → logits (n, classes).
      score: logits → (n,), higher is more ID.
      labels: (n,) of the images in `sets["id"]`.
      sets: images by name, among them "id".
    """
    logits = {name: logits_of(images) for name, images in sets.items()}
    accuracy = float(np.mean(logits["id"].argmax(-1) == labels))
    return {name: np.asarray(score(value)) for name, value in logits.items()}, accuracy


def measure(
    scores: dict[str, np.ndarray], accuracy: float, ood: list[str], kept: list[str]
) -> dict:
    """A method's entry in metrics.json (FPR95, AUROC, AUPR with ID positive, as fractions).

    Args:
      scores: by set, as `score_sets` gives them.
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
