"""`symbols`: signs of the STIX fonts, real outliers to train on."""

from dream_jax.data.glyphs import symbol_glyphs
from dream_jax.data.image_sets import DataOptions, ImageSet, OodSet
from dream_jax.data.printed import printed, render_fitting


def symbols(options: DataOptions) -> ImageSet:
    """Returns mathematical operators, arrows and geometric signs, made as `letters` is.

    Neither the generator's world nor `letters` and `alphabets` has them, and none is a letter or a
    digit or looks like one (`glyphs.symbol_glyphs`). Wide ones are drawn smaller.
    """
    return printed("symbols", list(symbol_glyphs()), render_fitting, options)


SET = OodSet("symbols", symbols, role="auxiliary")
