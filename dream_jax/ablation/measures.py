"""What is measured of each variant, and how the table shows it."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from dream_jax.ablation.variants import RECIPE
from dream_jax.evaluation.bootstrap import difference, paired_bootstrap
from dream_jax.evaluation.report.layouts import LEGEND_KEPT, Column, Group, Layout
from dream_jax.evaluation.seeds import summarise
from dream_jax.files import read_json
from dream_jax.results import OUTLIERS, kind_shown, stage_of
from dream_jax.run import Run

LEGEND = (
    "All but the rank in %, on OOD sets that no table of results reports. FPR95: OOD images taken "
    "for ID when 95 % of ID images are kept."
)
LEGEND_OUTLIERS = (
    "In class: outliers that the plain classifier gives to their class with a confidence of at "
    "least 95 %. Different: outlier embeddings of a class that are not nearly another one; rank: "
    "their effective rank; means over classes."
)


def measure(run: Run) -> dict[int, dict[str, Any]]:
    """Returns the measures of a finished variant, by the seeds of its classifiers.

    They are those of its row in metrics.json, and for a row that trains with imagined outliers
    the share of these that are still `in_class`, in `outliers`, and `embeddings`, the means over
    classes in metrics.json, the same for all seeds.
    """
    (row,), metrics = run.rows, run.metrics
    found: dict[int, dict[str, Any]] = {}
    for seed in run.seeds:
        found[seed] = copy.deepcopy(metrics["by_seed"][str(seed)][row.key])
        if row.extra in OUTLIERS:
            trained = run.folder(stage_of("train", row.training, seed, run.settings.seed))
            judged = read_json(trained / "outliers.json")
            found[seed]["outliers"] |= {"in_class": judged["in_class"]}
        if kind_shown(run.settings, row.extra) == "outliers":  # of which metrics.json tells
            found[seed]["embeddings"] = metrics["embeddings"]["mean"]
    return found


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


def compare(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Returns a paired bootstrap over the test images of some variants, see `paired_bootstrap`.

    Args:
      runs: of the variants that were measured, by their names.
    """
    first = next(iter(runs.values()))
    (entry,) = first.metrics["methods"].values()
    scores = {
        seed: {name: run.scores(seed)[run.rows[0].key] for name, run in runs.items()}
        for seed in first.seeds
    }
    return paired_bootstrap(scores, [name for name in entry["ood"] if name != "mean"])


def less_recipe(
    metrics: Mapping[str, Any], variant: str, metric: str
) -> tuple[float, float, float] | None:
    """Returns a variant's mean over the sets less the recipe's, and the ends of its interval.

    None is the recipe's own, and that of a recipe which has no results.

    Args:
      metrics: of all variants, see `gather`, with the `bootstrap` of `compare`.
      metric: "fpr95" or "auroc".
    """
    if variant == RECIPE or RECIPE not in metrics["methods"]:
        return None
    return difference(metrics["bootstrap"], metric, "mean", variant, RECIPE)


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
    variety = [
        Column("different", ("embeddings", "distinct_share")),
        Column("rank", ("embeddings", "effective_rank"), in_percent=False),
    ]
    groups = [*detection, Group("ID", [Column("acc.", ("id_accuracy",))]), Group("kept", kept)]
    groups += [Group("outliers", [in_class]), Group("embeddings", variety)]
    legend = [LEGEND, LEGEND_KEPT, LEGEND_OUTLIERS]
    return Layout(groups, list(metrics["methods"]), legend, subject="Variant")
