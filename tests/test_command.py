"""The command that the report names: what determines a run, whoever works on it and where."""

import pytest

from dream_jax.command import command_of

PROGRAM = "/work/project/launch/main.py"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--config=a.py"], "--config=a.py"),
        (["--config", "a.py", "--workdir", "runs/x", "--stages=learn"], "--config=a.py"),
        (["--overwrite", "--config=a.py", "--nooverwrite"], "--config=a.py"),
        (["-config=a.py", "--config.seed=-1"], "--config=a.py --config.seed=-1"),
        (["--config=a b.py", "--config.name="], "'--config=a b.py' --config.name="),
        (
            ["--config=a.py", "--coordinator=h:1", "--processes=2", "--process_id=1"],
            "--config=a.py",
        ),
    ],
)
def test_flags_that_leave_results_as_they_are_are_left_out(flags, expected):
    assert command_of([PROGRAM, *flags]) == f"python launch/main.py {expected}"
