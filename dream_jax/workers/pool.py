"""Starts workers, gives them the stages of runs in order, and ends when they are done."""

import codecs
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from dream_jax import ending
from dream_jax.workers.parts import Part, split
from dream_jax.workers.screen import Lines, Screen
from dream_jax.workers.tasks import Board, Task
from dream_jax.workers.worker import VARIABLE

# Steps that one process makes with all devices: each stage needs the result of the one before.
TOGETHER = ("learn", "sample", "decode")
PATIENCE = 20  # seconds for workers to end in; from a signal on, this process has 25


def make_tasks(
    tasks: Sequence[Task],
    count: int,
    about: Any = None,
    same: Callable[[Task], str] | None = None,
    take: Callable[[Task], bool] = lambda task: False,
    made: Callable[[Task], None] = lambda task: None,
) -> dict[Path, str]:
    """Makes stages that are not done, those of classifiers by several workers.

    Each worker is this program with the same flags, on its share of this machine's devices. What
    the first run needs before its classifiers is made by one worker on all devices. If a worker
    ends by a signal or a fault, the others are ended as by a signal, and this process ends as that
    one did.

    Args:
      tasks, same, take: see `Board`.
      count: how many workers there are.
      about: the first thing that they are told, see `worker.serve`.
      made: called with each task that a worker has done.

    Returns:
      What has failed, see `Board.failed`. Where no run without a fault is left, workers that are
      still at others are ended.
    """
    first = tasks[0].run if tasks else None
    together = [t for t in tasks if t.run is first and t.run.stages[t.stage].step in TOGETHER]
    apart = [task for task in tasks if task not in together]
    board: Board | None = None
    for parts, own in (([Part()], together), (split(count), apart)):
        board = Board(own, same, take, board)
        if own and not board.hopeless:
            pool = _Pool(parts[: len(own)], board, about)
            try:
                pool.work(made)
            finally:
                pool.end()
    assert board is not None
    return board.failed


class _Event(NamedTuple):
    """Something that came out of a worker; empty bytes at the end of the stream."""

    worker: "_Worker"
    stream: str
    data: bytes


class _Worker:
    """A process, its task, and what it has said of it."""

    def __init__(self, number: int, part: Part, events: "queue.Queue[_Event]"):
        self.number, self.said, self.ended = number, "", False
        self.task: Task | None = None
        self.lines = Lines()
        self.decoders = {
            stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in ("told", "shown")
        }
        self.told = ""  # the beginning of a line
        reading, writing = os.pipe()
        about = json.dumps({"answers": writing, "cores": part.cores})
        # In a session of its own: ctrl-C reaches this process alone, which passes it on once.
        self.process = subprocess.Popen(
            [sys.executable, *sys.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | part.variables | {VARIABLE: about},
            pass_fds=(writing,),
            start_new_session=True,
        )
        os.close(writing)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._input = self.process.stdin
        for stream, pipe in (("told", os.fdopen(reading, "rb", 0)), ("shown", self.process.stdout)):
            threading.Thread(target=self._read, args=(stream, pipe, events), daemon=True).start()

    def _read(self, stream: str, pipe: IO[bytes], events: "queue.Queue[_Event]") -> None:
        with pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
                events.put(_Event(self, stream, data))
        events.put(_Event(self, stream, b""))

    def tell(self, **message: object) -> None:
        """Sends a message; that the worker has died is noticed elsewhere."""
        with suppress(BrokenPipeError):
            self._input.write(json.dumps(message).encode() + b"\n")
            self._input.flush()

    def dismiss(self) -> None:
        """Closes its input, so that it ends if it is idle."""
        with suppress(BrokenPipeError):
            self._input.close()


class _Pool:
    """Workers for the tasks on a board."""

    def __init__(self, parts: Sequence[Part], board: Board, about: Any):
        self._board = board
        self._events: queue.Queue[_Event] = queue.Queue()
        self._screen = Screen(len(parts), board.left)
        self._workers: list[_Worker] = []
        for number, part in enumerate(parts):
            self._workers.append(_Worker(number, part, self._events))
            self._workers[-1].tell(about=about)

    def work(self, made: Callable[[Task], None]) -> None:
        """Works until no task is left, or none that can be done."""
        while not self._board.hopeless:
            idle = [worker for worker in self._workers if worker.task is None]
            while idle and (task := self._board.next()) is not None:
                self._give(idle.pop(0), task)
            self._screen.left(self._board.left)
            if len(idle) < len(self._workers):
                self._handle(self._events.get(), made)
            else:
                assert not self._board.left, "no task can be begun, and none is under way"
        self._screen.left(self._board.left)

    def _give(self, worker: _Worker, task: Task) -> None:
        worker.task, worker.said = task, ""
        self._screen.show(worker.number, str(task))
        worker.tell(run=str(task.run.workdir), stage=task.stage)

    def end(self) -> None:
        """Ends all workers: idle ones by their own, the others as a signal does."""
        for worker in self._workers:
            if worker.task is None:
                worker.dismiss()
            elif not worker.ended:
                # Its input stays open until it has ended.
                worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.dismiss()
        self._screen.close()

    def _handle(self, event: _Event, made: Callable[[Task], None]) -> None:
        worker = event.worker
        text = worker.decoders[event.stream].decode(event.data, final=not event.data)
        if event.stream == "shown":
            lines, bar = worker.lines.add(text if event.data else "\n")
            for line in lines:
                self._screen.warn(line)
            if bar and worker.task is not None:
                self._screen.show(worker.number, f"{worker.task}: {bar}")
            return
        *lines, worker.told = (worker.told + text).split("\n")
        for line in lines:
            self._take(worker, json.loads(line), made)
        if not event.data:
            self._end_by_death(worker)

    def _take(self, worker: _Worker, message: dict, made: Callable[[Task], None]) -> None:
        if "said" in message:
            worker.said += message["said"]
        elif "end" in message:
            self._end_with(worker, message["end"], message["status"])
        elif worker.task is not None:
            self._print(worker)
            self._screen.show(worker.number, "")
            task, worker.task = worker.task, None
            if "failed" in message:
                self._board.fail(task, message["failed"])
            else:
                self._board.end(task)
                made(task)

    def _print(self, worker: _Worker) -> None:
        """Prints what a worker has said of its stage."""
        title = worker.task.title if worker.task is not None else ""
        if said := worker.said.rstrip("\n"):
            self._screen.print(f"{title}\n{said}" if title else said)

    def _end_with(self, worker: _Worker, text: str, status: int) -> NoReturn:
        worker.ended = True
        self._print(worker)
        self.end()
        ending.end(text, status)
        raise AssertionError("the process has ended")

    def _end_by_death(self, worker: _Worker) -> NoReturn:
        """Ends because a worker has, without a word: killed, or ended by the system."""
        status = worker.process.wait()
        cause = signal.Signals(-status).name if status < 0 else f"status {status}"
        where = f" at stage {worker.task.stage!r}" if worker.task is not None else ""
        self._end_with(
            worker,
            f"error: a worker ended by {cause}{where}; what is done is kept, and the same command "
            f"continues; fewer --workers take less memory",
            2,
        )
