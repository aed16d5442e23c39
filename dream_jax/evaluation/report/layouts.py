"""What the tables of a run show: columns, rows, and which cells are the best of their column."""

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

from dream_jax.evaluation import bootstrap
from dream_jax.legible import legible

LEGEND = (
    "All in %. FPR95: OOD images taken for ID when 95 % of ID images are kept, lower is better; "
    "all others: higher is better."
)
LEGEND_OPENOOD = (
    "By OpenOOD's definitions, in %. FPR: ID images refused when 95 % of OOD images are found, "
    "lower is better; all others: higher is better. AUPR-in and AUPR-out: areas by trapezoids, "
    "with ID and with OOD as the positive class."
)
LEGEND_SPECTRUM = "Full: the shifted test sets of the ID classes count as ID images."
LEGEND_KEPT = (
    "Kept: decoded ID images (autoencoder round trips; images sampled by plain class name) that "
    "pass the threshold keeping 95 % of real ones."
)
LEGEND_SHIFTED = (
    "Accuracy in % on shifted test sets, the mean over strengths where a set has several; "
    "higher is better."
)


# What an entry of metrics.json has of OOD sets and their mean, and of groups of them.
OOD = ("ood", "groups")
FULL = "full_spectrum"  # all of it, with shifted sets as ID images
GROUP_MEANS = {"ood": "mean of others", "near": "near mean", "far": "far mean"}
GROUP_TITLES = {"ood": "other OOD sets", "near": "near OOD sets", "far": "far OOD sets"}


# Measures that only CSV has of each OOD set; see `metrics.ood_metrics`.
OTHER_MEASURES = ("aupr_out", "fpr95_out", "aupr_in_trapezoid", "aupr_out_trapezoid")


class Column(NamedTuple):
    heading: str
    path: tuple[str, ...]  # the keys that lead from a method's results to the number
    higher_is_better: bool = True
    in_percent: bool = True  # whether the number is a fraction, which is shown in %

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"

    def value(self, result: Mapping) -> float | None:
        """The number in `result`, or None where it was not measured."""
        for key in self.path:
            if not isinstance(result, Mapping) or key not in result:
                return None
            result = result[key]
        number = cast(float | None, result)
        return number if number is not None and math.isfinite(number) else None


class Group(NamedTuple):
    title: str
    columns: list[Column]


class Layout(NamedTuple):
    """What a table shows.

    Attributes:
      groups: its columns.
      rows: the keys of its rows.
      legend: sentences that explain its numbers.
      marked: whether texts mark cells; the page always does.
      subject: what a row is, as the heading of their names.
    """

    groups: list[Group]
    rows: list[str]
    legend: list[str]
    marked: bool = True
    subject: str = "Method"


class Cell(NamedTuple):
    """A number of a table, as it was measured.

    Attributes:
      mean: over seeds; None where it was not measured.
      std: its standard deviation over seeds; None where there is one seed.
      best: whether it is the best of its column, as shown; several may be.
      close: whether it is not, and the bootstrap cannot tell it from one that is.
      in_percent: whether it is a fraction, which is shown in %.
    """

    mean: float | None
    std: float | None = None
    best: bool = False
    close: bool = False
    in_percent: bool = True

    @property
    def text(self) -> str:
        return _figure(self.mean, self.in_percent)

    @property
    def spread(self) -> str:
        """ " ± 1.2", or nothing where there is no deviation."""
        return "" if self.std is None else f" ± {_figure(self.std, self.in_percent)}"


class Row(NamedTuple):
    key: str
    name: str
    section: str  # the title of the rows' group that starts here, or ""
    cells: list[list[Cell]]  # by column group


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash for what was not measured."""
    return _figure(fraction, in_percent=True)


def _figure(number: float | None, in_percent: bool) -> str:
    return "–" if number is None else f"{100 * number if in_percent else number:.1f}"


def readable(key: str, names: Mapping[str, str] | None = None) -> str:
    """The name shown for a method or an OOD set: from `names`, else the key with spaces."""
    return legible((names or {}).get(key, key.replace("_", " ")))


def results_layout(metrics: Mapping, names: Mapping[str, str] | None = None) -> Layout:
    """The paper's columns where there are several seeds, else all that were measured."""
    return (paper_layout if "std" in metrics else full_layout)(metrics, names)


