"""The record of a stage: what its result was made with, and of which files it is."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dream_jax import memory
from dream_jax.errors import UserError
from dream_jax.files import PARTIAL, checksum, checksums, delete, read_json, write_json
from dream_jax.stage import Stage
from dream_jax.training import batch_sizes, hosts
from dream_jax.training.curves import MEASURED, METRICS

RECORD = "stage.json"
# Of a run's folder. 1 did not name itself and kept settings by prefix; 2 kept paths where 3 keeps
# fingerprints of what lies there.
FORMAT = 3
CHECKPOINTS = "checkpoints"  # the folder in a stage's folder
UNREAD = (CHECKPOINTS, METRICS)  # what no other stage reads as files
REDO = "use --overwrite to redo it, or another --workdir"


class Record:
    """The file `stage.json` of a stage, and the files that it lists.

    It holds `settings` (the declared fields that results depend on, and the parameters), `origins`
    (fingerprints of what some of these fields name: see `origins`), `inputs` (both for every stage
    upstream, with a digest of its files), `files` with sizes and checksums, `done`, `seconds`,
    `peak_memory_mb`, what was resident at most since it was last begun, and `start_memory_mb`,
    what was when it began (null where only the peak of the whole process is known; records of
    earlier versions lack it), and `batch_sizes`, those that were found, by setting. Of several
    processes, process 0 writes it, about itself.

    Args:
      stage: the declaration.
      root: the run's folder.
      settings: the values of the fields and parameters today.
      origins: field → fingerprint, today.
      upstream: the records of all stages that this one depends on, direct or not, by name.
    """

    def __init__(
        self,
        stage: Stage,
        root: Path,
        settings: Mapping[str, Any],
        origins: Mapping[str, Mapping[str, Any]],
        upstream: dict[str, Record],
    ):
        self.stage, self.root = stage, root
        self.folder = root / stage.folder
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # tuples become lists
        self.origins: dict[str, dict[str, Any]] = json.loads(json.dumps(origins))
        self.upstream = upstream
        self._path = self.folder / RECORD
        self._known: tuple[tuple[int, ...], dict[str, Any]] | None = None

    @property
    def exists(self) -> bool:
        return self._path.exists()

    def read(self) -> dict[str, Any]:
        """Returns the record, read again where its file is another than the one read last.

        Raises:
          UserError: it is damaged, or an earlier version of the program wrote it.
        """
        state = _state(self._path)
        if self._known is None or self._known[0] != state:
            self._known = state, _read(self._path, self.stage.name, self.root)
        return self._known[1]

    def _content(self) -> dict[str, Any] | None:
        """Returns the record; None where there is none, or a damaged one of a derived stage."""
        try:
            return self.read() if self.exists else None
        except UserError:
            if self.stage.derived:
                return None  # the stage is made anew from nothing
            raise

    def difference(self) -> str:
        """Describes the first thing that is not as it was, here or upstream; "" if all is.

        What is not on this machine any more is no difference: it may be needed no more.
        """
        made = self._content()
        if made is None:
            return ""
        sources = [("with", "when", made, self)]
        for name, record in self.upstream.items():
            before = made["inputs"].get(name, {})
            sources.append((f"from stage {name} with", f"from stage {name} when", before, record))
        for how, when, before, record in sources:
            if found := _changed_setting(before.get("settings", {}), record.settings):
                name, old, new = found
                return f"was made {how} {name}={old!r}, the configuration has {new!r}"
            if found := _changed_origin(before.get("origins", {}), record.origins):
                name, old, new = found
                return f"was made {when} {name} had {old}; now it has {new}"
        return ""

    def changed_input(self) -> str:
        """Returns the first stage upstream whose files are others than those used; "" if none."""
        made = self._content()
        if made is None:
            return ""
        for name, record in self.upstream.items():
            before, now = made["inputs"].get(name, {}).get("digest", ""), record.digest
            if before != now and (now or self.stage.derived):
                return name
        return ""

    def refuse_changes(self) -> None:
        """Raises UserError if the stage was begun with other settings, data or inputs."""
        if self.stage.derived:
            return
        if not self.exists:
            self._refuse_unknown_files()
        difference = self.difference()
        if not difference and (source := self.changed_input()):
            difference = f"was made from other files of stage {source} than those that are there"
        if difference:
            raise UserError(f"{self.folder}: stage {self.stage.name} {difference}; {REDO}")

    def _refuse_unknown_files(self) -> None:
        for path in self._own():
            raise UserError(
                f"{path}: lies there without {self._path}, so nothing says what it was made with; "
                f"delete the folder {self.folder} to make stage {self.stage.name} again"
            )

    @property
    def outdated(self) -> bool:
        """Whether this is a derived stage, and anything that it was made of is not as it was."""
        return self.stage.derived and bool(self.difference() or self.changed_input())

    @property
    def done(self) -> bool:
        made = self._content()
        return made is not None and made["done"] and not self.outdated

    @property
    def digest(self) -> str:
        """The digest of what other stages read of this one; empty while it is not done."""
        return (self._content() or {}).get("digest", "")

    def reopen(self) -> None:
        """Records that the stage is not done, so that it goes on from the files that it has."""
        made = self._content()
        if made is not None:
            write_json(self._path, seal(made | {"done": False}))

    def clear(self) -> None:
        """Deletes the stage's folder, but for stages that lie in it, and its other products."""
        for product in self.stage.products:
            delete(self.root / product)
        for path in (*self._own(), self._path):
            delete(path)

    def path(self, name: str) -> Path:
        """Returns the place of a recorded file by its name, which is relative to the folder."""
        return Path(os.path.normpath(self.folder / name))  # a product's name begins with "../"

    def _own(self) -> list[Path]:
        """Returns what lies in the folder: no record, no half-written file, no other stage."""
        return [
            path
            for path in (self.folder.iterdir() if self.folder.is_dir() else ())
            if path != self._path
            and not path.name.startswith(PARTIAL)
            and not (path / RECORD).exists()
        ]

    def _write(self, done: bool, seconds: float, **more: Any) -> None:
        if hosts.is_main():
            inputs = {
                name: {
                    "settings": record.settings,
                    "origins": record.origins,
                    "digest": record.digest,
                }
                for name, record in self.upstream.items()
            }
            content = {
                "format": FORMAT,
                "stage": self.stage.name,
                "done": done,
                "seconds": round(seconds, 2),
                "settings": self.settings,
                "origins": self.origins,
                "inputs": inputs,
            }
            write_json(self._path, seal(content | more))

    def _files(self) -> dict[str, dict[str, Any]]:
        found = checksums(self.folder, RECORD)
        found = {name: file for name, file in found.items() if _first(name) not in MEASURED}
        up = "../" * len(Path(self.stage.folder).parts)
        return found | {up + name: checksum(self.root / name) for name in self.stage.products}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Records the settings when the stage begins, and when it ends that it is done.

        All processes enter and leave together.
        """
        name = self.stage.name
        made = self._content()
        spent = made["seconds"] if made is not None and not self.done else 0.0
        begin, resident = time.perf_counter(), memory.forget_peak()
        batch_sizes.forget()
        hosts.barrier(f"begin {name}")
        self._write(False, spent)
        hosts.barrier(f"recorded {name}")  # no file of the stage lies there without its record
        print(f"── {name}", flush=True)
        try:
            yield
        except BaseException:
            self._write(False, spent + time.perf_counter() - begin)
            raise
        hosts.barrier(f"end {name}")
        seconds = spent + time.perf_counter() - begin
        files = self._files() if hosts.is_main() else {}
        used = {name: file for name, file in files.items() if _first(name) not in UNREAD}
        digest = hashlib.sha256(json.dumps(used).encode()).hexdigest()
        taken: dict[str, Any] = {
            "peak_memory_mb": round(memory.peak_mb()),
            "start_memory_mb": None if resident is None else round(resident),
        }
        taken |= {"batch_sizes": found} if (found := batch_sizes.chosen()) else {}
        self._write(True, seconds, **taken, files=files, digest=digest)
        print(f"   done in {seconds:.0f} s", flush=True)
        hosts.barrier(f"recorded {name}, done")


def _read(path: Path, stage: str, root: Path) -> dict[str, Any]:
    """Reads a record; see `Record.read`."""
    folder = path.parent
    record = read_json(path, f"delete the folder {folder} to make it again")
    if record.get("format") in range(FORMAT) or (record and "format" not in record):
        raise old_format(root)
    if record != seal(record):
        raise UserError(
            f"{path}: is damaged, so nothing says what stage {stage} was made with; delete the "
            f"folder {folder} to make it again"
        )
    return record


def _state(path: Path) -> tuple[int, ...]:
    """Returns what tells a file from the one that was there before; () where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()  # reading it says why
    return found.st_ino, found.st_mtime_ns, found.st_size


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record with a digest of its content, by which damage to it is found."""
    content = {key: value for key, value in record.items() if key != "seal"}
    text = json.dumps(content, sort_keys=True)
    return content | {"seal": hashlib.sha256(text.encode()).hexdigest()}


def _changed_setting(before: Mapping, now: Mapping) -> tuple[str, Any, Any] | None:
    """Returns (name, old, new) of the first value that differs, in the order of the names."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, "unset"), now.get(name, "unset")
        if old != new:
            return name, old, new
    return None


