"""What the figures of a report share: colours, fonts, and saving.

Colours come from the palettes of Okabe and Ito and of Paul Tol, which stay apart for colour-blind
readers.
"""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from dream_jax.evaluation.report.fonts import choose_fonts
from dream_jax.files import write_whole
from dream_jax.legible import legible

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#007A58", "#A8578B"
VIOLET, ORANGE = "#6A3D9A", "#E69F00"  # of figure 4, as in the paper: ID features, outliers
INK, GREY = "#222222", "#8a8a8a"
CLASS_COLOURS = (
    "#332288", "#CC6677", "#117733", "#DDAA33", "#88CCEE",
    "#882255", "#44AA99", "#999933", "#AA4499", "#777777",
)  # fmt: skip
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # names are drawn as they are, with their $
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
DPI = 150


def figure_of(width: float, height: float) -> Figure:
    """Makes a figure, sizes in inches, that pyplot does not keep: long runs would collect them."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure as a PNG and returns the path."""
    choose_fonts(figure.findobj(Text))
    write_whole(path, lambda partial: figure.savefig(partial, dpi=DPI))
    return path


def shortened(text: str, most: int) -> str:
    """Makes a name legible and cuts it to at most `most` characters."""
    text = legible(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def wrapped(text: str, most: int, lines: int) -> str:
    """Makes a name legible and breaks it into at most `lines` of at most `most` columns.

    Chinese, Japanese and Korean characters take two columns. What does not fit is cut.
    """
    rows = [""]
    for word in legible(text).split():
        joined = f"{rows[-1]} {word}".strip()
        if columns(joined) <= most:
            rows[-1] = joined
            continue
        if rows[-1]:
            rows.append("")
        for character in word:
            if columns(rows[-1] + character) > most:
                rows.append("")
            rows[-1] += character
    if len(rows) > lines:
        rows = rows[:lines]
        while columns(rows[-1]) > most - 1:
            rows[-1] = rows[-1][:-1]
        rows[-1] += "…"
    return "\n".join(rows)


def columns(text: str) -> int:
    """Returns the width of a text in Latin characters."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def subset(n: int, most: int, seed: int) -> Int[np.ndarray, " chosen"]:
    """Draws at most `most` of `n` indices."""
    return np.random.default_rng(seed).permutation(n)[:most]
