"""Candidates for the settings of rows: the choice among them, and how results report it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dream_jax.errors import UserError

# A candidate is chosen only if its ID accuracy is at most this far below the best candidate's.
ACCURACY_LOST = 0.01


def record_file(record: str) -> Path | None:
    """Returns the file that `config.tuning.record` names; None if it is empty.

    Raises:
      UserError: there is no such file.
    """
    if not record:
        return None
    if not os.path.isfile(record):
        raise UserError(
            f"config.tuning.record is {record!r}; there is no such file: it must be one that "
            f"launch/tune.py wrote, or empty"
        )
    return Path(record)


def read_record(
    record: str, source: str = "config.tuning.record", otherwise: str = "empty"
) -> dict[str, Any]:
    """Returns what `config.tuning.record` holds; nothing if it is empty.

    Args:
      source: what messages call the record.
      otherwise: what the record may be instead.

    Raises:
      UserError: it names no file that launch/tune.py wrote.
    """
    path = record_file(record)
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text())
        for own in found["rows"].values():
            choose(own["candidates"])
            dict(own["chosen"])
        whole = isinstance(found["seed"], int) and isinstance(found["sets"], list)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(
            f"{source} is {record!r}, which is damaged or no tuning.json: it must be one that "
            f"launch/tune.py wrote, or {otherwise}"
        )
    return found


def choose(candidates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The options of the best candidate; of equal ones, the first.

    The least FPR95 wins, then the largest AUROC, among those that keep the ID accuracy.

    Args:
      candidates: each with `options`, and `fpr95`, `auroc` (means over the sets) and `id_accuracy`
        as fractions.
    """
    enough = max(c["id_accuracy"] for c in candidates) - ACCURACY_LOST
    allowed = [c for c in candidates if c["id_accuracy"] >= enough]
    return min(allowed, key=lambda c: (c["fpr95"], -c["auroc"]))["options"]


def tuning_note(
    record: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What metrics.json says of the tuning.

    Args:
      record: the content of tuning.json.
      options: row → all its settings, as they are used.

    Returns:
      {"sets", "seed", "rows": {row: {"candidates", "chosen"}}}, of the rows in both: how many were
      tried, and the settings in use; 0 candidates where these are not the ones that were chosen.
    """
    rows = {}
    for row, own in record["rows"].items():
        if row in options:
            used = {name: options[row][name] for name in own["chosen"]}
            count = len(own["candidates"]) if used == own["chosen"] else 0
            rows[row] = {"candidates": count, "chosen": used}
    return {"sets": record["sets"], "seed": record["seed"], "rows": rows}
