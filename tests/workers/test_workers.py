"""A run that several workers share, and how they and it end."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from slow import takes_a_minute

from dream_jax import lock
from dream_jax.files import read_json, read_npz
from dream_jax.record import RECORD
from dream_jax.workers.worker import VARIABLE

SHARED = ("classifier", "evaluation", "report", "metrics.json")
WORKERS = "--workers=2"


@pytest.fixture
def workdir(toy_run, tmp_path) -> Path:
    """A run of which the stages are done that one process makes."""
    copy = tmp_path / "run"
    shutil.copytree(toy_run.workdir, copy, ignore=shutil.ignore_patterns(*SHARED))
    assert (copy / "images" / "outliers" / RECORD).exists()
    return copy


def workers_of(workdir: Path) -> list[int]:
    """The workers that live, by the run's folder in their commands."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (
                (process / name).read_bytes().decode(errors="replace")
                for name in ("cmdline", "environ")
            )
        except OSError:  # it has ended, or is another user's
            continue
        if str(workdir) in command and VARIABLE in variables:
            found.append(int(process.name))
    return found


def until(true, seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def a_classifier_is_trained(workdir: Path) -> bool:
    return any(workdir.glob("classifier/*/checkpoints/*/*"))


@pytest.fixture
def one_core():
    """Lets processes that a test starts use one core, as each of two workers does on two."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture
def alone(toy, workdir, one_core) -> Path:
    """The run that one process makes on one core: with more, sums are rounded otherwise."""
    copy = workdir.with_name("alone")
    shutil.copytree(workdir, copy)
    toy.finish(copy)
    return copy


@takes_a_minute
def test_killed_interrupted_and_continued_they_make_the_same_run(toy, alone, workdir):
    """As one process does, to the byte. On one core here, which the workers share."""
    process = toy.start(workdir, [WORKERS])
    assert until(lambda: a_classifier_is_trained(workdir))
    assert len(workers_of(workdir)) == 2
    process.kill()
    process.communicate()
    assert until(lambda: not workers_of(workdir), 10), "workers outlive what started them"

    process = toy.start(workdir, [WORKERS])
    assert until(lambda: len(workers_of(workdir)) == 2)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    seen, _ = process.communicate(timeout=60)
    assert process.returncode == 143, seen
    assert seen.strip().splitlines()[-1].startswith("stopped by SIGTERM: what is done is kept")
    assert "Traceback" not in seen
    assert not workers_of(workdir) and not (workdir / lock.NAME).exists()

    output = toy.finish(workdir, [WORKERS])
    for name in ("metrics.json", "report/table.csv"):
        assert (workdir / name).read_bytes() == (alone / name).read_bytes()
    for expected in alone.glob("evaluation/*/scores_*.npz"):
        found = read_npz(workdir / expected.relative_to(alone))
        for key, scores in read_npz(expected).items():
            np.testing.assert_array_equal(found[key], scores)
    for expected in alone.glob(f"**/{RECORD}"):
        place = expected.relative_to(alone)
        assert read_json(workdir / place)["done"], place
    # Each stage's lines stand together.
    blocks = re.findall(r"── (\S.*)\n(?:   .*\n)*?   done in \d+ s", output)
    assert "train dream_ood" in blocks and "evaluate dream_ood" in blocks


def test_interrupted_workers_keep_the_steps_that_are_done(toy, workdir):
    """As a program without workers does: also between two regular checkpoints."""
    flags = [WORKERS, "--config.save_every=100000", "--config.classifier.epochs=4000"]
    process = toy.start(workdir, flags)
    curves = workdir / "classifier" / "cross_entropy" / "metrics.csv"
    assert until(lambda: curves.exists() and len(curves.read_text().splitlines()) > 2)
    process.send_signal(signal.SIGINT)
    seen, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in seen, seen
    folder = workdir / "classifier" / "cross_entropy" / "checkpoints"
    steps = [int(path.name) for path in folder.iterdir()]
    assert len(steps) == 1 and 0 < steps[0] < 100_000
    assert not workers_of(workdir)


def test_a_worker_s_error_ends_the_run_in_one_line(toy, workdir):
    process = toy.start(workdir, [WORKERS, "--config.classifier.optimizer.learning_rate=1e20"])
    seen, _ = process.communicate(timeout=300)
    assert process.returncode == 2, seen
    lines = seen.strip().splitlines()
    assert lines[-1].startswith("error: ") and "finite" in lines[-1], seen
    assert seen.count("error: ") == 1 and "Traceback" not in seen
    assert not workers_of(workdir) and not (workdir / lock.NAME).exists()


def test_a_worker_that_is_killed_ends_the_run_in_one_line(toy, workdir):
    process = toy.start(workdir, [WORKERS])
    assert until(lambda: len(workers_of(workdir)) == 2)
    os.kill(workers_of(workdir)[0], signal.SIGKILL)
    seen, _ = process.communicate(timeout=60)
    assert process.returncode == 2, seen
    assert re.search(
        r"^error: a worker ended by SIGKILL at stage '.+'; what is done is kept", seen, re.M
    )
    assert "Traceback" not in seen and not workers_of(workdir)


def test_their_number_is_checked_before_any_work(toy, tmp_path):
    process = toy.start(tmp_path / "run", ["--workers=0"])
    seen, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert seen.strip().splitlines()[-1] == "error: --workers is 0; allowed: 1 or more"
