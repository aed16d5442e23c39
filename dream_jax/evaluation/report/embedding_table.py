"""What the page says of the outlier embeddings of each class: see `evaluators/embeddings.py`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dream_jax.legible import legible
from dream_jax.variety import collapse_note

# Title, then the measures below it: heading, path in the entry of a class.
GROUPS = (
    ("d_k", {"embeddings": "d_k.embeddings", "boundary set": "d_k.boundary_set",
             "class": "d_k.class"}),
    ("cosine to the nearest ID feature of", {"own class": "nearest_cosine.own_class",
                                             "other classes": "nearest_cosine.other_classes"}),
)  # fmt: skip


class EmbeddingRow(NamedTuple):
    """A line of the table.

    Attributes:
      name: of the class.
      collapsed: whether its embeddings have.
      distinct: the number of different ones.
      rank: their effective rank.
      cells: median and range of each measure of `GROUPS`.
    """

    name: str
    collapsed: bool
    distinct: str
    rank: str
    cells: list[tuple[str, str]]


def embedding_table(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the template shows of the part `embeddings` of metrics.json.

    Returns:
      `note`, a sentence if embeddings have collapsed, else ""; `groups` of columns; `rows`, of
      which the first is the median over classes where there are several; and a `legend`.
    """
    classes = measured["classes"]
    rows = [_row(legible(name), [own]) for name, own in classes.items()]
    if len(rows) > 1:
        rows.insert(0, _row("median of all classes", [*classes.values()]))
    return {
        "note": note(measured),
        "groups": [(title, list(columns)) for title, columns in GROUPS],
        "of": f"{measured['grouped']:,}",
        "rows": rows,
        "legend": _legend(measured),
    }


def note(measured: Mapping[str, Any]) -> str:
    """Returns a sentence about the classes whose embeddings have collapsed; "" if none has."""
    distinct = {legible(name): own["distinct"] for name, own in measured["classes"].items()}
    return collapse_note(distinct, measured["grouped"])


def fact(measured: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns (label, value, explanation) of the share of embeddings that are different."""
    classes = measured["classes"].values()
    explanation = f"mean over classes; no two of them have a cosine above {measured['same_cosine']}"
    if fallen := sum(own["collapsed"] for own in classes):
        explanation += f"; collapsed in {fallen} of {len(classes)} classes"
    share = measured["mean"]["distinct_share"]
    return "Outlier embeddings that are different", f"{share:.1%}", explanation


def _row(name: str, entries: list[Mapping[str, Any]]) -> EmbeddingRow:
    """Returns the line of some classes: medians of their numbers."""
    return EmbeddingRow(
        name,
        len(entries) == 1 and entries[0]["collapsed"],
        f"{np.median([own['distinct'] for own in entries]):,.0f}",
        f"{np.median([own['effective_rank'] for own in entries]):.1f}",
        [_cell(entries, *path.split(".")) for _, group in GROUPS for path in group.values()],
    )


def _cell(entries: list[Mapping[str, Any]], group: str, name: str) -> tuple[str, str]:
    found = [own[group][name] for own in entries if name in own[group]]
    if not found:
        return "–", ""
    middle, low, high = (np.median([own[key] for own in found]) for key in ("median", "min", "max"))
    return f"{middle:.3f}", f"{low:.2f} to {high:.2f}"


def _legend(measured: Mapping[str, Any]) -> str:
    count, grouped, placed = (measured[key] for key in ("count", "grouped", "placed"))
    first = f"the first {grouped:,} of " if grouped < count else ""
    some = f" of {placed:,} embeddings" if placed < count else ""
    return (
        f"Different: as many of {first}{count:,} embeddings as there are groups; no two of them "
        f"have a cosine above {measured['same_cosine']}, and every other has one with one of them. "
        f"Effective rank: the exponential of the entropy of the second moments' eigenvalues (Roy & "
        f"Vetterli, 2007). d_k: the squared distance on the unit sphere to the k-th nearest "
        f"feature of the class, k = {measured['k']:,}. d_k and cosines are medians{some}, with "
        f"the least and the largest in small print."
    )