def full_layout(metrics: Mapping, names: Mapping[str, str] | None = None) -> Layout:
    """FPR95, AUROC and AUPR of each OOD set and their mean, ID accuracy, and shares kept."""
    methods = metrics["methods"]
    groups = [*_ood_groups(metrics, names, aupr=True), Group("ID", [_ACCURACY])]
    legend = [LEGEND]
    if any(result.get("kept") for result in methods.values()):
        columns = [
            Column("trips", ("kept", "round_trips")),
            Column("named", ("kept", "sampled_by_name")),
        ]
        groups.append(Group("kept", columns))
        legend.append(LEGEND_KEPT)
    return Layout(groups, list(methods), legend, marked="bootstrap" in metrics)


def csv_layout(metrics: Mapping) -> Layout:
    """All that was measured: the columns of `full_layout`, those of the other measures after."""
    layout = full_layout(metrics)
    places = [place for _, place in _places(metrics, None)]
    more = [Column(name, (*place, name)) for place in places for name in OTHER_MEASURES]
    more.append(Column("AURC", ("id_aurc",)))
    columns = [column for group in layout.groups for column in group.columns]
    full = [column._replace(path=(FULL, *column.path)) for column in (*columns, *more)]
    measured = [
        column
        for column in (*more, *full)
        if any(column.value(entry) is not None for entry in metrics["methods"].values())
    ]
    return layout._replace(groups=[*layout.groups, *(Group("", [column]) for column in measured)])


def openood_layout(metrics: Mapping, names: Mapping[str, str] | None = None) -> Layout:
    """OpenOOD's measures of each OOD set and of the means; no rows where there are no groups."""
    entries = metrics["methods"]
    rows = [
        key
        for key, entry in entries.items()
        if entry.get("groups") and "fpr95_out" in entry["ood"]["mean"]
    ]
    if not rows:
        return Layout([], [], [])
    groups = [Group(title, _openood_columns(place)) for title, place in _places(metrics, names)]
    return Layout([*groups, Group("ID", [_ACCURACY])], rows, [LEGEND_OPENOOD])


def spectrum_layout(metrics: Mapping, names: Mapping[str, str] | None = None) -> Layout:
    """Means without and with the shifted sets as ID images; no rows where that was not measured."""
    rows = [key for key, entry in metrics["methods"].items() if FULL in entry]
    if not rows:
        return Layout([], [], [])
    groups = []
    for title, place in _places(metrics, names):
        if place[0] == "groups" or place == ("ood", "mean"):
            groups.append(Group(title, _measures(place, aupr=False)))
            groups.append(Group(f"{title}, full", _measures((FULL, *place), aupr=False)))
    accuracy = Column("acc.", (FULL, "id_accuracy"))
    groups += [Group("ID", [_ACCURACY]), Group("ID, full", [accuracy])]
    return Layout(groups, rows, [LEGEND, LEGEND_SPECTRUM])


def _openood_columns(place: tuple[str, ...]) -> list[Column]:
    return [
        Column("FPR", (*place, "fpr95_out"), higher_is_better=False),
        Column("AUROC", (*place, "auroc")),
        Column("AUPR-in", (*place, "aupr_in_trapezoid")),
        Column("AUPR-out", (*place, "aupr_out_trapezoid")),
    ]


def paper_layout(metrics: Mapping, names: Mapping[str, str] | None = None) -> Layout:
    """The paper's table: FPR95 and AUROC of each OOD set and their mean, and ID accuracy."""
    groups = [*_ood_groups(metrics, names, aupr=False), Group("ID", [_ACCURACY])]
    return Layout(groups, list(metrics["methods"]), [LEGEND])


def shifted_layout(
    metrics: Mapping, names: Mapping[str, str] | None = None, strengths: bool = False
) -> Layout:
    """Accuracies on shifted test sets, for the rows that have them.

    Args:
        strengths: with a column for each strength of a set, not only for their mean.
    """
    rows = {key: result for key, result in metrics["methods"].items() if result.get("shifted")}
    sets: dict[str, dict[str, None]] = {}
    for result in rows.values():
        for name, by_strength in result["shifted"].items():
            if name != "mean":
                sets.setdefault(name, {}).update(dict.fromkeys(by_strength))
    groups = [
        Group(
            readable(name, names) if part == "mean" else f"{readable(name, names)} {part}",
            [Column("acc.", ("shifted", name, part))],
        )
        for name, parts in sets.items()
        for part in parts
        if strengths or part == "mean"
    ]
    groups.append(Group("mean", [Column("acc.", ("shifted", "mean"))]))
    groups.append(Group("ID", [_ACCURACY]))
    return Layout(groups, list(rows), [LEGEND_SHIFTED])


