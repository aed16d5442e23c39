"""The table of results from `metrics.json`: for the terminal, Markdown, CSV and the report.

A row per method; a group of columns per OOD set, then their mean, the ID accuracy and, where it
was measured, the share of decoded ID images kept. Every form is made from the same `layout`.
"""

import csv
import io
import math
import textwrap
from collections.abc import Mapping
from typing import NamedTuple

LEGEND = (
    "All in %. FPR95: OOD images taken for ID when 95 % of ID images are kept, lower is better; "
    "all others: higher is better."
)
LEGEND_KEPT = (
    "Kept: decoded ID images (autoencoder round trips; images sampled by plain class name) that "
    "pass the threshold keeping 95 % of real ones."
)


class Column(NamedTuple):
    heading: str
    path: tuple[str, ...]  # the keys that lead from a method's results to the number
    higher_is_better: bool = True

    def value(self, result: Mapping) -> float | None:
        """The fraction in `result`, or None where it was not measured."""
        for key in self.path:
            if not isinstance(result, Mapping) or key not in result:
                return None
            result = result[key]
        return result if result is not None and math.isfinite(result) else None


class Group(NamedTuple):
    title: str
    columns: list[Column]


def layout(metrics: Mapping, names: Mapping[str, str] | None = None) -> list[Group]:
    """The column groups for `metrics` (the content of metrics.json), in the order shown."""
    results = metrics["methods"].values()
    sets = dict.fromkeys(s for r in results for s in r["ood"] if s != "mean")
    groups = [
        Group(
            readable(name, names),
            [
                Column("FPR95", ("ood", name, "fpr95"), higher_is_better=False),
                Column("AUROC", ("ood", name, "auroc")),
                Column("AUPR", ("ood", name, "aupr_in")),
            ],
        )
        for name in [*sets, "mean"]
    ]
    groups.append(Group("ID", [Column("acc.", ("id_accuracy",))]))
    if has_kept(metrics):
        groups.append(
            Group(
                "kept",
                [
                    Column("trips", ("kept", "round_trips")),
                    Column("named", ("kept", "sampled_by_name")),
                ],
            )
        )
    return groups


def has_kept(metrics: Mapping) -> bool:
    """Whether any method's share of decoded ID images kept was measured."""
    return any(result.get("kept") for result in metrics["methods"].values())


def readable(key: str, names: Mapping[str, str] | None = None) -> str:
    """The name shown for a method or an OOD set: from `names`, else the key with spaces."""
    return (names or {}).get(key, key.replace("_", " "))


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash for what was not measured."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def text_table(metrics: Mapping, names: Mapping[str, str] | None = None, width: int = 140) -> str:
    """The table for a terminal of `width` columns, in blocks of whole groups where it is wider.

    Args:
        metrics: the content of metrics.json.
        names: readable names of methods and OOD sets, e.g. {"dream_ood": "Dream-OOD"}.
    """
    methods = metrics["methods"]
    labels = ["", "Method", "", *(readable(key, names) for key in methods)]
    label_width = max(map(len, labels))
    first = [label.ljust(label_width) for label in labels]
    first[2] = "-" * label_width

    blocks = [[first]]
    for group in layout(metrics, names):
        lines = _text_group(group, methods.values())
        used = sum(len(part[0]) + 2 for part in blocks[-1]) - 2
        if len(blocks[-1]) > 1 and used + 2 + len(lines[0]) > width:
            blocks.append([first])
        blocks[-1].append(lines)

    text = ["\n".join("  ".join(row).rstrip() for row in zip(*b, strict=True)) for b in blocks]
    legend = [LEGEND, LEGEND_KEPT] if has_kept(metrics) else [LEGEND]
    return "\n\n".join([*text, "\n".join(textwrap.fill(t, width) for t in legend)]) + "\n"


def _text_group(group: Group, results) -> list[str]:
    cells = [[c.heading for c in group.columns]]
    cells += [[percent(c.value(result)) for c in group.columns] for result in results]
    widths = [max(5, *map(len, column)) for column in zip(*cells, strict=True)]
    rows = [" ".join(t.rjust(w) for t, w in zip(row, widths, strict=True)) for row in cells]
    full = max(len(group.title), len(rows[0]))
    rows = [row.rjust(full) for row in rows]
    return [group.title.center(full), rows[0], "-" * full, *rows[1:]]


def markdown_table(metrics: Mapping, names: Mapping[str, str] | None = None) -> str:
    """The table in Markdown: one cell per OOD set, "FPR95 / AUROC / AUPR". Arguments as above."""
    methods = metrics["methods"]
    headings, sub, rows = ["Method"], [""], [[readable(key, names)] for key in methods]
    for group in layout(metrics, names):
        short = " / ".join(column.heading for column in group.columns)
        wide = len(group.columns) > 1
        headings.append(group.title if wide else f"{group.title} {short}")
        sub.append(short if wide else "")
        for row, result in zip(rows, methods.values(), strict=True):
            row.append(" / ".join(percent(column.value(result)) for column in group.columns))
    rule = ["---", *["---:"] * (len(headings) - 1)]
    lines = ["| " + " | ".join(_cell(c) for c in r) + " |" for r in [headings, rule, sub, *rows]]
    legend = f"{LEGEND} {LEGEND_KEPT}" if has_kept(metrics) else LEGEND
    return "\n".join(lines) + f"\n\n{legend}\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def csv_table(metrics: Mapping) -> str:
    """The table as CSV for other programs: keys as in metrics.json, fractions in full precision.

    Columns are "method", then e.g. "letters.fpr95", "mean.auroc", "id_accuracy",
    "kept.round_trips"; a number that was not measured is left empty.
    """
    columns = [column for group in layout(metrics) for column in group.columns]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", *(".".join(c.path).removeprefix("ood.") for c in columns)])
    for key, result in metrics["methods"].items():
        writer.writerow([key, *(c.value(result) for c in columns)])
    return out.getvalue()
