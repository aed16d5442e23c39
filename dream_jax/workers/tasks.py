"""The stages that workers make: which can be begun, and what follows where one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dream_jax.run import Run


class Task(NamedTuple):
    """A stage of a run.

    Attributes:
      title: what messages call the run; empty where there is one alone.
    """

    run: Run
    stage: str
    title: str = ""

    def __str__(self) -> str:
        return f"{self.title}, {self.stage}" if self.title else self.stage

    @property
    def folder(self) -> Path:
        """The stage's folder, by which it is the same task for several runs that share it."""
        return self.run.folder(self.stage)

    @property
    def inputs(self) -> set[Path]:
        """The folders of the stages whose results it uses."""
        return {self.run.folder(name) for name in self.run.stages[self.stage].inputs}


class Board:
    """Tasks that wait, are under way, or are over.

    Args:
      tasks: in order, each folder once.
      same: a name that tasks with the same result share; one of them is done before the others.
      take: tries to take a result over from where it is; returns whether the task is done now.
      before: the board of tasks that are over already, some perhaps by a failure.

    Attributes:
      failed: the folders of runs with a stage that could not be made, with the line that says why.
        No more tasks of such a run are begun, nor any that uses that stage.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        same: Callable[[Task], str] | None = None,
        take: Callable[[Task], bool] = lambda task: False,
        before: Board | None = None,
    ):
        self.failed: dict[Path, str] = before.failed if before is not None else {}
        self._lost: dict[Path, str] = before._lost if before is not None else {}  # of stages
        self._take = take
        self._waiting = {task.folder: task for task in tasks}
        self._open = dict(self._waiting)  # these, and those under way
        self._after = {folder: task.inputs for folder, task in self._waiting.items()}
        first: dict[str, Path] = {}
        if same is not None:
            for folder, task in self._waiting.items():
                self._after[folder] |= {first.setdefault(same(task), folder)} - {folder}

    @property
    def left(self) -> int:
        """How many tasks are not over."""
        return len(self._open)

    @property
    def hopeless(self) -> bool:
        """Whether nothing is left but tasks of runs that have failed."""
        return all(task.run.workdir in self.failed for task in self._open.values())

    def next(self) -> Task | None:
        """Returns a task to be done now; None if there is none, as long as others are under way."""
        while True:
            ready = (f for f in self._waiting if self._after[f].isdisjoint(self._open))
            if (folder := next(ready, None)) is None:
                return None
            task = self._waiting.pop(folder)
            lost = [self._lost[folder] for folder in task.inputs if folder in self._lost]
            if task.run.workdir in self.failed or lost:
                self.fail(task, self.failed.get(task.run.workdir) or lost[0])
            elif self._take(task):
                self.end(task)
            else:
                return task

    def end(self, task: Task) -> None:
        """Notes that a task is done."""
        del self._open[task.folder]

    def fail(self, task: Task, line: str) -> None:
        """Notes that a task could not be done."""
        self.end(task)
        self._lost[task.folder] = line
        self.failed.setdefault(task.run.workdir, line)
