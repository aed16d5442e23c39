"""Glyphs of the fonts that matplotlib ships: rendering, names, and which of them are Latin letters.

The miniature generator's world is drawn from here, and so are the OOD sets `letters`, `alphabets`
and `symbols`; what one shows, the others leave out.
"""

import functools
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FACES = {
    "sans": "DejaVuSans.ttf",
    "sans-bold": "DejaVuSans-Bold.ttf",
    "sans-italic": "DejaVuSans-Oblique.ttf",
    "serif": "DejaVuSerif.ttf",
    "serif-bold": "DejaVuSerif-Bold.ttf",
    "serif-italic": "DejaVuSerif-Italic.ttf",
    "mono": "DejaVuSansMono.ttf",
    "mono-bold": "DejaVuSansMono-Bold.ttf",
    "mono-italic": "DejaVuSansMono-Oblique.ttf",
}
# Faces of which `symbols` draws the characters that no face above has.
SYMBOL_FACES = {"stix": "STIXGeneral.ttf", "stix-bold": "STIXGeneralBol.ttf"}
# Symbols with a small letter or digit in them.
INSCRIBED = "\u214a\u299e\u29cc\u2a27\u2ae1"
LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
# Scripts kept out of the generator's world because the OOD set `alphabets` (used for tuning) is
# made of them.
TUNING_SCRIPTS = ("ARMENIAN", "GEORGIAN")
# Correlation of two normalised glyph pictures above which one is called a look-alike of the other.
LOOK_ALIKE = 0.8
# The same for symbols, which must be farther from letters and digits.
LOOK_WRITTEN = 0.7
# Spread of ink along its longest direction, over that across it, from which on it is a mere stroke.
STROKE = 3.0


