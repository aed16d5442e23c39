"""`letters`, `alphabets` and `symbols`: OOD sets of printed characters from matplotlib's fonts."""

import functools
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dream_jax.data.framing import resize, set_rng, with_channels
from dream_jax.data.glyphs import (
    FACES,
    LATIN,
    TUNING_SCRIPTS,
    characters,
    looks_latin,
    random_affine,
    render_glyph,
    symbol_glyphs,
)
from dream_jax.data.registry import DataOptions, ImageSet, ood_set

# Every text face in the wheel. Not cmsy10, cmex10 and LastResort, whose "letters" are symbols.
LETTER_FONTS = (
    *(
        f"DejaVu{family}.ttf"
        for family in (
            *("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique"),
            *("SansMono", "SansMono-Bold", "SansMono-Oblique", "SansMono-BoldOblique"),
            *("Serif", "Serif-Bold", "Serif-Italic", "Serif-BoldItalic"),
        )
    ),
    *("STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf", "STIXGeneralBolIta.ttf"),
    *("cmr10.ttf", "cmb10.ttf", "cmti10.ttf", "cmmi10.ttf", "cmss10.ttf", "cmtt10.ttf"),
)
FRAME = 32
FONT_PIXELS = 24  # capitals are 18 pixels tall, MNIST's digits 20; the widest W just fits


@ood_set("letters")
def letters(options: DataOptions) -> ImageSet:
    """Latin letters A-Z and a-z, white on black, in 22 faces (DejaVu, STIX, Computer Modern).

    Small random affine maps; no pair of letter and face comes twice among the first 1,144 images.
    Letters that are shaped like digits (O, l, I) are among them, so that even a perfect detector
    has an FPR above 0 here.
    """
    glyphs = [(char, font) for font in LETTER_FONTS for char in LATIN]
    return _printed("letters", glyphs, _render, options)


@ood_set("alphabets", role="tuning")
def alphabets(options: DataOptions) -> ImageSet:
    """Armenian and Georgian letters in nine DejaVu faces, made as `letters` is; for tuning only.

    Neither the generator's world nor `letters` has them: Latin look-alikes (Armenian Օ, հ) are
    left out.
    """
    return _printed("alphabets", alphabet_glyphs(), _render, options)


@ood_set("symbols", role="auxiliary")
def symbols(options: DataOptions) -> ImageSet:
    """Mathematical operators, arrows and geometric signs of STIX, made as `letters` is.

    To train on: neither the generator's world nor `letters` and `alphabets` has them, and none is a
    letter or a digit or looks like one (`glyphs.symbol_glyphs`). Wide ones are drawn smaller.
    """
    return _printed("symbols", list(symbol_glyphs()), _render_fitting, options)


def alphabet_glyphs() -> list[tuple[str, str]]:
    """(character, font file) of every glyph that `alphabets` draws from."""
    return [
        (char, file)
        for face, file in FACES.items()
        for char in sorted(characters(face))
        if unicodedata.category(char) in ("Lu", "Ll", "Lo")  # not modifier marks
        and (name := unicodedata.name(char, "")).startswith(TUNING_SCRIPTS)
        and "LIGATURE" not in name  # two letters
        and not looks_latin(char)
    ]


def _printed(
    name: str,
    glyphs: list[tuple[str, str]],
    render: Callable[[str, str], np.ndarray],
    options: DataOptions,
) -> ImageSet:
    """`options.count` of the (character, font) pairs, all once before any comes again."""
    rng = set_rng(name, options.seed)
    rounds = -(-options.count // len(glyphs))
    order = np.concatenate([rng.permutation(len(glyphs)) for _ in range(rounds)])
    images = [random_affine(render(*glyphs[row]), rng) for row in order[: options.count]]
    values = resize(np.stack(images), options.image_size) / 255
    return ImageSet(name, with_channels(values, options.channels))


@functools.cache
def _font(file: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", file)
    return ImageFont.truetype(path, FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)


def _render(char: str, file: str) -> np.ndarray:
    """A character with its ink centred, uint8 (FRAME, FRAME), white on black."""
    font = _font(file)
    canvas = Image.new("L", (FRAME, FRAME))
    left, top, right, bottom = font.getbbox(char)
    position = ((FRAME - left - right) / 2, (FRAME - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(position, char, fill=255, font=font)
    return np.asarray(canvas)


def _render_fitting(char: str, face: str) -> np.ndarray:
    """As `_render`, but scaled down where the ink would not fit."""
    return render_glyph(char, face, FONT_PIXELS, FRAME)
