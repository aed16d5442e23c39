"""Where a CLIP model lies on this machine, and which files it is read from."""

from pathlib import Path
from typing import Any

from dream_jax.fingerprint import of_files
from dream_jax.generator import hub

WEIGHTS = ("flax_model.msgpack", "model.safetensors")
TOKENIZER = ("vocab.json", "merges.txt")


def find(path: str, revision: str = "") -> Path | None:
    """Returns the folder of a CLIP model that is on this machine, or None; nothing is downloaded.

    Args:
      path: a folder, or owner/name on the hub.
      revision: of a name on the hub: a commit, tag or branch; "" for the branch "main".
    """
    folder: Path | None = Path(path)
    if not Path(path).is_dir():
        folder = hub.cached(path, revision or "main") if hub.is_name(path) else None
    if folder is None or not all((folder / name).is_file() for name in ("config.json", *TOKENIZER)):
        return None
    return folder if any((folder / name).is_file() for name in WEIGHTS) else None


def fingerprint(path: str, revision: str = "") -> dict[str, Any]:
    """Returns the fingerprint of the files that a model is read from; {} if there is none."""
    folder = find(path, revision)
    if folder is None:
        return {}
    weights = next(name for name in WEIGHTS if (folder / name).is_file())  # as `load` takes them
    return of_files(folder, ("config.json", *TOKENIZER, weights))
