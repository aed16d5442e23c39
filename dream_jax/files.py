"""Files that are whole or not there."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.errors import UserError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on another path of the same folder, then renames the result to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    write(partial)
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON."""
    write_whole(
        path, lambda partial: partial.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    )


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({error}); delete it to redo it"
        ) from error


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays into one compressed file."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_whole(path, write)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file; never loads a pickle.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib, NumPy and the system raise many kinds
        raise UserError(f"{path}: cannot be read ({error}); delete it to redo its stage") from error


def checksum(path: Path) -> dict[str, Any]:
    """Returns {"size": bytes, "sha256": hexadecimal} of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def checksums(folder: Path, leave_out: str) -> dict[str, dict[str, Any]]:
    """Returns the `checksum` of every file below a folder, by its relative path, sorted.

    Args:
      folder: need not exist.
      leave_out: a file name; folders below `folder` that hold such a file are left out too.
    """
    found = {}
    for parent, folders, names in os.walk(folder):
        if Path(parent) != folder and leave_out in names:
            folders.clear()
            continue
        for name in names:
            if name != leave_out and not name.startswith(".partial-"):
                path = Path(parent, name)
                found[path.relative_to(folder).as_posix()] = checksum(path)
    return dict(sorted(found.items()))
