"""The zero-shot rows of the results: their names, papers and settings, without loading CLIP."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dream_jax.detector.options import number, whole
from dream_jax.errors import UserError
from dream_jax.results import Row
from dream_jax.rules import Option
from dream_jax.settings import Settings
from dream_jax.zero_shot.folder import find

CLIP = "clip"  # what stands in the place of a training


def trainings_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """Returns the trainings of rows, each once; zero-shot rows have none."""
    return tuple(dict.fromkeys(row.training for row in rows if row.training != CLIP))


@dataclass(frozen=True)
class ZeroShot:
    """A score by CLIP; see `scores.py`.

    Attributes:
      title: its name in tables.
      paper: where it comes from.
      options: its settings, with the paper's defaults.
    """

    title: str
    paper: str
    options: Mapping[str, Option]


ROWS: dict[str, ZeroShot] = {
    "mcm": ZeroShot(
        "MCM",
        "Ming et al., Delving into Out-of-Distribution Detection with Vision-Language "
        "Representations, NeurIPS 2022",
        {"temperature": number(1.0, 1e-4, 1e3)},
    ),
    "gl_mcm": ZeroShot(
        "GL-MCM",
        "Miyai et al., GL-MCM: Global and Local Maximum Concept Matching for Zero-Shot "
        "Out-of-Distribution Detection, IJCV 2025",
        {"temperature": number(1.0, 1e-4, 1e3), "local": number(1.0, 0.0, 1e3)},
    ),
    "neg_label": ZeroShot(
        "NegLabel",
        "Jiang et al., Negative Label Guided OOD Detection with Pretrained Vision-Language "
        "Models, ICLR 2024",
        {
            "temperature": number(0.01, 1e-4, 1e3),
            "share": number(0.15, 0.0, 1.0),  # of the words that become negative labels
            "quantile": number(0.95, 0.0, 1.0),  # of a word's cosines with the classes
            "groups": whole(100, 1),
        },
    ),
}


def without_weights(settings: Settings, rows: Iterable[Row]) -> dict[str, str]:
    """Returns the zero-shot rows that cannot be made on this machine, with the reason."""
    found = {row.key: _lacking(settings, row) for row in rows if row.training == CLIP}
    return {key: reason for key, reason in found.items() if reason}


def _lacking(settings: Settings, row: Row) -> str:
    """Returns why a zero-shot row cannot be made on this machine; "" if it can."""
    own = settings.zero_shot
    if settings.data.channels != 3:
        return f"config.data.channels is {settings.data.channels}; CLIP scores colour photographs"
    if find(own.path, own.revision) is None:
        return (
            f"config.zero_shot.path is {own.path!r}; CLIP's weights for Flax are neither in such a "
            f"folder nor in the hub's cache"
        )
    if row.detector == "neg_label" and own.words and not Path(own.words).is_file():
        return (
            f"config.zero_shot.words is {own.words!r}; it must be a file of words, one a line, or "
            f"empty for those of CLIP's tokenizer"
        )
    return ""


def read_words(path: str) -> list[str]:
    """Returns the words of a file, one a line, each once.

    Raises:
      UserError: it cannot be read as text, or has none.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config.zero_shot.words is {path!r}; it cannot be read: {error}") from None
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not words:
        raise UserError(f"config.zero_shot.words is {path!r}; the file has no words")
    return words