def font_path(face: str) -> Path:
    """File of one of `FACES` or `SYMBOL_FACES`, from matplotlib's own data folder."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / (FACES | SYMBOL_FACES)[face]


@functools.cache
def _font(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    # The basic layout takes every code point, and one glyph needs no shaping.
    return ImageFont.truetype(str(font_path(face)), pixels, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def characters(face: str) -> frozenset[str]:
    """The characters that a face has a glyph for."""
    from fontTools.ttLib import TTFont

    with TTFont(font_path(face), lazy=True) as font:
        return frozenset(chr(code) for code in font.getBestCmap())


def render_glyph(char: str, face: str, pixels: int = 22, size: int = 32) -> np.ndarray:
    """One glyph, white on black, its ink centred: uint8 (size, size).

    The font is scaled down where the ink would not fit with a margin of one pixel.
    """
    for scale in (pixels, pixels * 3 // 4, pixels // 2):
        font = _font(face, scale)
        left, top, right, bottom = font.getbbox(char)
        if right - left <= size - 2 and bottom - top <= size - 2:
            break
    canvas = Image.new("L", (size, size))
    position = ((size - left - right) / 2, (size - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(position, char, fill=255, font=font)
    return np.asarray(canvas)


def random_affine(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    degrees: float = 8.0,
    scale: tuple[float, float] = (0.9, 1.1),
    shear: float = 0.1,
    shift: float = 1.5,
) -> np.ndarray:
    """A small random rotation, scaling, shear and shift (pixels) of a uint8 (H, W) image."""
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    zoom = rng.uniform(*scale)
    slant = rng.uniform(-shear, shear)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1.0, slant], [0.0, 1.0]]) / zoom
    centre = (np.array(image.shape[::-1]) - 1) / 2
    offset = centre - matrix @ (centre + rng.uniform(-shift, shift, 2))
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    warped = Image.fromarray(image).transform(
        image.shape[::-1], Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return np.asarray(warped)


def _normalised(char: str, face: str) -> np.ndarray:
    """Ink cropped to its box and stretched to 16×16, zero mean, unit norm: (256,)."""
    image = render_glyph(char, face)
    rows, columns = np.nonzero(image > 64)
    if rows.size == 0:
        return np.zeros(256)
    ink = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    box = Image.fromarray(ink).resize((16, 16), Image.Resampling.BILINEAR)
    framed = np.asarray(box, np.float64).ravel()
    aspect = ink.shape[1] / ink.shape[0]
    centred = framed - framed.mean()
    norm = np.linalg.norm(centred)
    if norm < 1e-6 or aspect < 0.3:  # a bar, like l and I
        return np.zeros(256)
    return centred / norm


@functools.cache
def _latin_shapes(face: str) -> np.ndarray:
    return np.stack([_normalised(char, face) for char in LATIN])


@functools.cache
def _text_shapes() -> np.ndarray:
    """Latin letters and digits in three upright faces: (186, 256)."""
    faces = ("sans", "serif", "stix")
    return np.stack([_normalised(char, face) for face in faces for char in LATIN + DIGITS])


def _is_bar(char: str, face: str) -> bool:
    """A single upright bar, as l, I and | are."""
    image = render_glyph(char, face) > 64
    rows, columns = np.nonzero(image)
    if rows.size == 0:
        return False
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    return bool(height >= 2.5 * width and rows.size > 0.6 * height * width)


@functools.cache
def looks_latin(char: str) -> bool:
    """Whether a character is a Latin letter by name, by decomposition or by shape.

    By name: LATIN anywhere in it. By decomposition: its compatibility form holds an ASCII letter
    (mathematical alphabets, fullwidth forms, circled letters, Roman numerals, unit signs). By
    shape: as it is or with marks removed, its sans or serif picture correlates above
    `LOOK_ALIKE` with that of a Latin letter (Cyrillic А, Greek Ο, a white circle), or it is a bar.
    """
    name = unicodedata.name(char, "")
    compatible = unicodedata.normalize("NFKD", char)
    if "LATIN" in name or any(c in LATIN for c in compatible):
        return True
    base = next((c for c in compatible if not unicodedata.combining(c)), char)
    return any(
        _is_bar(shown, face) or np.max(_latin_shapes(face) @ _normalised(shown, face)) > LOOK_ALIKE
        for shown in {char, base}
        for face in ("sans", "serif")
        if shown in characters(face)
    )


def looks_written(char: str, face: str) -> bool:
    """Whether a glyph is shaped like a Latin letter or a digit, or is a mere stroke, as 1 is.

    Shapes are compared as in `looks_latin`, but with digits too, and more strictly.
    A stroke is ink that lies along one line, in whatever direction.
    """
    ink = np.argwhere(render_glyph(char, face) > 64)
    if len(ink) < 2:
        return True
    across, along = np.sqrt(np.linalg.eigvalsh(np.cov(ink.T)).clip(0))
    stroke = along > STROKE * across
    return stroke or np.max(_text_shapes() @ _normalised(char, face)) > LOOK_WRITTEN


def symbol_glyphs() -> Iterator[tuple[str, str]]:
    """(character, face) of each symbol that the generator's faces lack.

    Mathematical operators, arrows and geometric signs of `SYMBOL_FACES`, without variants of other
    characters (bold nabla, circled letters) and without what looks like a letter or a digit.
    """
    world = frozenset().union(*map(characters, FACES))
    for face in SYMBOL_FACES:
        for char in sorted(characters(face) - world):
            symbol = unicodedata.category(char) in ("Sm", "So")
            variant = unicodedata.normalize("NFKD", char) != char
            if symbol and not variant and char not in INSCRIBED and not looks_written(char, face):
                yield char, face


def world_glyphs() -> Iterator[tuple[str, str, str]]:
    """(character, face, lower-case Unicode name) of each glyph of the generator's world.

    Left out: Latin letters and look-alikes (`looks_latin`), `TUNING_SCRIPTS`, characters without
    a name, spaces, and marks that stand only on other characters.
    """
    for face in FACES:
        for char in sorted(characters(face)):
            name = unicodedata.name(char, "")
            hidden = unicodedata.category(char)[0] in "MZC"
            if not name or hidden or name.startswith(TUNING_SCRIPTS) or looks_latin(char):
                continue
            yield char, face, name.lower()
