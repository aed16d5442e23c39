"""A program that starts itself anew with huge pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import os, sys
from pathlib import Path

from dream_jax import huge_pages, starting

huge_pages._MODE = Path(sys.argv[1])
if "notebook" in sys.argv:
    sys.argv = ["elsewhere.py"]
print("began", os.getpid())

def run(argv):
    print(os.environ.get("GLIBC_TUNABLES"), os.getpid(), argv[1:])

starting.start(run)
"""
ASKED = "always [madvise] never"


def ended(folder: Path, mode: str | None, *arguments: str, variable="", as_module=False):
    """Returns how often the program began, the variable at its end and its arguments then."""
    program, file = folder / "program.py", folder / "enabled"
    program.write_text(PROGRAM)
    if mode:
        file.write_text(f"{mode}\n")
    started = ["-m", "program"] if as_module else [program]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}
    variables.pop("GLIBC_TUNABLES", None)
    process = subprocess.Popen(
        [sys.executable, *started, file, *arguments],
        env=variables | ({"GLIBC_TUNABLES": variable} if variable else {}),
        stdout=subprocess.PIPE,
        text=True,
    )
    shown, _ = process.communicate(timeout=60)
    *began, end = shown.splitlines()
    assert process.returncode == 0
    assert set(began) == {f"began {process.pid}"}
    found, pid, arguments = end.split(" ", 2)
    assert int(pid) == process.pid
    return len(began), found, arguments


@pytest.mark.parametrize("as_module", [False, True])
def test_programs_start_anew_where_they_have_to_ask(tmp_path, as_module):
    found = ended(tmp_path, ASKED, "a b", as_module=as_module)
    assert found == (2, "glibc.malloc.hugetlb=1", str([str(tmp_path / "enabled"), "a b"]))


@pytest.mark.parametrize("mode", ["[always] madvise never", "always madvise [never]", None])
def test_programs_go_on_where_nobody_has_to_ask(tmp_path, mode):
    assert ended(tmp_path, mode)[:2] == (1, "None")


def test_what_the_user_says_goes_first(tmp_path):
    found = ended(tmp_path, ASKED, variable="glibc.malloc.arena_max=1")
    assert found[:2] == (1, "glibc.malloc.arena_max=1")


def test_a_notebook_is_not_started_anew(tmp_path):
    assert ended(tmp_path, ASKED, "notebook")[:2] == (1, "None")
