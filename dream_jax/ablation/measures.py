"""What is measured of each variant, and how the table shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dream_jax.evaluation.report.layouts import LEGEND_KEPT, Column, Group, Layout
from dream_jax.evaluation.seeds import summarise
from dream_jax.files import read_json
from dream_jax.results import stage_of
from dream_jax.run import Cache, Run

LEGEND = (
    "All but the rank in %, on OOD sets that no table of results reports. FPR95: OOD images taken "
    "for ID when 95 % of ID images are kept."
)
LEGEND_OUTLIERS = (
    "In class: outliers that the plain classifier gives to their class with a confidence of at "
    "least 95 %. Rank: effective rank of the outlier embeddings of a class, the mean over classes."
)


def effective_rank(vectors: Float[np.ndarray, "n d"]) -> float:
    """Returns the exponential of the entropy of the singular values, these taken as shares.

    It is 1 for vectors on one line through 0, and min(n, d) at most. Reference: Roy and Vetterli,
    "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.
    """
    own = np.asarray(vectors, np.float64)
    gram = own.T @ own if len(own) > own.shape[1] else own @ own.T
    values = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    values = values[values > 1e-7 * values.max(initial=0)]  # the rest is rounding
    shares = values / values.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def measure(run: Run, cache: Cache) -> dict[int, dict[str, Any]]:
    """Returns the measures of a finished variant, by the seeds of its classifiers.

    They are those of its row in metrics.json, and for a row that trains with imagined outliers
    `outliers`, the shares of them that are still `in_class` and that were `used`, and
    `embeddings`, with their `effective_rank`.

    Args:
      cache: keeps the rank of embeddings that several variants share.
    """
    (row,) = run.rows
    found: dict[int, dict[str, Any]] = {}
    for seed in run.seeds:
        found[seed] = dict(run.metrics["by_seed"][str(seed)][row.key])
        if row.extra == "outliers":
            trained = run.folder(stage_of("train", row.training, seed, run.settings.seed))
            judged = read_json(trained / "outliers.json")
            used = judged["used"] / judged["outliers"]
            found[seed]["outliers"] = {"in_class": judged["in_class"], "used": used}
            rank = cache.get(("effective rank", run.record("sample").digest), lambda: _rank(run))
            found[seed]["embeddings"] = {"effective_rank": rank}
    return found


def _rank(run: Run) -> float:
    """Returns the effective rank of a class's outlier embeddings, the mean over classes."""
    return float(np.mean([effective_rank(own) for own in run.embeddings("outliers")]))


def gather(measured: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Returns the measures of all variants as metrics.json has those of rows: means, deviations.

    Args:
      measured: variant → seed → measures; the same seeds for all.
    """
    seeds = next(iter(measured.values()))
    found = summarise({seed: {name: own[seed] for name, own in measured.items()} for seed in seeds})
    for deviations in found.get("std", {}).values():
        deviations.pop("embeddings", None)  # which are the same for all seeds
    return found


def layout_of(metrics: Mapping, sets: Sequence[str]) -> Layout:
    """Returns what the table shows.

    Args:
      metrics: of all variants, see `gather`.
      sets: the titles of the OOD sets that they were measured on.
    """
    detection = [
        Group(
            name,
            [
                Column("FPR95", ("ood", name, "fpr95"), higher_is_better=False),
                Column("AUROC", ("ood", name, "auroc")),
            ],
        )
        for name in ("mean", *(sets if len(sets) > 1 else ()))
    ]
    kept = [
        Column("trips", ("kept", "round_trips")),
        Column("named", ("kept", "sampled_by_name")),
    ]
    in_class = Column("in class", ("outliers", "in_class"), higher_is_better=False)
    rank = Column("rank", ("embeddings", "effective_rank"), in_percent=False)
    groups = [*detection, Group("ID", [Column("acc.", ("id_accuracy",))]), Group("kept", kept)]
    groups += [Group("outliers", [in_class]), Group("embeddings", [rank])]
    legend = [LEGEND, LEGEND_KEPT, LEGEND_OUTLIERS]
    return Layout(groups, list(metrics["methods"]), legend, subject="Variant")
