"""Fingerprints of files, by which a run knows again what it has read, wherever that lies."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Bytes of all files together that are read for a fingerprint, in equal shares. A large set must
# not delay the start: a share that is smaller than the least one is not read at all.
BUDGET = 64 * 2**20
LEAST_SHARE = 4096


def of_files(root: Path, names: Sequence[str]) -> dict[str, Any]:
    """Returns what identifies files: their number, their bytes and a digest.

    The digest covers names, sizes, and contents as far as the budget reaches: of few or small files
    everything, of large ones their beginnings and ends, of more than 16,384 files nothing.

    Args:
      root: a folder; the result does not depend on how it is spelt, nor on where it lies.
      names: of files in it, relative to it.

    Raises:
      OSError: a file cannot be read.
    """
    share = BUDGET // max(1, len(names))
    digest, total = hashlib.sha256(), 0
    for name in sorted(names):
        path = root / name
        size = path.stat().st_size
        total += size
        digest.update(os.fsencode(f"{name}\0{size}\0"))
        if share >= LEAST_SHARE:
            digest.update(_ends(path, size, share))
    return {"files": len(names), "bytes": total, "contents": digest.hexdigest()}


def _ends(path: Path, size: int, share: int) -> bytes:
    """Returns the contents of a file, or its beginning and end if it is larger than `share`."""
    with path.open("rb") as file:
        if size <= share:
            return file.read()
        start = file.read(share // 2)
        file.seek(size - share // 2)
        return start + file.read()
