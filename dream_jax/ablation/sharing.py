"""Finished stages that other runs have made already, taken over instead of being made again."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dream_jax.files import read_json, write_json
from dream_jax.record import FORMAT, RECORD, Record, seal
from dream_jax.repair import damaged_files


def identity(record: Record) -> str:
    """Returns a digest of everything that a stage's result depends on, the same in every run."""
    sources = {**record.upstream, record.stage.name: record}
    return _digest(
        record.stage.name, {name: (r.settings, r.origins) for name, r in sources.items()}
    )


def _recorded(made: Mapping[str, Any]) -> str:
    """Returns the identity of a stage by the content of its record."""
    sources = {**made["inputs"], made["stage"]: made}
    return _digest(
        made["stage"], {name: (s["settings"], s["origins"]) for name, s in sources.items()}
    )


def _digest(stage: str, sources: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([stage, sources], sort_keys=True).encode()).hexdigest()


class Finished:
    """The finished stages in the folders of some runs.

    Args:
      roots: the folders; of several with the same stage, the first counts.
    """

    def __init__(self, roots: Iterable[Path]):
        self._roots: dict[str, Path] = {}
        for root in roots:
            for depth in ("*", "*/*"):  # the places of stages in a run's folder
                for path in sorted(root.glob(f"{depth}/{RECORD}")):
                    self._look(path, root)

    def _look(self, path: Path, root: Path) -> None:
        made = read_json(path, f"delete the folder {path.parent} to make it again")
        if made.get("format") == FORMAT and made == seal(made) and made["done"]:
            self._roots.setdefault(_recorded(made), root)

    def __contains__(self, stage: str) -> bool:
        """Returns whether a stage is done anywhere, by its `identity`."""
        return stage in self._roots

    def add(self, record: Record) -> None:
        """Notes a stage that was made."""
        self._roots[identity(record)] = record.root

    def give(self, record: Record) -> bool:
        """Takes a stage over into the folder of a run that has it not.

        Its files become hard links to those of the other run: they take no room, and stay when that
        run is deleted. Files of a finished stage are replaced and never written into, so a change
        in one run is none in another.

        Returns:
          Whether it is done now. It is not where no run has the stage, where a file of it is
          missing or damaged, or where it was made from other files than this run has.
        """
        root = self._roots.get(identity(record))
        if root is None or root == record.root:
            return False
        source = Record(record.stage, root, record.settings, record.origins, record.upstream)
        if not source.done or damaged_files(source, thorough=True):
            return False
        made = source.read()
        used = {name: own["digest"] for name, own in made["inputs"].items()}
        if used != {name: upstream.digest for name, upstream in record.upstream.items()}:
            return False
        record.clear()
        record.folder.mkdir(parents=True, exist_ok=True)
        write_json(record.folder / RECORD, seal(made | {"done": False}))
        for name in made["files"]:
            if source.path(name).exists():  # checkpoints that nothing needs may be deleted
                _link(source.path(name), record.path(name))
        write_json(record.folder / RECORD, made)
        return True


def _link(source: Path, place: Path) -> None:
    """Makes a hard link, or a copy on a file system that has none."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)  # of a product, which lies outside of the stage's folder
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)
