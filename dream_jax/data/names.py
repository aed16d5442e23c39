"""Names of files as text that can be printed, drawn and written anywhere."""

import unicodedata


def printable(name: str) -> str:
    r"""Returns a name in which what is no text is written as an escape.

    Bytes that are not UTF-8, which Python keeps as surrogates, become `\xe4`; control characters
    and line separators become `\n`, `\x07`, `\u2028`. Every other name is returned as it is.
    """
    if name.isprintable():
        return name
    return "".join(_escaped(character) for character in name)


def class_label(name: str) -> str:
    """Returns a folder's name as the label of a class: printable, and with composed characters.

    Some systems write an umlaut as a letter and its dots (Unicode's form NFD), others as one
    character (NFC); a data set that was copied may have both.
    """
    return unicodedata.normalize("NFC", printable(name))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
