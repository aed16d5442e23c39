"""Stages: what each declares, and the record that says what it was made with."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_jax.errors import UserError
from dream_jax.files import checksum, checksums, read_json, write_json
from dream_jax.training import hosts
from dream_jax.training.devices import peak_memory_mb

if TYPE_CHECKING:
    from dream_jax.run import Run, Work

RECORD = "stage.json"
FORMAT = 2  # of a run's folder; 1, which did not name itself, kept settings by prefix


@dataclass(frozen=True)
class Stage:
    """A part of a run that is done or not, with a folder and a record of its own.

    Attributes:
      name: as users see it, such as "learn" or "train vos, seed 1".
      step: the step of the method that it belongs to, by which `--stages` chooses it.
      folder: relative to the run's.
      reads: the fields of the configuration that `make` and `check` read, or whole sections.
      make: makes the result in the folder; if interrupted and called again, it continues.
      inputs: names of the stages whose results it uses.
      parameters: what else the result depends on, such as the seed and the options of a training.
      check: raises UserError if `make` cannot succeed; called before any stage does any work.
      derived: whether the result is quickly made from other results: it is made again where
        settings or inputs have changed, while another stage is refused.
      current: whether the result is still what `make` would give, as far as settings do not tell.
      products: files outside the folder that it makes, relative to the run's folder.
      open: gives the result to other stages as an object, where files do not do.
    """

    name: str
    step: str
    folder: str
    reads: tuple[str, ...]
    make: Callable[[Work], None]
    inputs: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Work], None] = lambda work: None
    derived: bool = False
    current: Callable[[Work], bool] = lambda work: True
    products: tuple[str, ...] = ()
    open: Callable[[Run], Any] | None = None


class Record:
    """The file `stage.json` of a stage: what its result was made with, and of which files it is.

    It holds `settings` (the declared fields that results depend on, and the parameters), `inputs`
    (for every stage upstream its settings and a digest of its files), `files` with sizes and
    checksums, `done`, `seconds` and `peak_memory_mb`. Of several processes, process 0 writes it.

    Args:
      stage: the declaration.
      root: the run's folder.
      settings: the values of the fields and parameters today.
      upstream: the records of all stages that this one depends on, direct or not, by name.
    """

    def __init__(
        self, stage: Stage, root: Path, settings: Mapping[str, Any], upstream: dict[str, Record]
    ):
        self.stage, self.root = stage, root
        self.folder = root / stage.folder
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # tuples become lists
        self.upstream = upstream
        self._path = self.folder / RECORD

    @property
    def exists(self) -> bool:
        return self._path.exists()

    def read(self) -> dict[str, Any]:
        """Reads the record.

        Raises:
          UserError: it is damaged, or an earlier version of the program wrote it.
        """
        record = read_json(self._path)
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise old_format(self.root)
        return record

    def difference(self) -> str:
        """Describes the first setting, of this stage or upstream, that has changed; "" if none."""
        if not self.exists:
            return ""
        made = self.read()
        sources = [("with", made["settings"], self.settings)]
        for name, record in self.upstream.items():
            before = made["inputs"].get(name, {}).get("settings", {})
            sources.append((f"from stage {name} with", before, record.settings))
        for how, before, now in sources:
            for name in sorted(before.keys() | now.keys()):
                old, new = before.get(name, "unset"), now.get(name, "unset")
                if old != new:
                    return f"was made {how} {name}={old!r}, the configuration has {new!r}"
        return ""

    def refuse_changes(self) -> None:
        """Raises UserError if the stage was begun with other settings; names the first."""
        if not self.stage.derived and (difference := self.difference()):
            raise UserError(
                f"{self.folder}: stage {self.stage.name} {difference}; use --overwrite to redo it, "
                f"or another --workdir"
            )

    @property
    def outdated(self) -> bool:
        """Whether this is a derived stage whose settings, inputs or files are not as recorded."""
        if not (self.stage.derived and self.exists):
            return False
        record = self.read()
        digests = {name: made["digest"] for name, made in record["inputs"].items()}
        return (
            bool(self.difference())
            or digests != {name: upstream.digest for name, upstream in self.upstream.items()}
            or not all((self.folder / name).exists() for name in record["files"])
        )

    @property
    def done(self) -> bool:
        return self.exists and self.read()["done"] and not self.outdated

    @property
    def digest(self) -> str:
        """The digest of the stage's files; empty while it is not done."""
        return self.read().get("digest", "") if self.exists else ""

    def clear(self) -> None:
        """Deletes the stage's folder, but for stages that lie in it, and its other products."""
        for product in self.stage.products:
            (self.root / product).unlink(missing_ok=True)
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if not path.is_dir():
                path.unlink()
            elif not (path / RECORD).exists():
                shutil.rmtree(path)

    def _write(self, done: bool, seconds: float, **more: Any) -> None:
        if hosts.is_main():
            inputs = {
                name: {"settings": record.settings, "digest": record.digest}
                for name, record in self.upstream.items()
            }
            content = {
                "format": FORMAT,
                "stage": self.stage.name,
                "done": done,
                "seconds": round(seconds, 2),
                "settings": self.settings,
                "inputs": inputs,
            }
            write_json(self._path, content | more)

    def _files(self) -> dict[str, dict[str, Any]]:
        found = checksums(self.folder, RECORD)
        up = "../" * len(Path(self.stage.folder).parts)
        return found | {up + name: checksum(self.root / name) for name in self.stage.products}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Records the settings when the stage begins, and when it ends that it is done.

        All processes enter and leave together.
        """
        name = self.stage.name
        spent = self.read()["seconds"] if self.exists and not self.done else 0.0
        begin = time.perf_counter()
        hosts.barrier(f"begin {name}")
        self._write(False, spent)
        print(f"── {name}", flush=True)
        try:
            yield
        except BaseException:
            self._write(False, spent + time.perf_counter() - begin)
            raise
        hosts.barrier(f"end {name}")
        seconds = spent + time.perf_counter() - begin
        files = self._files() if hosts.is_main() else {}
        digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
        memory = round(peak_memory_mb())
        self._write(True, seconds, peak_memory_mb=memory, files=files, digest=digest)
        print(f"   done in {seconds:.0f} s", flush=True)
        hosts.barrier(f"recorded {name}")


def old_format(root: Path) -> UserError:
    """The refusal of a run's folder that another version of the program made."""
    return UserError(
        f"--workdir {root} holds a run that another version of this program made, which cannot be "
        f"continued; give another --workdir, or delete that folder"
    )
