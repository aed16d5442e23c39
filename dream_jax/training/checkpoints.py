"""Checkpoints of a training state, each whole, damaged and found to be so, or not there."""

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from dream_jax.errors import UserError
from dream_jax.files import checksum, checksums, read_json, write_json
from dream_jax.training import hosts
from dream_jax.training.finite import is_finite

REMOVALS, REMOVAL_SECONDS = 30, 0.1
SAVING = ".saving-"  # begins the name of a checkpoint that is being written
CHECKSUMS = "checksums.json"  # of a checkpoint's files: what Orbax reads of a flipped bit is wrong
ITEM = "default"  # what Orbax writes of a checkpoint
CURVES = "curves.json"  # the rows of metrics.csv up to the checkpoint


class Checkpoints:
    """Keeps the last two states of a training run in a folder.

    A state is a pytree that holds everything a run needs to continue: step, parameters, batch
    statistics, optimiser state, average and random key. The position in the data follows from the
    step. A state is written to another name, with checksums of its files, and renamed, so it is
    whole or not there. One that was damaged later is passed over, and stays until a newer one is
    written. Of several processes, which hold the same state, process 0 writes it and each reads it.

    Args:
      folder: where the checkpoints lie; made when the first is saved.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).resolve()
        self._whole: int | None = None  # the newest step that is known to be whole
        # Every process reads and writes as if it were alone.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=hosts.index(),
            active_processes={hosts.index()},
            barrier_sync_key_prefix=f"process {hosts.index()}",
        )
        self._orbax = ocp.Checkpointer(
            ocp.StandardCheckpointHandler(multiprocessing_options=alone),
            multiprocessing_options=alone,
        )

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints, whole or damaged, oldest first."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(int(path.name) for path in paths if path.name.isdecimal())

    def damage(self, step: int) -> str:
        """Returns what is wrong with the files of a checkpoint; "" if it is whole."""
        folder = self.folder / str(step)
        try:
            written = read_json(folder / CHECKSUMS)
            for name, expected in written.items():
                path = folder / name
                if not path.is_file():
                    return f"{name} is missing"
                if checksum(path) != expected:
                    return f"{name} is not as it was written"
        except (UserError, AttributeError):  # no JSON, or no mapping
            return f"{CHECKSUMS} is missing or damaged"
        return "" if written else f"{CHECKSUMS} is empty"

    def save(self, step: int, state: Any, curves: dict[str, Any] | None = None) -> None:
        """Writes `state` (host arrays); returns when it is on disk.

        Args:
          curves: what `curves` gives back after `restore`, in JSON.

        Raises:
          UserError: an array of the state is not finite; nothing is written.
        """
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            if not is_finite(leaf):
                raise UserError(
                    f"{self.folder}: {_name(path)} is not finite (NaN or infinity) at step {step}; "
                    f"lower the learning rate ({_listed(self.steps())} kept)"
                )
        if hosts.is_main() and step != self._whole:
            self._write(step, state, curves or {})
        self._whole = step
        hosts.barrier("checkpoint")

    def _write(self, step: int, state: Any, curves: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        made, path = self.folder / f"{SAVING}{step}", self.folder / str(step)
        shutil.rmtree(made, ignore_errors=True)
        try:
            self._orbax.save(made / ITEM, args=ocp.args.StandardSave(state))
            if curves:
                write_json(made / CURVES, curves)
            write_json(made / CHECKSUMS, checksums(made, CHECKSUMS))
            _flush(made)
        except BaseException:  # such as a full disk, which the unfinished files would keep full
            _remove(made)
            raise
        if path.exists():  # damaged
            shutil.rmtree(path)
        os.rename(made, path)
        _flush(self.folder, below=False)
        for other in self.folder.iterdir():
            if other.name.startswith(SAVING) or (
                other.name.isdecimal() and int(other.name) not in (step, self._whole)
            ):
                shutil.rmtree(other)

    def restore(self, like: Any) -> Any | None:
        """The newest whole state, shaped as `like`, or None where nothing was saved.

        All processes call it, and get the same. What is damaged is named in a line.

        Raises:
          UserError: all checkpoints are damaged, or the newest whole one holds another model's
            arrays.
        """
        step = self._newest(f"delete {self.folder} to begin anew")
        if step is None:
            return None
        place = f"checkpoint {self.folder / str(step)}"
        advice = f"use another folder, or delete {self.folder} to begin anew"
        self._check_shapes(step, like, place, advice)
        return self._read(step, like, place)

    def curves(self) -> dict[str, Any] | None:
        """Returns the curves of the state that was restored or saved last; None if it has none."""
        path = self.folder / str(self._whole) / CURVES
        return read_json(path) if path.is_file() else None

    def restore_network(self, like: dict) -> dict:
        """The network of the newest whole state, whatever else that holds: to start another.

        Args:
          like: Flax variables {"params": ..., other collections}, of arrays or of their shapes.

        Raises:
          UserError: there is no whole checkpoint, or it holds another network.
        """
        allowed = "allowed: a folder classifier/<method>/checkpoints of a run"
        step = self._newest(f"as config.init_from, it is of no use; {allowed}")
        if step is None:
            raise UserError(f"config.init_from: {self.folder} holds no checkpoint; {allowed}")
        place = f"config.init_from: checkpoint {self.folder / str(step)}"
        like = dict(like)
        wanted = {"params": {"network": like.pop("params")}, "model_state": like}
        advice = "model.* and the classes must be the same"
        self._check_shapes(step, wanted, place, advice)
        whole = jax.tree.map(
            lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), self._saved(step)
        )
        state = self._read(step, whole, place)
        return {"params": state["params"]["network"], **state["model_state"]}

    def _newest(self, advice: str) -> int | None:
        """Returns the newest step that is whole; names those after it. None if there is none."""

        def look() -> list:
            damaged: dict[str, str] = {}
            for step in reversed(self.steps()):
                if not (damage := self.damage(step)):
                    return [step, damaged]
                damaged[str(step)] = damage
            return [None, damaged]

        self._whole, damaged = hosts.from_main(look)
        faults = [f"checkpoint {self.folder / step}: {fault}" for step, fault in damaged.items()]
        if faults and self._whole is None:
            raise UserError(f"{'; '.join(faults)}; {advice}")
        for fault in faults:
            print(f"{fault}; the one of step {self._whole} is used", flush=True)
        return self._whole

    def _check_shapes(self, step: int, like: Any, place: str, advice: str) -> None:
        saved = _shapes(self._saved(step))
        for name, shape in _shapes(like).items():
            if saved.get(name) != shape:
                raise UserError(
                    f"{place}: {name} has shape {saved.get(name, 'none (is missing)')}, the "
                    f"configuration's model has {shape}; {advice}"
                )

    def _saved(self, step: int) -> Any:
        """Returns shapes and types of a whole checkpoint's arrays."""
        return self._orbax.metadata(self.folder / str(step) / ITEM).item_metadata.tree

    def _read(self, step: int, like: Any, place: str) -> Any:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        path = self.folder / str(step) / ITEM
        try:
            return self._orbax.restore(path, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # Orbax, tensorstore and zarr raise many kinds
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{place}: cannot be read ({type(error).__name__}: {reason}), though its files are "
                f"as they were written; delete it to continue from the one before it"
            ) from error

    def close(self) -> None:
        self._orbax.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _remove(folder: Path) -> None:
    """Deletes what a failed save has left, while threads of tensorstore may still write there."""
    for _ in range(REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(REMOVAL_SECONDS)
        if not folder.exists():
            return


def _flush(folder: Path, below: bool = True) -> None:
    """Sees to it that a folder, and all files below it, are on the disk."""
    paths = [folder, *(folder.rglob("*") if below else ())]
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _listed(steps: list[int]) -> str:
    return f"checkpoints of steps {', '.join(map(str, steps))} are" if steps else "none was"


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """{"params.w": (3,)} of a pytree of arrays, or of their metadata."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): tuple(leaf.shape) for path, leaf in leaves}


def digest(tree: Any) -> str:
    """Returns a SHA-256 digest of the names and the values of a pytree of host arrays."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()
