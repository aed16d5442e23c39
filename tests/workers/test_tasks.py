"""The order of the tasks of workers, on random graphs, and what follows a failure."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dream_jax.run import Run
from dream_jax.workers.tasks import Board, Task


def a_run(name: str, inputs: dict[str, tuple[str, ...]], shared: Path | None = None) -> Run:
    """What tasks use of a run: its stages with their inputs, and where they lie."""
    stages = {stage: SimpleNamespace(inputs=given) for stage, given in inputs.items()}
    folder = Path(name)
    place = lambda stage: (shared or folder) / stage if stage == "plain" else folder / stage  # noqa: E731
    return cast(Any, SimpleNamespace(stages=stages, workdir=folder, folder=place))


def tasks_of(run: Run) -> list[Task]:
    return [Task(run, stage) for stage in run.stages]


def work(board: Board, workers: int, draw: random.Random, fails=()) -> list[Task]:
    """Does all tasks; returns those that were begun. Workers take any time."""
    running, begun = [], []
    while board.left and not board.hopeless:
        while len(running) < workers and (task := board.next()) is not None:
            running.append(task)
            begun.append(task)
        if running:
            task = running.pop(draw.randrange(len(running)))
            if task.stage in fails:
                board.fail(task, f"{task.stage} failed")
            else:
                board.end(task)
    return begun


@pytest.mark.parametrize("seed", range(20))
def test_every_task_is_done_once_and_after_its_inputs(seed):
    draw = random.Random(seed)
    names = [f"stage {number}" for number in range(30)]
    inputs = {
        name: tuple(draw.sample(names[:number], min(number, draw.randint(0, 3))))
        for number, name in enumerate(names)
    }
    run = a_run("run", inputs | {"stage 0": ("made earlier",)})
    run.stages["made earlier"] = SimpleNamespace(inputs=())
    board = Board([Task(run, name) for name in names])
    running, over, most = [], {"made earlier"}, 0
    while board.left:
        while len(running) < 3 and (task := board.next()) is not None:
            assert set(run.stages[task.stage].inputs) <= over
            running.append(task)
        most = max(most, len(running))
        task = running.pop(draw.randrange(len(running)))
        board.end(task)
        over.add(task.stage)
    assert over == {*names, "made earlier"} and most > 1 and not board.failed


CHAIN = {"plain": (), "tuned": ("plain",), "scores": ("tuned",), "other": ()}


@pytest.mark.parametrize("seed", range(5))
def test_of_equal_tasks_one_is_done_and_the_others_are_taken_over(seed):
    runs = [a_run(name, CHAIN) for name in ("a", "b", "c")]
    there: set[str] = set()

    def take(task: Task) -> bool:
        return task.stage in there

    board = Board([t for run in runs for t in tasks_of(run)], lambda task: task.stage, take)
    draw, running, begun = random.Random(seed), [], []
    while board.left:
        while len(running) < 3 and (task := board.next()) is not None:
            running.append(task)
            begun.append(task.stage)
        if running:  # the last ones may be taken over
            task = running.pop(draw.randrange(len(running)))
            there.add(task.stage)
            board.end(task)
    assert sorted(begun) == sorted(CHAIN)


def test_a_run_with_a_failure_is_left_and_the_others_go_on():
    runs = [a_run(name, CHAIN) for name in ("a", "b")]
    runs[0].stages["broken"] = SimpleNamespace(inputs=("plain",))
    tasks = [Task(runs[0], name) for name in ("plain", "broken", "tuned", "scores", "other")]
    board = Board([*tasks, *tasks_of(runs[1])])
    begun = work(board, 1, random.Random(0), fails=["broken"])
    assert [task.stage for task in begun if task.run is runs[0]] == ["plain", "broken"]
    assert [task.stage for task in begun if task.run is runs[1]] == list(CHAIN)
    assert board.failed == {Path("a"): "broken failed"} and not board.left


def test_what_uses_a_stage_that_failed_fails_with_its_line():
    """Also where it belongs to another run, which shares that stage."""
    runs = [a_run(name, CHAIN, shared=Path("shared")) for name in ("a", "b")]
    tasks = {task.folder: task for run in runs for task in tasks_of(run)}
    assert len(tasks) == 7
    board = Board([tasks[f] for f in sorted(tasks, key=lambda f: f.name != "plain")])
    begun = work(board, 2, random.Random(0), fails=["plain"])
    assert {task.stage for task in begun} <= {"plain", "other"}
    assert board.failed == dict.fromkeys((Path("a"), Path("b")), "plain failed")


def test_when_all_that_is_left_has_failed_nothing_is_waited_for():
    run = a_run("a", {"one": (), "two": (), "three": ("one", "two")})
    board = Board(tasks_of(run))
    one, two = board.next(), board.next()
    assert board.next() is None and not board.hopeless
    board.fail(one, "a line")
    assert board.hopeless and board.left == 2 and two.stage == "two"
