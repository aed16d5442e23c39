"""The report of a run: one HTML page that holds everything, and the tables as text files."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dream_jax.evaluation.report import layouts, panels, tables
from dream_jax.evaluation.report.charts import Panel
from dream_jax.evaluation.report.embedding_table import embedding_table
from dream_jax.evaluation.report.gallery import READINGS, SHOWN, Tile
from dream_jax.files import write_text

WIDE = 430  # CSS pixels; what is wider scrolls on a phone, where its text would be too small


@dataclass(frozen=True)
class Page:
    """What a report shows.

    Attributes:
      title: of the page.
      metrics: the content of metrics.json.
      config_json: the whole configuration as text.
      stages: {"stage", "seconds", "peak_memory_mb", "start_memory_mb"} each: the time, and what
        was resident at most while it ran, and when it began; a number may be None.
      figures: {"path", "title", "caption"} each, path to a PNG.
      facts: (label, value, explanation) each, shown as text.
      names: readable names of rows and OOD sets.
      sections: {row: title of the group of rows that it belongs to}.
      class_names: of the ID classes, for the gallery.
      tiles: the gallery of outliers.
      small: whether their pictures have few pixels, which are shown as squares.
      trainings: (title, panels) of each training's curves.
      roc: panels with the ROC curves of the rows of `metrics`, in their order.
      command: that made the run, or "".
      versions: of what it was made with, by name.
      layout: of the table; that of a run's results if not given.
      label: of the table in LaTeX.
      lists: (title, headings, rows) of tables of texts.
    """

    title: str
    metrics: Mapping
    config_json: str
    stages: Sequence[Mapping]
    figures: Sequence[Mapping]
    facts: Sequence[tuple[str, str, str]]
    names: Mapping[str, str] | None = None
    sections: Mapping[str, str] | None = None
    class_names: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    small: bool = False
    trainings: Sequence[tuple[str, Sequence[Panel]]] = ()
    roc: Sequence[Panel] = ()
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    layout: layouts.Layout | None = None
    label: str = "tab:results"
    lists: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = ()


def write_report(folder: Path, page: Page) -> Path:
    """Writes index.html, the tables and their text forms into `folder`; returns the page's path.

    The texts are table.md, .csv and .tex, shifted.csv and .tex where accuracies on shifted test
    sets were measured, openood.tex where OOD sets are in groups, and spectrum.tex where the full
    spectrum was measured. The page has no scripts and loads nothing: figures are embedded, so it
    can be sent as one file.
    """
    import jinja2  # slow to import, and a finished run only prints its table

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dream_jax", "evaluation/report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("report.html.j2")
    for name, text in table_texts(page).items():
        write_text(folder / name, text)
    index = folder / "index.html"
    write_text(index, template.render(**_content(page)))
    return index


def _content(page: Page) -> dict[str, Any]:
    """Returns what the template shows."""
    metrics, names, stages = page.metrics, page.names, page.stages
    shown = [("results", "Results", page.layout or layouts.results_layout(metrics, names))]
    shifted = layouts.shifted_layout(metrics, names)
    if shifted.rows:
        shown.append(("shifted", "Generalisation", shifted))
    openood = layouts.openood_layout(metrics, names)
    if openood.rows:
        shown.append(("openood", "By OpenOOD's measures", openood))
    spectrum = layouts.spectrum_layout(metrics, names)
    if spectrum.rows:
        shown.append(("spectrum", "Full spectrum", spectrum))
    tuned = "tuning" in metrics
    return {
        "title": page.title,
        "seeds": list(metrics.get("by_seed", [metrics["seed"]] if "seed" in metrics else [])),
        "config_name": metrics.get("config"),
        "tables": [
            {
                "id": name,
                "title": heading,
                "subject": layout.subject,
                "groups": layout.groups,
                "rows": layouts.table_rows(metrics, layout, names, page.sections),
                "legend": " ".join(layout.legend + layouts.marks(metrics, layout, "bold")),
            }
            for name, heading, layout in shown
        ],
        "tuning_headings": tables.TUNING_HEADINGS,
        "tuning": tables.tuning_rows(metrics, names) if tuned else [],
        "tuning_legend": tables.tuning_legend(metrics, names) if tuned else "",
        "lists": page.lists,
        "config_json": page.config_json,
        "stages": [
            (
                s["stage"],
                _duration(s.get("seconds")),
                _memory(s.get("peak_memory_mb")),
                _memory(_added(s)),
            )
            for s in stages
        ],
        "total": _duration(sum(s.get("seconds") or 0 for s in stages)),
        "peak": _memory(max((s.get("peak_memory_mb") or 0 for s in stages), default=0) or None),
        "figures": [{**figure, **_embedded(figure["path"])} for figure in page.figures],
        "facts": page.facts,
        "embeddings": embedding_table(metrics["embeddings"]) if "embeddings" in metrics else None,
        "trainings": page.trainings,
        "roc": page.roc,
        "roc_rows": _roc_rows(page),
        "command": page.command,
        "versions": page.versions,
        **_gallery(page),
    }


def _roc_rows(page: Page) -> list[tuple[int, Any, str, str]]:
    """Returns (style, swatch, name, mean AUROC) of each line of the ROC panels."""
    return [
        (
            style,
            panels.swatch(style),
            layouts.readable(row, page.names),
            layouts.percent(result["ood"].get("mean", {}).get("auroc")),
        )
        for style, (row, result) in enumerate(page.metrics["methods"].items() if page.roc else ())
    ]


def _gallery(page: Page) -> dict[str, Any]:
    """Returns the gallery's pictures, and what they can be chosen by."""
    labels = sorted({tile.label for tile in page.tiles})
    found = {tile.reading for tile in page.tiles}
    return {
        "tiles": page.tiles,
        "tile_classes": [(label, page.class_names[label]) for label in labels],
        "tile_readings": [(key, name) for key, name in READINGS.items() if key in found],
        "class_names": page.class_names,
        "few": SHOWN,
        "small": page.small,
        "colours": panels.COLOURS,
        "dashes": panels.DASHES,
    }


