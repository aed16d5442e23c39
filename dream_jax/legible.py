"""Names as people can read them: of classes, sets and rows, in figures, tables and pages."""

import unicodedata


def legible(text: str) -> str:
    """Returns a text in one line and with what cannot be shown replaced.

    Bytes of a file name that are not UTF-8 (lone surrogates) become replacement characters, line
    ends and other control characters spaces.
    """
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    kind = unicodedata.category(character)
    return {"Cs": "\ufffd", "Cc": " ", "Zl": " ", "Zp": " "}.get(kind, character)
