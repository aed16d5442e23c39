"""The report of a run: one HTML page that holds everything, and the table as Markdown and CSV."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from dream_jax.evaluation import tables


def write_report(
    folder,
    *,
    title: str,
    metrics: Mapping,
    config_json: str,
    stages: Sequence[Mapping],
    figures: Sequence[Mapping],
    facts: Sequence[tuple[str, str, str]],
    names: Mapping[str, str] | None = None,
) -> Path:
    """Writes index.html, table.md and table.csv into `folder`, and returns the page's path.

    The page has no scripts and loads nothing: figures are embedded, so it can be sent as one file.

    Args:
        folder: made if it is not there; the caller renames it into place when all is written.
        metrics: the content of metrics.json.
        config_json: the resolved configuration as text.
        stages: {"stage", "seconds", "peak_memory_mb"} each; a number may be None.
        figures: {"path", "title", "caption"} each, path to a PNG.
        facts: (label, value, explanation) each, shown as text.
        names: readable names of methods and OOD sets.
    """
    import jinja2

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dream_jax", "evaluation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    groups = tables.layout(metrics, names)
    page = environment.get_template("report.html.j2").render(
        title=title,
        seed=metrics.get("seed"),
        config_name=metrics.get("config"),
        groups=groups,
        rows=_rows(metrics, groups, names),
        legend=tables.LEGEND,
        legend_kept=tables.LEGEND_KEPT if tables.has_kept(metrics) else "",
        config_json=config_json,
        stages=[
            (s["stage"], _duration(s.get("seconds")), _memory(s.get("peak_memory_mb")))
            for s in stages
        ],
        total=_duration(sum(s.get("seconds") or 0 for s in stages)),
        peak=_memory(max((s.get("peak_memory_mb") or 0 for s in stages), default=0) or None),
        figures=[{**figure, **_embedded(figure["path"])} for figure in figures],
        facts=facts,
    )
    (folder / "table.md").write_text(tables.markdown_table(metrics, names), encoding="utf-8")
    (folder / "table.csv").write_text(tables.csv_table(metrics), encoding="utf-8")
    index = folder / "index.html"
    index.write_text(page, encoding="utf-8")
    return index


def _rows(metrics, groups, names):
    """(method name, [(text, is best of its column, starts a group), ...]) for each method."""
    methods = metrics["methods"]
    rows = [(tables.readable(key, names), []) for key in methods]
    for group in groups:
        for position, column in enumerate(group.columns):
            texts = [tables.percent(column.value(result)) for result in methods.values()]
            # Compared as shown: two equal figures are both the best, or none where all agree.
            numbers = [float(text) for text in texts if text != "–"]
            best = (max if column.higher_is_better else min)(numbers, default=None)
            for (_, cells), text in zip(rows, texts, strict=True):
                marked = len(set(numbers)) > 1 and text != "–" and float(text) == best
                cells.append((text, marked, position == 0))
    return rows


def _embedded(path) -> dict:
    """A PNG as base64, and the CSS pixels of its width at its own resolution."""
    from PIL import Image

    with Image.open(path) as image:
        per_inch = image.info.get("dpi", (96, 96))[0]
        width = round(image.width * 96 / per_inch)
    return {"data": base64.b64encode(Path(path).read_bytes()).decode("ascii"), "width": width}


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _memory(megabytes: float | None) -> str:
    return "–" if megabytes is None else f"{megabytes:,.0f} MB"
