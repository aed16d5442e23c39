"""Checkpoints that are damaged are named and passed over; what is read is what was written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[2]


def state(step: int) -> dict:
    rng = np.random.default_rng(step)
    return {
        "params": {"network": {"w": rng.normal(size=(40, 50)).astype(np.float32)}},
        "model_state": {"batch_stats": {"mean": rng.normal(size=7).astype(np.float32)}},
        "step": np.array(step, np.int32),
        "average": {},
    }


def save(folder: Path, *steps: int) -> None:
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step))


def restored(folder: Path) -> int:
    """Returns the step of the state that is read, which has the values of that step."""
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(state(0))
    step = int(found["step"])
    expected = state(step)
    assert np.array_equal(found["params"]["network"]["w"], expected["params"]["network"]["w"])
    return step


def files(checkpoint: Path) -> list[Path]:
    return [path for path in checkpoint.rglob("*") if path.is_file()]


def largest(checkpoint: Path) -> Path:
    return max(files(checkpoint), key=lambda path: path.stat().st_size)


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def truncate_all(checkpoint: Path) -> None:
    for path in files(checkpoint):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_empty(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def metadata(text: str):
    return lambda checkpoint: (checkpoint / "default" / "_METADATA").write_text(text)


DAMAGES = {
    "truncated": truncate_all,
    "cut short by a byte": lambda c: largest(c).write_bytes(largest(c).read_bytes()[:-1]),
    "emptied": lambda c: [path.write_bytes(b"") for path in files(c)],
    "overwritten": lambda c: [path.write_bytes(b"x" * 99) for path in files(c)],
    "bit at the start": lambda c: flip(largest(c), 0),
    "bit in the middle": lambda c: flip(largest(c), 0.5),
    "bit at the end": lambda c: flip(largest(c), 1),
    "array missing": lambda c: largest(c).unlink(),
    "folder missing": lambda c: shutil.rmtree(c / "default"),
    "folder empty": make_empty,
    "metadata an empty object": metadata("{}"),
    "metadata a list": metadata("[]"),
    "checksums missing": lambda c: (c / "checksums.json").unlink(),
    "checksums a list": lambda c: (c / "checksums.json").write_text("[]"),
    "checksums an empty object": lambda c: (c / "checksums.json").write_text("{}"),
    "checksums of a list": lambda c: (c / "checksums.json").write_text('{"default": []}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_passed_over_until_a_newer_one_is_written(tmp_path, capsys, damage):
    save(tmp_path, 2, 4)
    DAMAGES[damage](tmp_path / "4")
    assert restored(tmp_path) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"checkpoint {tmp_path / '4'}: ")
    assert lines[0].endswith("; the one of step 2 is used")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore(state(0))
        checkpoints.save(4, state(4))
    assert not capsys.readouterr().out.splitlines()[1:]
    assert restored(tmp_path) == 4 and not capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]


@pytest.mark.parametrize("damage", ["truncated", "bit in the middle", "folder empty"])
def test_where_all_are_damaged_one_line_names_them(tmp_path, damage):
    save(tmp_path, 2, 4)
    for step in "24":
        DAMAGES[damage](tmp_path / step)
    for read in (Checkpoints.restore, Checkpoints.restore_network):
        with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError) as caught:
            read(checkpoints, {"params": {}})
        message = str(caught.value)
        assert "\n" not in message
        assert f"checkpoint {tmp_path / '4'}: " in message and str(tmp_path / "2") in message


def test_network_of_the_newest_whole_checkpoint(tmp_path, capsys):
    save(tmp_path, 2, 4)
    DAMAGES["bit in the middle"](tmp_path / "4")
    like = {"params": state(0)["params"]["network"], **state(0)["model_state"]}
    with Checkpoints(tmp_path) as checkpoints:
        network = checkpoints.restore_network(like)
    assert np.array_equal(network["params"]["w"], state(2)["params"]["network"]["w"])
    assert "the one of step 2 is used" in capsys.readouterr().out


def test_what_a_killed_run_was_writing_is_no_checkpoint(tmp_path, capsys):
    """Its own, and what Orbax leaves."""
    save(tmp_path, 2)
    for name in (".saving-4", "4.orbax-checkpoint-tmp-17"):
        shutil.copytree(tmp_path / "2", tmp_path / name)
        DAMAGES["truncated"](tmp_path / name)
    assert restored(tmp_path) == 2 and not capsys.readouterr().out
    save(tmp_path, 4)
    assert not (tmp_path / ".saving-4").exists()
    assert restored(tmp_path) == 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_state_that_is_not_finite_is_not_written(tmp_path, value):
    save(tmp_path, 2)
    broken = state(4)
    broken["params"]["network"]["w"][3, 4] = value
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError) as caught:
        checkpoints.save(4, broken)
    assert str(caught.value) == (
        f"{tmp_path}: params.network.w is not finite (NaN or infinity) at step 4; lower the "
        f"learning rate (checkpoints of steps 2 are kept)"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


READ = """
import sys
from pathlib import Path
from absl import logging
logging.set_verbosity(logging.ERROR)
from test_checkpoints import Checkpoints, UserError, state
for folder in sys.argv[1:]:
    try:
        with Checkpoints(Path(folder)) as checkpoints:
            checkpoints.restore(state(0))
    except UserError as error:
        print(f"error: {error}")
"""


def test_nothing_else_is_said_of_damaged_checkpoints(tmp_path):
    """By a process as a whole, to its end."""
    folders = []
    for number, damage in enumerate(DAMAGES):
        folders.append(tmp_path / str(number))
        save(folders[-1], 2, 4)
        for step in ("4", "2")[: 1 + number % 2]:
            DAMAGES[damage](folders[-1] / step)
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, folders)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == len(DAMAGES)
    assert [line.startswith("error: ") for line in lines] == [
        bool(n % 2) for n in range(len(lines))
    ]


def test_checksums_are_of_all_files(tmp_path):
    save(tmp_path, 2)
    listed = json.loads((tmp_path / "2" / "checksums.json").read_text())
    found = {path.relative_to(tmp_path / "2").as_posix() for path in files(tmp_path / "2")}
    assert set(listed) == found - {"checksums.json"}
