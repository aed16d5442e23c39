"""Where the metrics of a training go to be looked at: TensorBoard's files, Weights & Biases."""

import importlib.util
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dream_jax.errors import UserError
from dream_jax.files import delete

TENSORBOARD, WANDB = "tensorboard", "wandb"  # folders in a stage's folder
INSTALL = "pip install wandb"
FLUSH = 10.0  # seconds after which rows are on the disk
FORMAT = "brain.Event:2"  # of TensorBoard's files


class Viewer(Protocol):
    """What is given the rows of a training one after the other."""

    def row(self, step: int, values: Mapping[str, float], when: float) -> None:
        """Takes the metrics of a step, which were measured at `when`, in seconds since 1970."""
        ...

    def close(self) -> None: ...


class EventFile:
    """Writes a new file of TensorBoard events into a folder, in place of those that it has.

    It is written by the calls themselves: tensorboardX's own `SummaryWriter` writes in a thread,
    and waits forever once that has met a full disk.
    """

    def __init__(self, folder: Path):
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import RecordWriter

        delete(folder)
        folder.mkdir(parents=True)
        self._flushed = begun = now()
        name = f"events.out.tfevents.{int(begun)}.{socket.gethostname()}"
        self._writer = RecordWriter(str(folder / name))
        self._writer.write(Event(wall_time=begun, file_version=FORMAT).SerializeToString())

    def row(self, step: int, values: Mapping[str, float], when: float) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        event = Event(wall_time=when, step=step, summary=Summary(value=scalars))
        self._writer.write(event.SerializeToString())
        if now() - self._flushed > FLUSH:  # it waits for the disk
            self._writer.flush()
            self._flushed = now()

    def close(self) -> None:
        self._writer.close()


class Project:
    """Sends rows to a project of Weights & Biases, as one run however often it is resumed.

    Args:
      project: its name.
      folder: of the stage, whose path names the run; keeps what is not sent yet.

    Raises:
      UserError: Weights & Biases does not take the run, in one line.
    """

    def __init__(self, project: str, folder: Path):
        import wandb

        place = folder / WANDB / "run"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.write_text(secrets.token_hex(8), encoding="ascii")
        try:
            self._run = wandb.init(
                project=project,
                dir=folder,
                id=place.read_text(encoding="ascii"),
                name="/".join(folder.resolve().parts[-3:]),
                resume="allow",
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"config.wandb is {project!r}; Weights & Biases does not take the run ({reason}): "
                f"log in, set WANDB_MODE=offline, or leave it empty"
            ) from error

    def row(self, step: int, values: Mapping[str, float], when: float) -> None:
        # What was sent before an interruption and comes again is left out there.
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def check_project(project: str) -> None:
    """Raises UserError if `config.wandb` asks for a package that is not installed."""
    if project and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"config.wandb is {project!r}, but the package wandb is not installed; install it "
            f"({INSTALL}), or leave config.wandb empty"
        )


def now() -> float:
    """Returns the seconds since 1970."""
    return time.time()