_ACCURACY = Column("acc.", ("id_accuracy",))


def _ood_groups(metrics, names, aupr: bool) -> list[Group]:
    return [Group(title, _measures(place, aupr)) for title, place in _places(metrics, names)]


def _places(metrics, names) -> list[tuple[str, tuple[str, str]]]:
    """Titles and keys of the OOD sets, of the mean after each group of them, and of all's mean."""
    sets = dict.fromkeys(s for r in metrics["methods"].values() for s in r["ood"] if s != "mean")
    found = []
    for group, titles in metrics.get("groups", {}).items():
        found += [(readable(title, names), ("ood", title)) for title in titles]
        found.append((GROUP_MEANS[group], ("groups", group)))
    placed = {place for _, place in found}
    rest = [name for name in [*sets, "mean"] if ("ood", name) not in placed]
    return found + [(readable(name, names), ("ood", name)) for name in rest]


def _measures(place: tuple[str, ...], aupr: bool) -> list[Column]:
    columns = [
        Column("FPR95", (*place, "fpr95"), higher_is_better=False),
        Column("AUROC", (*place, "auroc")),
    ]
    return [*columns, Column("AUPR", (*place, "aupr_in"))] if aupr else columns


def table_rows(
    metrics: Mapping,
    layout: Layout,
    names: Mapping[str, str] | None = None,
    sections: Mapping[str, str] | None = None,
) -> list[Row]:
    """The rows of `layout` with their cells marked.

    Args:
        sections: {row: title of the group of rows it belongs to}; neighbours of one title share it.
    """
    marked = [
        list(zip(*(_marked(metrics, layout.rows, column) for column in group.columns), strict=True))
        for group in layout.groups
    ]
    rows, last = [], ""
    for i, key in enumerate(layout.rows):
        section = (sections or {}).get(key, "")
        title, last = section if section != last else "", section
        rows.append(Row(key, readable(key, names), title, [list(group[i]) for group in marked]))
    return rows


def _marked(metrics: Mapping, keys: list[str], column: Column) -> list[Cell]:
    means = [column.value(metrics["methods"][key]) for key in keys]
    stds = [column.value(metrics.get("std", {}).get(key, {})) for key in keys]
    # Compared as shown: two equal figures are both the best, or none where all agree.
    unit = column.in_percent
    shown = [None if mean is None else float(_figure(mean, unit)) for mean in means]
    numbers = [number for number in shown if number is not None]
    if len(set(numbers)) < 2:
        return [Cell(mean, std, in_percent=unit) for mean, std in zip(means, stds, strict=True)]
    choose = max if column.higher_is_better else min
    best = choose(numbers)
    leaders = [key for number, key in zip(shown, keys, strict=True) if number == best]
    return [
        Cell(
            mean,
            std,
            best=number == best,
            close=number not in (None, best)
            and any(_close(metrics, column, key, leader) for leader in leaders),
            in_percent=unit,
        )
        for mean, std, number, key in zip(means, stds, shown, keys, strict=True)
    ]


def _close(metrics: Mapping, column: Column, key: str, best: str) -> bool:
    """Whether the interval of the difference between two rows holds 0."""
    found = metrics.get("bootstrap")
    if not found or column.path[0] not in OOD or column.path[2] not in bootstrap.METRICS:
        return False
    _, low, high = bootstrap.difference(found, column.path[2], column.path[1], key, best)
    return low <= 0 <= high


def marks(metrics: Mapping, layout: Layout, best: str) -> list[str]:
    """The sentences that explain deviations and marks.

    Args:
        best: how the best of a column is shown, e.g. "bold".
    """
    sentences = []
    if metrics.get("std"):
        sentences.append(f"Mean ± standard deviation over {len(metrics['by_seed'])} seeds.")
    if len(layout.rows) > 1:
        sentences.append(f"The best of each column is {best}.")
    found = metrics.get("bootstrap")
    if found and any(c.path[0] in OOD for group in layout.groups for c in group.columns):
        sentences.append(
            "†: FPR95 or AUROC that a paired bootstrap over test images cannot tell from the best "
            f"of its column (0 lies in the {100 * found['level']:g} % interval of the difference, "
            f"{found['resamples']:,} resamples; the trained networks are held fixed)."
        )
    return sentences
