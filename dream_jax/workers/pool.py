"""Starts workers, gives them the stages of a run in order, and ends when they are done."""

import codecs
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from dream_jax import ending
from dream_jax.run import Run
from dream_jax.workers.parts import Part, next_stage, split
from dream_jax.workers.screen import Lines, Screen
from dream_jax.workers.worker import VARIABLE

# Steps that one process makes with all devices: each stage needs the result of the one before.
TOGETHER = ("learn", "sample", "decode")
PATIENCE = 20  # seconds for workers to end in; from a signal on, this process has 25


def make_stages(run: Run, names: Sequence[str], count: int) -> None:
    """Makes the stages that are not done, those of classifiers by several workers.

    Each worker is this program with the same flags, on its share of this machine's devices. If one
    ends by an error, the others are ended as by a signal, and this process ends as that one did.

    Args:
      names: of the stages, in order.
      count: how many workers there are.
    """
    todo = [name for name in names if not run.done(name)]
    together = [name for name in todo if run.stages[name].step in TOGETHER]
    apart = [name for name in todo if name not in together]
    for parts, own in (([Part()], together), (split(count), apart)):
        if own:
            pool = _Pool(run, parts[: len(own)], len(own))
            try:
                pool.make(own)
            finally:
                pool.end()


class _Event(NamedTuple):
    """Something that came out of a worker; empty bytes at the end of the stream."""

    worker: "_Worker"
    stream: str
    data: bytes


class _Worker:
    """A process, its stage, and what it has said of it."""

    def __init__(self, number: int, part: Part, events: "queue.Queue[_Event]"):
        self.number, self.stage, self.said, self.ended = number, "", "", False
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
        for stream, pipe in (("told", reading), ("shown", self.process.stdout.fileno())):
            threading.Thread(target=self._read, args=(stream, pipe, events), daemon=True).start()

    def _read(self, stream: str, pipe: int, events: "queue.Queue[_Event]") -> None:
        while data := os.read(pipe, 1 << 16):
            events.put(_Event(self, stream, data))
        events.put(_Event(self, stream, b""))

    def tell(self, **message: object) -> None:
        """Sends a message; that the worker has died is noticed elsewhere."""
        with suppress(BrokenPipeError):
            self._input.write(json.dumps(message).encode() + b"\n")
            self._input.flush()

    def dismiss(self) -> None:
        """Lets an idle worker end."""
        with suppress(BrokenPipeError):
            self._input.close()


class _Pool:
    """Workers for some stages of a run."""

    def __init__(self, run: Run, parts: Sequence[Part], stages: int):
        self._run = run
        self._events: queue.Queue[_Event] = queue.Queue()
        self._screen = Screen(len(parts), stages)
        self._workers: list[_Worker] = []
        for number, part in enumerate(parts):
            self._workers.append(_Worker(number, part, self._events))
            self._workers[-1].tell(rows=[row.key for row in run.rows])

    def make(self, names: Sequence[str]) -> None:
        """Makes some stages, each when its inputs are made."""
        waiting = list(names)
        inputs = {name: self._run.stages[name].inputs for name in names}
        while waiting or self._running():
            for worker in self._workers:
                name = next_stage(waiting, self._running(), inputs)
                if name is None:
                    break
                if not worker.stage:
                    waiting.remove(name)
                    worker.stage, worker.said = name, ""
                    self._screen.show(worker.number, name)
                    worker.tell(stage=name)
            self._handle(self._events.get())

    def end(self) -> None:
        """Ends all workers: idle ones by their own, the others as a signal does."""
        for worker in self._workers:
            worker.dismiss()
            if worker.stage and not worker.ended:
                worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._screen.close()

    def _running(self) -> list[str]:
        return [worker.stage for worker in self._workers if worker.stage]

    def _handle(self, event: _Event) -> None:
        worker = event.worker
        text = worker.decoders[event.stream].decode(event.data, final=not event.data)
        if event.stream == "shown":
            lines, bar = worker.lines.add(text if event.data else "\n")
            for line in lines:
                self._screen.warn(line)
            if bar and worker.stage:
                self._screen.show(worker.number, f"{worker.stage}: {bar}")
            return
        *lines, worker.told = (worker.told + text).split("\n")
        for line in lines:
            self._take(worker, json.loads(line))
        if not event.data:
            self._end_by_death(worker)

    def _take(self, worker: _Worker, message: dict) -> None:
        if "said" in message:
            worker.said += message["said"]
        elif "done" in message:
            worker.stage = ""
            self._screen.print(worker.said.rstrip("\n"))
            self._screen.show(worker.number, "")
            self._screen.count()
        else:
            self._end_with(worker, message["end"], message["status"])

    def _end_with(self, worker: _Worker, text: str, status: int) -> NoReturn:
        worker.ended = True
        if said := worker.said.rstrip("\n"):
            self._screen.print(said)
        self.end()
        ending.end(text, status)
        raise AssertionError("the process has ended")

    def _end_by_death(self, worker: _Worker) -> NoReturn:
        """Ends because a worker has, without a word: killed, or ended by the system."""
        status = worker.process.wait()
        cause = signal.Signals(-status).name if status < 0 else f"status {status}"
        self._end_with(
            worker,
            f"error: a worker ended by {cause} at stage {worker.stage!r}; what is done is kept, "
            f"and the same command continues; fewer --workers take less memory",
            2,
        )