def table_texts(page: Page) -> dict[str, str]:
    """Returns the tables as texts, by the names of their files."""
    metrics, names, sections = page.metrics, page.names, page.sections
    own = page.layout
    texts = {
        "table.md": tables.markdown_table(metrics, names, sections, own),
        "table.csv": tables.csv_table(metrics, own),
        "table.tex": tables.latex_table(metrics, names, sections, own, page.label),
    }
    if layouts.shifted_layout(metrics, names).rows:
        table = tables.shifted_table(metrics, names, sections)
        texts["table.md"] += f"\n## Generalisation\n\n{table}"
        texts["shifted.csv"] = tables.shifted_table(metrics, form="csv")
        texts["shifted.tex"] = tables.shifted_table(metrics, names, sections, form="latex")
    for name, title, layout in (
        ("openood", "By OpenOOD's measures", layouts.openood_layout(metrics, names)),
        ("spectrum", "Full spectrum", layouts.spectrum_layout(metrics, names)),
    ):
        if layout.rows:
            table = tables.markdown_table(metrics, names, sections, layout)
            texts["table.md"] += f"\n## {title}\n\n{table}"
            label = f"tab:{name}"
            texts[f"{name}.tex"] = tables.latex_table(metrics, names, sections, layout, label)
    if "tuning" in metrics:
        texts["table.md"] += f"\n## Tuning\n\n{tables.tuning_table(metrics, names)}"
    for title, headings, rows in page.lists:
        texts["table.md"] += f"\n## {title}\n\n{tables.list_table(headings, rows)}"
    return texts


def _embedded(path) -> dict:
    """A PNG as base64, and the CSS pixels of its width at its own resolution."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        per_inch = image.info.get("dpi", (96, 96))[0]
        width = round(image.width * 96 / per_inch)
    return {
        "data": base64.b64encode(Path(path).read_bytes()).decode("ascii"),
        "width": width,
        "wide": width > WIDE,
    }


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _added(stage: Mapping) -> float | None:
    """Returns by how much a stage's peak exceeds what was resident when it began, in MB."""
    peak, start = stage.get("peak_memory_mb"), stage.get("start_memory_mb")
    return None if peak is None or start is None else peak - start


def _memory(megabytes: float | None) -> str:
    return "–" if megabytes is None else f"{megabytes:,.0f} MB"
