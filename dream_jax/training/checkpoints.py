"""Orbax checkpoints of a training state, and what happens when one cannot be read."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from dream_jax.errors import UserError
from dream_jax.training import hosts


class Checkpoints:
    """Keeps the last two states of a training run in a folder.

    A state is a pytree that holds everything a run needs to continue: step, parameters, batch
    statistics, optimiser state, average and random key. The position in the data follows from the
    step. Orbax writes to another name and renames, so a state is whole or not there.
    Of several processes, which hold the same state, process 0 writes it and each reads it.

    Args:
      folder: where the checkpoints lie; made if missing.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        # Every process has a manager as if it were alone.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=hosts.index(),
            active_processes={hosts.index()},
            barrier_sync_key_prefix=f"process {hosts.index()}",
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            create=False,
            read_only=not hosts.is_main(),
            multiprocessing_options=alone,
        )
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_handlers=ocp.StandardCheckpointHandler()
        )

    def save(self, step: int, state: Any) -> None:
        """Writes `state` (host arrays); returns when it is on disk."""
        if hosts.is_main() and step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state))
            self._manager.wait_until_finished()
        hosts.barrier("checkpoint")

    def restore(self, like: Any) -> Any | None:
        """The newest state, shaped as `like`, or None where nothing was saved.

        All processes call it, and get the same.

        Raises:
          UserError: the newest checkpoint cannot be read, or holds another model's arrays.
        """
        self._manager.reload()  # process 0 may have saved since
        step = hosts.from_main(self._manager.latest_step)
        if step is None:
            return None
        saved = self._saved_shapes(step)
        for name, shape in _shapes(like).items():
            if saved and saved.get(name) != shape:
                raise UserError(
                    f"checkpoint {self.folder / str(step)}: {name} has shape "
                    f"{saved.get(name, 'none (is missing)')}, "
                    f"the configuration's model has {shape}; use another folder, or delete "
                    f"{self.folder} to begin anew"
                )
        return self._restore(step, like)

    def _restore(self, step: int, like: Any) -> Any:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # Orbax, tensorstore and zarr raise many kinds
            reason = str(error).strip().split("\n")[0][:200]
            raise UserError(
                f"checkpoint {self.folder / str(step)}: cannot be read ({type(error).__name__}: "
                f"{reason}); delete this folder to continue from the checkpoint before it"
            ) from error

    def restore_network(self, like: dict) -> dict:
        """The network of the newest state, whatever else that holds: to start another training.

        Args:
          like: Flax variables {"params": ..., other collections}, of arrays or of their shapes.

        Raises:
          UserError: there is no checkpoint, it cannot be read, or holds another network.
        """
        step = self._manager.latest_step()
        if step is None:
            raise UserError(
                f"config.init_from: {self.folder} holds no checkpoint; allowed: a folder "
                f"classifier/<method>/checkpoints of a run"
            )
        place = f"config.init_from: checkpoint {self.folder / str(step)}"
        like = dict(like)
        wanted = {"params": {"network": like.pop("params")}, "model_state": like}
        saved = self._saved_shapes(step)
        if not saved:
            raise UserError(f"{place} cannot be read; give that of another run")
        for name, shape in _shapes(wanted).items():
            if saved.get(name) != shape:
                raise UserError(
                    f"{place}: {name} has shape {saved.get(name, 'none (is missing)')}, the "
                    f"configuration's model has {shape}; model.* and the classes must be the same"
                )
        whole = jax.tree.map(
            lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),
            self._manager.item_metadata(step).tree,
        )
        state = self._restore(step, whole)
        return {"params": state["params"]["network"], **state["model_state"]}

    def _saved_shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of a checkpoint's arrays; empty where it is damaged."""
        try:
            return _shapes(self._manager.item_metadata(step).tree)
        except Exception:  # as in restore, which then tells what is wrong
            return {}

    def close(self) -> None:
        self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """{"params.w": (3,)} of a pytree of arrays, or of their metadata."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = partial(jax.tree_util.keystr, simple=True, separator=".")
    return {name(path): tuple(leaf.shape) for path, leaf in leaves}


def digest(tree: Any) -> str:
    """Returns a SHA-256 digest of the names and the values of a pytree of host arrays."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()
