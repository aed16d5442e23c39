"""`letters`: Latin letters from matplotlib's fonts, an OOD set."""

from dream_jax.data.glyphs import LATIN
from dream_jax.data.image_sets import DataOptions, ImageSet, OodSet
from dream_jax.data.printed import printed, render

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


def letters(options: DataOptions) -> ImageSet:
    """Returns Latin letters A-Z and a-z, white on black, in 22 faces of three families.

    The families are DejaVu, STIX and Computer Modern. Each image has a small random affine map, and
    no pair of letter and face comes twice among the first 1,144. Letters that are shaped like
    digits (O, l, I) are among them, so that even a perfect detector has an FPR above 0 here.
    """
    glyphs = [(char, font) for font in LETTER_FONTS for char in LATIN]
    return printed("letters", glyphs, render, options)


SET = OodSet("letters", letters)