def _changed_origin(before: Mapping, now: Mapping) -> tuple[str, str, str] | None:
    """Returns (field, old, new) of the first entry that differs in a fingerprint of today."""
    for field, entries in now.items():
        for entry, new in entries.items():
            old = before.get(field, {}).get(entry)
            if old != new:
                return field, *_shown(entry, old, new)
    return None


def _shown(entry: str, old: Any, new: Any) -> tuple[str, str]:
    """Returns two values of an entry in words; of lists, what the other does not have."""
    if isinstance(old, list) and isinstance(new, list) and set(old) != set(new):
        texts = [
            ", ".join(repr(item) for item in one if item not in other) or "fewer"
            for one, other in ((old, new), (new, old))
        ]
    else:
        texts = [f"{value[:12]}..." if _is_digest(value) else f"{value!r}" for value in (old, new)]
    return f"{entry} {texts[0]}", texts[1]


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64


def of_checkpoint(name: str) -> bool:
    """Returns whether a file of a stage, relative to its folder, belongs to a checkpoint."""
    return _first(name) == CHECKPOINTS


def _first(name: str) -> str:
    return name.partition("/")[0]


def old_format(root: Path) -> UserError:
    """The refusal of a run's folder that another version of the program made."""
    return UserError(
        f"--workdir {root} holds a run that another version of this program made, which cannot be "
        f"continued; give another --workdir, or delete that folder"
    )
