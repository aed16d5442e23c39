"""The tables of `metrics.json`: for the terminal, Markdown, LaTeX and CSV.

A row per method; a group of columns per OOD set, with a mean after each group of sets, then the
mean of all, the ID accuracy and, for one seed, the share of decoded ID images kept. Every form is
made from a `layouts.Layout`.
"""

import csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence

from dream_jax.evaluation.report.layouts import (
    FULL,
    OOD,
    Cell,
    Group,
    Layout,
    csv_layout,
    marks,
    paper_layout,
    readable,
    results_layout,
    shifted_layout,
    table_rows,
)
from dream_jax.legible import legible

Names = Mapping[str, str] | None


def text_table(
    metrics: Mapping,
    names: Names = None,
    width: int = 140,
    sections: Names = None,
    layout: Layout | None = None,
) -> str:
    """The table for a terminal of `width` columns, in blocks of whole groups where it is wider.

    Args:
        metrics: the content of metrics.json.
        names: readable names of methods and OOD sets, e.g. {"dream_ood": "Dream-OOD"}.
        sections: {row: title of its group of rows}.
        layout: what to show; without, the results.
    """
    layout = layout or results_layout(metrics, names)
    rows = table_rows(metrics, layout, names, sections)
    labels = ["", layout.subject, "", *(row.name for row in rows)]
    label_width = max(map(len, labels))
    first = [label.ljust(label_width) for label in labels]
    first[2] = "-" * label_width

    blocks = [[first]]
    for i, group in enumerate(layout.groups):
        lines = _text_group(group, [row.cells[i] for row in rows], layout.marked)
        used = sum(len(part[0]) + 2 for part in blocks[-1]) - 2
        if len(blocks[-1]) > 1 and used + 2 + len(lines[0]) > width:
            blocks.append([first])
        blocks[-1].append(lines)

    text = []
    for block in blocks:
        lines = ["  ".join(parts).rstrip() for parts in zip(*block, strict=True)]
        for i, row in reversed(list(enumerate(rows))):
            if row.section:
                lines.insert(3 + i, f"[{row.section}]")
        text.append("\n".join(lines))
    legend = layout.legend + (marks(metrics, layout, "marked *") if layout.marked else [])
    return "\n\n".join([*text, "\n".join(textwrap.fill(t, width) for t in legend)]) + "\n"


def _text_group(group: Group, rows: list[list[Cell]], marked: bool) -> list[str]:
    cells = [[column.heading + " " * marked for column in group.columns]]
    cells += [[_text_cell(cell, marked) for cell in row] for row in rows]
    widths = [max(5, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" ".join(t.rjust(w) for t, w in zip(row, widths, strict=True)) for row in cells]
    full = max(len(group.title), len(lines[0]))
    lines = [line.rjust(full) for line in lines]
    return [group.title.center(full), lines[0], "-" * full, *lines[1:]]


def _text_cell(cell: Cell, marked: bool) -> str:
    mark = "*" if cell.best else "†" if cell.close else " "
    return cell.text + cell.spread + (mark if marked else "")


def markdown_table(
    metrics: Mapping, names: Names = None, sections: Names = None, layout: Layout | None = None
) -> str:
    """The table in Markdown: one cell per OOD set, "FPR95 / AUROC". Arguments as above.

    A single seed has "FPR95 / AUROC / AUPR", and without a bootstrap no marks.
    """
    layout = layout or results_layout(metrics, names)
    headings, sub = [layout.subject], [""]
    for group in layout.groups:
        arrows = [f" {column.arrow}" if layout.marked else "" for column in group.columns]
        parts = [c.heading + arrow for c, arrow in zip(group.columns, arrows, strict=True)]
        short, wide = " / ".join(parts), len(group.columns) > 1
        headings.append(group.title if wide else f"{group.title} {short}")
        sub.append(short if wide else "")
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    if any(sub):
        lines.append(sub)
    for row in table_rows(metrics, layout, names, sections):
        if row.section:
            lines.append([f"**{row.section}**", *[""] * (len(headings) - 1)])
        groups = [
            " / ".join(_markdown_cell(c, layout.marked) for c in cells) for cells in row.cells
        ]
        lines.append([row.name, *groups])
    legend = " ".join(layout.legend + (marks(metrics, layout, "bold") if layout.marked else []))
    return _markdown_lines(lines) + f"\n{legend}\n"


def _markdown_cell(cell: Cell, marked: bool) -> str:
    number = f"**{cell.text}**" if marked and cell.best else cell.text
    return number + cell.spread + ("†" if cell.close else "")


def _markdown_lines(rows: list[list[str]]) -> str:
    return "".join(
        "| " + " | ".join(re.sub(r"[|$<`]", r"\\\g<0>", c) for c in r) + " |\n" for r in rows
    )


def latex_table(
    metrics: Mapping,
    names: Names = None,
    sections: Names = None,
    layout: Layout | None = None,
    label: str = "tab:results",
) -> str:
    """The table in the paper's layout as a LaTeX table environment. Arguments as above.

    It needs the packages booktabs and adjustbox, which shrinks what is wider than the text.
    """
    layout = layout or paper_layout(metrics, names)
    counts = [len(group.columns) for group in layout.groups]
    titles = [
        rf"\multicolumn{{{n}}}{{c}}{{{_latex(group.title)}}}"
        for group, n in zip(layout.groups, counts, strict=True)
    ]
    rules, start = [], 2
    for n in counts:
        rules.append(rf"\cmidrule(lr){{{start}-{start + n - 1}}}")
        start += n
    headings = [_latex(f"{c.heading} {c.arrow}") for g in layout.groups for c in g.columns]
    body: list[str] = []
    for row in table_rows(metrics, layout, names, sections):
        if row.section:
            title = (
                rf"\multicolumn{{{1 + sum(counts)}}}{{l}}{{\textit{{{_latex(row.section)}}}}} \\"
            )
            body += [r"\midrule", title] if body else [title]
        cells = [_latex_cell(cell) for group in row.cells for cell in group]
        body.append(" & ".join([_latex(row.name), *cells]) + r" \\")
    legend = " ".join(layout.legend + marks(metrics, layout, "bold"))
    lines = [
        "% Needs the packages booktabs and adjustbox.",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{_latex(legend)}}}",
        rf"\label{{{label}}}",
        r"\begin{adjustbox}{max width=\textwidth}",
        rf"\begin{{tabular}}{{l{'r' * sum(counts)}}}",
        r"\toprule",
        " & ".join(["", *titles]) + r" \\",
        " ".join(rules),
        " & ".join([_latex(layout.subject), *headings]) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{adjustbox}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    # The emphasis is made after escaping: its own backslash and braces must stay.
    number = _latex(cell.text)
    number = rf"\textbf{{{number}}}" if cell.best else number
    return number + _latex(cell.spread + ("†" if cell.close else ""))


