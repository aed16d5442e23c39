"""`alphabets`: Armenian and Georgian letters, an OOD set to tune by."""

import unicodedata

from dream_jax.data.glyphs import FACES, TUNING_SCRIPTS, characters, looks_latin
from dream_jax.data.image_sets import DataOptions, ImageSet, OodSet
from dream_jax.data.printed import printed, render


def alphabets(options: DataOptions) -> ImageSet:
    """Returns Armenian and Georgian letters in nine DejaVu faces, made as `letters` is.

    Neither the generator's world nor `letters` has them; Latin look-alikes (Armenian Օ, հ) are
    left out.
    """
    return printed("alphabets", alphabet_glyphs(), render, options)


def alphabet_glyphs() -> list[tuple[str, str]]:
    """Returns (character, font file) of every glyph that `alphabets` draws from."""
    return [
        (char, file)
        for face, file in FACES.items()
        for char in sorted(characters(face))
        if unicodedata.category(char) in ("Lu", "Ll", "Lo")  # not modifier marks
        and (name := unicodedata.name(char, "")).startswith(TUNING_SCRIPTS)
        and "LIGATURE" not in name  # two letters
        and not looks_latin(char)
    ]


SET = OodSet("alphabets", alphabets, role="tuning")
