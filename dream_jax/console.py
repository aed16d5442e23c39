"""Output streams that can print any text, whatever their encoding."""

import codecs
import os
import sys

PLAIN = {"─": "-", "–": "-", "—": "-", "±": "+-", "†": "+", "↓": "v", "↑": "^", "…": "..."}
HANDLER = "dream_jax.plain"


def accept_any_text() -> None:
    """Lets standard output and error print what their encodings lack as plain or escaped text.

    A stream that was closed before the program began discards what is printed.
    """
    codecs.register_error(HANDLER, _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = open(os.devnull, "w", encoding="utf-8", errors=HANDLER)  # noqa: SIM115
            setattr(sys, name, nowhere)
        elif hasattr(stream, "reconfigure"):  # not where a test or a notebook has put its own
            stream.reconfigure(errors=HANDLER)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replaces the characters of an error, as `codecs.register_error` asks for."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    shown = [PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in found]
    return "".join(shown), error.end