_LATEX = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a line end it would open an option
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "–": "--",
}


def _latex(text: str) -> str:
    """`text` with the characters that LaTeX reads as commands escaped."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)


def csv_table(metrics: Mapping, layout: Layout | None = None) -> str:
    """The table as CSV for other programs: keys as in metrics.json, fractions in full precision.

    Columns are "method", then e.g. "letters.fpr95", "near.auroc", "mean.auroc", "id_accuracy",
    "kept.round_trips", "letters.aupr_out", "id_aurc", and over several seeds "letters.fpr95.std"
    after each; a number that was not measured is left empty.
    """
    layout = layout or csv_layout(metrics)
    columns = [column for group in layout.groups for column in group.columns]
    headings = [layout.subject.lower()]
    for column in columns:
        parts = list(column.path)
        if (place := parts[0] == FULL) < len(parts) and parts[place] in (*OOD, "shifted"):
            del parts[place]
        name = _csv_text(".".join(parts))
        headings += [name, f"{name}.std"] if "std" in metrics else [name]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(headings)
    for row in table_rows(metrics, layout):
        cells = [cell for group in row.cells for cell in group]
        numbers = [(c.mean, c.std) if "std" in metrics else (c.mean,) for c in cells]
        writer.writerow([_csv_text(row.key), *(number for pair in numbers for number in pair)])
    return out.getvalue()


def _csv_text(name: str) -> str:
    """Returns a name that no spreadsheet takes for a formula."""
    name = legible(name)
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def shifted_table(
    metrics: Mapping, names: Names = None, sections: Names = None, form: str = "markdown"
) -> str:
    """Accuracies on shifted test sets, in one `form` of "markdown", "latex", "csv" and "text".

    CSV has a column for each strength too, e.g. "blur.3", "blur.mean", "mean".
    """
    layout = shifted_layout(metrics, names, strengths=form == "csv")
    if form == "csv":
        return csv_table(metrics, layout)
    if form == "latex":
        return latex_table(metrics, names, sections, layout, label="tab:shifted")
    if form == "text":
        return text_table(metrics, names, sections=sections, layout=layout)
    return markdown_table(metrics, names, sections, layout)


TUNING_HEADINGS = ("Method", "Tuned", "Chosen", "Candidates")


def tuning_rows(metrics: Mapping, names: Names = None) -> list[tuple[str, str, str, str]]:
    """For each row of the results its name, what was tuned, what was chosen, among how many."""
    rows = []
    for key in metrics["methods"]:
        tuned = metrics["tuning"]["rows"].get(key)
        if tuned is None:
            rows.append((readable(key, names), "defaults", "–", "–"))
            continue
        chosen = tuned["chosen"]
        values = ", ".join(f"{setting} = {_setting(value)}" for setting, value in chosen.items())
        # Of settings that are not those the tuning chose there were no candidates.
        found = (", ".join(chosen), values, str(tuned["candidates"] or "set by hand"))
        rows.append((readable(key, names), *found))
    return rows


def tuning_legend(metrics: Mapping, names: Names = None) -> str:
    """On which OOD sets, and with which seed, settings were chosen."""
    tuning = metrics["tuning"]
    sets = ", ".join(readable(name, names) for name in tuning["sets"])
    return f"Chosen on the validation OOD sets {sets}, with seed {tuning['seed']}."


def tuning_table(metrics: Mapping, names: Names = None) -> str:
    """What was tuned on what, in Markdown whose columns are aligned for a terminal too."""
    table = list_table(TUNING_HEADINGS, tuning_rows(metrics, names))
    return f"{table}\n{tuning_legend(metrics, names)}\n"


def list_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts in Markdown, whose columns are aligned for a terminal too."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * width for width in widths], *rows]
    padded = [[t.ljust(w) for t, w in zip(row, widths, strict=True)] for row in lines]
    return _markdown_lines(padded)


def _setting(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
