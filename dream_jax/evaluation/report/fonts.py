"""Fonts for the characters that a figure's own font lacks."""

import sys
import warnings
from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

OWN = "DejaVu Sans"


def choose_fonts(texts: Iterable[Text]) -> None:
    """Gives texts, after their own font, installed ones that have the characters it lacks.

    Says in one line on standard error which characters no installed font has.
    """
    texts = list(texts)
    lacking = {c for text in texts for c in text.get_text() if not c.isspace()} - characters(
        font_manager.findfont(OWN)
    )
    families = [OWN]
    for entry in font_manager.fontManager.ttflist if lacking else ():
        found = lacking & characters(entry.fname)
        if found and "LastResort" not in entry.fname:
            families.append(entry.name)
            lacking -= found
    if len(families) > 1:
        for text in texts:
            text.set_fontfamily(families)
    if lacking:
        _say_once("".join(sorted(lacking)[:20]))


@cache
def characters(path: str) -> frozenset[str]:
    """Returns the characters of a font file; none where it cannot be drawn with."""
    try:
        font = FT2Font(path)
        font.set_size(9, 72)
        return frozenset(map(chr, font.get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _say_once(characters: str) -> None:
    warnings.filterwarnings("ignore", message="Glyph .* missing from")
    print(
        f"figures: no installed font has {characters}; they are drawn as boxes until one is "
        f"installed, such as Noto Sans CJK for Chinese, Japanese and Korean",
        file=sys.stderr,
    )
