"""Any text can be printed on any stream."""

import subprocess
import sys

import pytest
from toy_fixtures import LAUNCH, environment

PRINT = """
from dream_jax.console import accept_any_text
accept_any_text()
print("── learn ± 猫 caf\\udce9")
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "utf-8"])
def test_text_that_an_encoding_lacks_is_printed_plainly(encoding):
    done = subprocess.run(
        [sys.executable, "-c", PRINT],
        env=environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding)
    assert " learn " in shown and r"caf\udce9" in shown
    assert ("猫" if encoding in ("gbk", "utf-8") else r"\u732b") in shown
    assert "?" not in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_the_program_prints_an_error_that_an_encoding_lacks(tmp_path, encoding):
    done = subprocess.run(
        [*LAUNCH, "--config=configs/quickstart.py", "--config.data.id=猫", f"--workdir={tmp_path}"],
        cwd=LAUNCH[1].rpartition("/launch/")[0],
        env=environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 2 and b"error: config.data.id is '" in done.stderr
    assert b"Traceback" not in done.stderr


def test_closed_streams_discard_what_is_printed():
    command = [sys.executable, "-c", PRINT + "import sys; sys.stdout.flush()"]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], env=environment(), timeout=60)
    assert done.returncode == 0
