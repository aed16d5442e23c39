"""Files that are whole or not there."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.errors import UserError

PARTIAL = ".partial-"  # begins the name of a file that is being written


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on another path of the same folder, then renames the result to `path`.

    It is on the disk before it has its name: what has its name is whole after a power failure too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{path.name}")
    write(partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def remove_partial(folder: Path) -> None:
    """Deletes what was being written anywhere below a folder when a run was killed."""
    for path in folder.rglob(f"{PARTIAL}*"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8; what Unicode has no character for is escaped."""
    write_whole(path, lambda partial: partial.write_text(text, "utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON."""
    text = json.dumps(value, indent=2) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_json(path: Path, remedy: str = "delete it to redo it") -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
      remedy: what the message ends with.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); {remedy}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds no JSON object with entries, as it should; {remedy}")
    return content


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


def delete(path: Path) -> None:
    """Deletes a file, or a folder with what is in it; neither need be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
            if name != leave_out and not name.startswith(PARTIAL):
                path = Path(parent, name)
                found[path.relative_to(folder).as_posix()] = checksum(path)
    return dict(sorted(found.items()))
