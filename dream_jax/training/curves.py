"""The curves of a training: its metrics, written as it goes, and resumed with its checkpoints.

    metrics.csv    step, epoch, learning rate, means of the loss and its terms, test accuracy
    speed.csv      step, seconds since 1970, images per second
    tensorboard/   all of it for TensorBoard
    wandb/         what Weights & Biases keeps here, where `config.wandb` names a project

A checkpoint holds all rows of metrics.csv up to its step. So a training that goes on from it has no
gaps and no repeats, and the file of a finished one can be made again. metrics.csv has the same
bytes however often the training was interrupted; the others hold times, and are in no record.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dream_jax.errors import UserError
from dream_jax.files import delete, write_whole
from dream_jax.programs import shared
from dream_jax.training import hosts
from dream_jax.training.devices import Checked, MappedFunction
from dream_jax.training.event_files import TENSORBOARD, WANDB, EventFile, Project, Viewer, now

METRICS, SPEED = "metrics.csv", "speed.csv"
MEASURED = (SPEED, TENSORBOARD, WANDB)  # what differs between any two runs
RATE, ACCURACY, IMAGES = "learning_rate", "test_accuracy", "images_per_second"
LOSS = "loss"  # the sum of the terms
COLUMNS = ("step", "epoch", RATE, ACCURACY, IMAGES)  # that are no metrics of steps
# (params, model_state, images) → logits, in evaluation mode.
Predict = Callable[[Any, Any, Float[Array, "n H W C"]], Float[Array, "n classes"]]


@shared
def _correct(predict: Predict) -> Checked:
    """Returns the program that tells of each image whether it is given to its class."""

    def correct(variables: tuple[Any, Any], batch: dict) -> Array:
        return jnp.argmax(predict(*variables, batch["images"]), -1) == batch["labels"]

    return Checked(correct)


class Accuracy:
    """The share of test images that a network in training gives to their class.

    Args:
      predict: the network's logits.
      images: the test images, anything that gives `images[slice]`.
      labels: their classes.
      batch_size: images at once over the devices of all processes.
      every: steps between two measurements; 0 for none.
    """

    def __init__(
        self,
        predict: Predict,
        images: Any,
        labels: Int[np.ndarray, " n"],
        batch_size: int,
        every: int,
    ):
        self.every = every
        self._correct = MappedFunction(_correct(predict), None, batch_size)
        self._test = {"images": images, "labels": labels}

    def __call__(self, params: Any, model_state: Any) -> float:
        """Measures a network, given on the host. All processes call it and get the same."""
        self._correct.give((params, model_state))
        return float(np.mean(self._correct(self._test)))


class Curves:
    """Writes the metrics of one training. Of several processes, process 0 does.

    Args:
      folder: for the files, which replace those of an earlier attempt; None to write nothing.
      learning_rate: step → learning rate, an Optax schedule.
      epoch: steps of an epoch, not always whole; None where there are no epochs.
      accuracy: on test images, or None.
      project: of Weights & Biases, or "".
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        learning_rate: Callable[[Any], Any] | None = None,
        epoch: float | None = None,
        accuracy: Accuracy | None = None,
        project: str = "",
    ):
        self.folder = folder if hosts.is_main() else None
        self.accuracy, self._epoch = accuracy, epoch
        self._schedule, self._project = learning_rate, project
        self._rates: Sequence[float] = ()
        self._steps = 0
        self._lines: list[str] = []  # of metrics.csv
        self._recent: dict[str, list[float]] = {}  # each step's metrics since the last row
        self._viewers: list[Viewer] = []
        self._images, self._clock = 0, _Clock()

    def kept(self) -> dict[str, Any]:
        """Returns what a checkpoint holds of the curves."""
        return {"lines": self._lines, "recent": self._recent}

    def restore(self, kept: Mapping[str, Any] | None) -> None:
        """Goes back to what a checkpoint holds; to nothing if None. Writes metrics.csv anew."""
        kept = kept or {"lines": [], "recent": {}}
        self._lines, self._recent = list(kept["lines"]), dict(kept["recent"])
        if self.folder is not None and self._lines:
            self._write(METRICS, self._lines)

    @contextmanager
    def writing(self, start: int, steps: int, images: int) -> Iterator[None]:
        """Opens the files for the steps from `start`, to which `restore` has gone back.

        Args:
          steps: of the whole training.
          images: that a step shows.
        """
        self._images, self._steps = images, steps
        if self._schedule is not None:
            self._rates = np.asarray(jax.vmap(self._schedule)(jnp.arange(steps))).tolist()
        try:
            if self.folder is not None:
                self._open(self.folder, start)
            yield
        finally:
            for viewer in self._viewers:
                viewer.close()

    def _open(self, folder: Path, start: int) -> None:
        self._write(METRICS, self._lines)
        measured = {step: line for step, line in _speeds(folder / SPEED) if step <= start}
        self._write(SPEED, [f"step,time,{IMAGES}", *measured.values()])
        self._viewers.append(EventFile(folder / TENSORBOARD))
        for row in _rows(self._lines):
            step, when = int(row.pop("step")), now()
            if step in measured:
                _, when, row[IMAGES] = map(float, measured[step].split(","))
            self._viewers[0].row(step, row, when)
        if self._project:
            self._viewers.append(Project(self._project, folder))

    def add(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Takes the metrics of steps since the last call: (steps,) each."""
        for name, values in metrics.items():
            self._recent.setdefault(name, []).extend(np.asarray(values, np.float64).tolist())

    def begin(self, step: int) -> None:
        """Starts the clock, unless it runs: the first steps wait for a compilation."""
        self._clock.begin(step)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Stops the clock for what is no training."""
        with self._clock.pause():
            yield

    def due(self, done: int, length: int) -> bool:
        """Returns whether a call of `length` steps reaches the next measurement of the accuracy."""
        every = self.accuracy.every if self.accuracy else 0
        return every > 0 and (done % every < length or done == self._steps)

    def row(self, step: int, accuracy: float | None = None) -> None:
        """Writes the means of the steps since the last row, and the test accuracy if measured."""
        values: dict[str, float | None] = {}
        if self._epoch is not None:
            values["epoch"] = step / self._epoch
        if self._schedule is not None:
            values[RATE] = self._rates[step - 1]
        for name in sorted(self._recent, key=lambda name: (name != LOSS, name)):
            values[name] = float(np.mean(np.asarray(self._recent[name], np.float32)))
        if self.accuracy is not None:
            values[ACCURACY] = accuracy
        self._recent = {}
        lines = [",".join(["step", *values])] if not self._lines else []
        numbers = ["" if value is None else f"{value:.9g}" for value in values.values()]
        lines.append(",".join([str(step), *numbers]))
        self._lines += lines
        if self.folder is None:
            return
        speed, when = self._clock.lap(step) * self._images, now()
        self._append(METRICS, lines)
        self._append(SPEED, [f"{step},{when:.3f},{speed:.1f}"])
        shown = {name: value for name, value in values.items() if value is not None}
        for viewer in self._viewers:
            viewer.row(step, shown | {IMAGES: speed}, when)

    def _write(self, name: str, lines: Sequence[str]) -> None:
        assert self.folder is not None
        text = "".join(f"{line}\n" for line in lines)
        if (self.folder / name).is_dir():
            delete(self.folder / name)
        write_whole(self.folder / name, lambda partial: partial.write_text(text, encoding="ascii"))

    def _append(self, name: str, lines: Sequence[str]) -> None:
        assert self.folder is not None
        with (self.folder / name).open("a", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in lines)


class _Clock:
    """The speed of the steps, without the time in which it was stopped."""

    def __init__(self) -> None:
        self._begun: tuple[float, int] | None = None  # when the lap began, and at which step

    def begin(self, step: int) -> None:
        if self._begun is None:
            self._begun = time.perf_counter(), step

    @contextmanager
    def pause(self) -> Iterator[None]:
        stopped = time.perf_counter()
        yield
        if self._begun is not None:
            begun, step = self._begun
            self._begun = begun + time.perf_counter() - stopped, step

    def lap(self, step: int) -> float:
        """Returns the steps per second since the last lap, and begins another."""
        moment = time.perf_counter()
        begun, first = self._begun or (moment, step)
        self._begun = moment, step
        return (step - first) / max(moment - begun, 1e-9)


def _rows(lines: Sequence[str]) -> list[dict[str, float]]:
    """Returns the rows of a table in CSV, without cells that are empty."""
    names = lines[0].split(",") if lines else []
    cells = [zip(names, line.split(","), strict=True) for line in lines[1:]]
    return [{name: float(text) for name, text in row if text} for row in cells]


def _speeds(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the steps and the whole lines of a file that may have been cut short, or not be."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="ascii", errors="replace").splitlines()[1:]:
        try:
            step, _, _ = map(float, line.split(","))
        except ValueError:
            continue
        yield int(step), line


def read_curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Returns the curves of a training: metric → (steps, values), in the order of the columns.

    Args:
      folder: of the stage.

    Returns:
      {} where the training left none: an earlier version of the program made it.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / METRICS
    try:
        lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
        rows = _rows(lines)
    except ValueError as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete it to make it again from the checkpoint"
        ) from error
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        step = int(row.pop("step"))
        for name, value in row.items():
            steps, values = curves.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)
    return curves
