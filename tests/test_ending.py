"""How programs end: signals, what the system refuses, and the lock of a run's folder."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from toy_fixtures import LAUNCH, environment

from dream_jax import lock, system
from dream_jax.config_file import read_config
from dream_jax.errors import UserError
from dream_jax.training.loop import call_length
from dream_jax.training.streaming import check_shared_memory

# Signals.


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_the_steps_that_are_done(toy, tmp_path, number, status):
    """Also at a step that is no multiple of `save_every`; one line says how to go on."""
    workdir = tmp_path / "run"
    flags = ["--config.save_every=100000", "--config.latent_space.epochs=400"]  # 10,000 steps
    process = toy.start(workdir, ["--stages=learn", *flags])
    seen = ""
    while not re.search(r"[1-9]\d*/10000 ", seen):
        seen += process.stdout.read(1)
        assert process.poll() is None, seen
    process.send_signal(number)
    seen, _ = process.communicate(timeout=60)
    assert process.returncode == status, seen
    assert "Traceback" not in seen
    last = seen.strip().splitlines()[-1]
    assert last.startswith(f"stopped by {signal.Signals(number).name}")
    assert "the same command continues" in last
    steps = [int(p.name) for p in (workdir / "latent_space" / "checkpoints").iterdir()]
    assert len(steps) == 1 and 0 < steps[0] < 10000 and steps[0] % 10 == 0
    assert not (workdir / lock.NAME).exists()


def test_any_end_of_a_call_is_a_place_to_continue_from():
    """A training that goes on from there runs calls of the same length: the same program."""
    for steps in range(1, 200):
        for most in (1, 5, 7, 10, 20):
            length = call_length(0, steps, most)
            assert all(call_length(s, steps, most) == length for s in range(0, steps, length))


# What the system refuses.


def native(text: str) -> Exception:
    """An error as compiled code hands it on, below one of another library."""
    error = KeyError("the library's own")
    error.__cause__ = ValueError(text)
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "", "/a/b"), "/a/b: No space left on device; the disk is full"),
        (OSError(errno.EDQUOT, "", "/a/b"), "/a/b: Disk quota exceeded; "),
        (native("Error writing '/a/b/x' [OS error 28: No space left on device]"), "/a/b/x: No sp"),
        (
            native('RESOURCE_EXHAUSTED: Error writing "key/0" at "/a/b/": No space left on device'),
            "/a/b/: No space left on device; ",
        ),
        (native("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "the memory of the dev"),
        (MemoryError("Unable to allocate 9 TiB"), "the memory of this machine is not enough"),
        (ExceptionGroup("", [PermissionError(errno.EACCES, "", "/c")]), "/c: Permission denied;"),
        (ValueError("a fault of the program"), None),
        (OSError("of a library, without a number"), None),
    ],
)
def test_errors_of_the_system_are_one_line(error, line):
    found = system.explain(error, Path("/workdir"))
    assert (found is None) if line is None else found.startswith(line)


def test_a_full_disk_is_named(tmp_path):
    """A real one: every write to this device fails."""
    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    with pytest.raises(OSError) as caught, open("/dev/full", "w") as file:
        file.write("x" * 10**6)
    assert system.explain(caught.value, tmp_path).startswith(f"{tmp_path}: No space left on device")


@pytest.mark.parametrize(
    ("variables", "below", "line"),
    [
        ({"JAX_PLATFORMS": "nope"}, "run", "error: JAX_PLATFORMS is nope"),
        ({"XLA_FLAGS": "--nonsense"}, "run", "error: XLA_FLAGS is '--nonsense'; Unknown flag"),
        ({"JAX_NUM_CPU_DEVICES": "x"}, "run", "error: JAX_NUM_CPU_DEVICES of the environment"),
        ({}, "file/run", "error: --workdir "),
        ({}, "file", "error: --workdir "),
    ],
)
def test_what_is_unusable_is_one_line(tmp_path, variables, below, line):
    (tmp_path / "file").touch()
    root = os.path.dirname(os.path.dirname(LAUNCH[1]))
    done = subprocess.run(
        [*LAUNCH, "--config=configs/quickstart.py", f"--workdir={tmp_path / below}"],
        cwd=root,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(line)
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_is_no_fault():
    """As of `launch/main.py --help | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*LAUNCH, "--config=configs/quickstart.py", "--help"],
        cwd=os.path.dirname(os.path.dirname(LAUNCH[1])),
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_shared_memory_that_is_too_small_is_refused(tmp_path):
    batch = {"images": np.empty((2**20,), np.uint8)}
    check_shared_memory(batch, 1, tmp_path)
    with pytest.raises(UserError, match=r"config.data.workers is 10{12}; .* at most \d+ \("):
        check_shared_memory(batch, 10**12, tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def get_config(:", "SyntaxError"),
        (
            "def get_config():\n    raise ValueError('two\\nlines')",
            r"ValueError: two lines \(line 2",
        ),
        ("def get_config():\n    return {'name': 'x'}", r"get_config\(\) returns dict; it must"),
        ("def get_config():\n    pass", r"get_config\(\) returns NoneType"),
        ("raise SystemExit", "SystemExit"),
        ("import nowhere", "No module named 'nowhere'"),
        ("", "has no attribute 'get_config'"),
        (None, "is not there; it must be a Python file"),
    ],
)
def test_configuration_file_with_a_fault(tmp_path, text, line):
    file = tmp_path / "config.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=line) as caught:
        read_config(str(file))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


# The lock.


def lost(line: str) -> None:
    raise AssertionError(line)


def as_left_by(file: Path, **changed) -> None:
    """Writes a lock as another process left it."""
    file.write_text(json.dumps(asdict(lock._myself()) | changed))


def test_a_second_run_is_told_who_is_there(tmp_path):
    with lock.hold(tmp_path, lost):
        code = "import sys; from pathlib import Path; from dream_jax import lock\n"
        code += "with lock.hold(Path(sys.argv[1]), print): pass"
        command = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert f"is in use by process {os.getpid()} on host " in done.stderr
        assert " since 2" in done.stderr
        assert (tmp_path / lock.NAME).exists()
    assert not list(tmp_path.iterdir())


def test_locks_of_dead_processes_are_taken_over(tmp_path):
    file = tmp_path / lock.NAME
    as_left_by(file, started="0")  # this number, but of an earlier process
    with lock.hold(tmp_path, lost):
        assert json.loads(file.read_text())["started"] != "0"
    as_left_by(file, machine="another")
    with pytest.raises(UserError, match="is in use by"), lock.hold(tmp_path, lost):
        pass
    long_ago = time.time() - lock.DEAD - 10
    os.utime(file, (long_ago, long_ago))
    with lock.hold(tmp_path, lost):
        assert json.loads(file.read_text())["machine"] != "another"
    file.write_text("")  # the machine failed while it was written
    os.utime(file, (long_ago, long_ago))
    with lock.hold(tmp_path, lost):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_at_the_same_time_one_wins(tmp_path, dead):
    file = tmp_path / lock.NAME
    for _ in range(20):
        if dead:
            as_left_by(file, started="0")

        def take(_) -> bool:
            try:
                lock._take(file, lock._myself())
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(take, range(8))) == 1
        file.unlink()


def test_another_process_s_lock_is_not_deleted(tmp_path):
    file = tmp_path / lock.NAME
    with lock.hold(tmp_path, lambda line: None):
        as_left_by(file, token="another")
    assert file.exists()
