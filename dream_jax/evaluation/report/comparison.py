"""How the rows compare: means, deviations and intervals of FPR95."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib

from dream_jax.evaluation.report.layouts import GROUP_TITLES, readable
from dream_jax.evaluation.report.style import BLUE, GREY, STYLE, figure_of, save, shortened


def row_comparison(
    metrics: Mapping,
    path,
    names: Mapping[str, str] | None = None,
    sections: Mapping[str, str] | None = None,
    group: str = "",
) -> Path:
    """Mean FPR95 of each row: dots for seeds, their mean, its deviation and bootstrap interval.

    Args:
        metrics: the content of metrics.json.
        names: readable names of rows.
        sections: {row: title of the group of rows it belongs to}.
        group: of OOD sets, such as "near", over which the mean is; empty for all sets.
    """
    place = ("groups", group) if group else ("ood", "mean")
    get = lambda entry: 100 * entry[place[0]][place[1]]["fpr95"]  # noqa: E731
    methods, stds = metrics["methods"], metrics.get("std")
    found = metrics.get("bootstrap")
    runs = metrics.get("by_seed", {})
    places, headings, y = _places(methods, sections or {})
    with matplotlib.rc_context(STYLE):
        figure = figure_of(4.2, 1.4 + 0.23 * y)  # as wide as a phone
        axes = figure.add_subplot()
        for row, entry in methods.items():
            at, mean = places[row], get(entry)
            if found:
                _, low, high = found["rows"]["fpr95"][place[1]][row]
                interval = axes.plot(
                    [100 * low, 100 * high], [at, at], color=BLUE, linewidth=1.2, zorder=2
                )[0]
            if stds:
                std = get(stds[row])
                spread = axes.barh(
                    at, 2 * std, 0.56, mean - std, color=BLUE, alpha=0.25, linewidth=0, zorder=1
                )
                seeds = axes.scatter(
                    [get(run[row]) for run in runs.values()], [at] * len(runs),
                    s=9, color=GREY, linewidths=0, zorder=3,
                )  # fmt: skip
            dot = axes.scatter(mean, at, s=26, color=BLUE, linewidths=0, zorder=4)
            axes.annotate(
                f"{mean:.1f}", (1, at), (6, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
        for at, title in headings:
            axes.text(0, at, title, color=GREY, va="center", fontsize=8, fontweight="bold",
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set_yticks(list(places.values()), [shortened(readable(r, names), 22) for r in places])
        axes.set_ylim(y - 0.4, -0.6)
        axes.set_xlim(0, None)
        axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"FPR95 in %, mean over {GROUP_TITLES.get(group, 'OOD sets')}", fontsize=8)
        axes.set_title("How the rows compare", fontweight="bold", fontsize=11)
        key = [(dot, "mean over seeds" if stds else "measured")]
        if stds:
            key += [(seeds, "a seed"), (spread, "± standard deviation")]
        if found:
            level = f"{100 * found['level']:g} %"
            key.append((interval, f"{level} interval over test images"))
        figure.legend(
            *zip(*key, strict=True), loc="outside lower center", ncols=2, fontsize=8,
            handlelength=1.4, columnspacing=1.2,
        )  # fmt: skip
        return save(figure, path)


def _places(
    rows: Iterable[str], sections: Mapping[str, str]
) -> tuple[dict[str, float], list[tuple[float, str]], float]:
    """Returns the heights of rows and of headings, and where they end."""
    places: dict[str, float] = {}
    headings: list[tuple[float, str]] = []
    y, last = 0.0, ""
    for row in rows:
        section = sections.get(row, "")
        if section and section != last:
            headings.append((y + 0.1, section))
            y += 1
        places[row], last = y, section
        y += 1
    return places, headings, y
