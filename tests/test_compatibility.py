"""Which Pythons and versions the tests are run with, and which versions are installed."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import compatibility
import pytest
from compatibility import CONSTRAINTS, ROOT, Row
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MINOR = "{}.{}".format(*sys.version_info)
FILES = sorted(CONSTRAINTS.glob("python*.txt"))


SHOWS_PIP = """#!/bin/sh
if [ "$1" = -m ]; then echo pip "$@"; else exec {} "$@"; fi
"""


def requirements(name: str) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-r")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_tested_versions_are_within_the_bounds_and_are_all_there(file):
    lines = file.read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)
    tested = {canonicalize_name(name): v for name, v in (line.split("==") for line in lines)}
    asked = requirements("requirements.txt") + requirements("requirements-dev.txt")
    for requirement in asked:
        version = tested[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version}"


def test_the_makefile_installs_the_tested_versions(tmp_path):
    """Python's own is found by the shell when pip runs, as .venv is new by then."""
    assert [file.stem for file in FILES] == [f"python{m}" for m in compatibility.tested_minors()]
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "constraints").mkdir()
    constraints = tmp_path / f"constraints/python{MINOR}.txt"
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(SHOWS_PIP.format(sys.executable))
    python.chmod(0o755)

    def install():
        (tmp_path / ".venv/.requirements").unlink(missing_ok=True)
        command = ["make", "-s", ".venv/.requirements"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    untested = install()
    assert "constraints" not in untested.stdout
    assert f"Python {MINOR} is untested" in untested.stderr
    constraints.touch()
    assert f"-c constraints/python{MINOR}.txt -r requirements.txt" in install().stdout


def test_pythons_are_found_by_minor_version_on_the_path_and_where_pyenv_puts_them(
    tmp_path, monkeypatch
):
    def python(path: Path, prints: str) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{prints}\n")
        path.chmod(0o755)
        return str(path)

    python(tmp_path / "bin/python3.98", "exit 1")  # a shim of pyenv's without a version
    of_pyenv = python(tmp_path / "pyenv/versions/3.98.2/bin/python", "echo 3.98")
    python(tmp_path / "bin/python3.97", "echo 3.6")
    on_path = python(tmp_path / "bin/python3.99", "echo 3.99")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    found = compatibility.find(["3.97", "3.98", "3.99"])
    assert found == {"3.98": of_pyenv, "3.99": on_path}
    (tmp_path / f"bin/python{MINOR}").symlink_to(sys.executable)
    assert compatibility.find([MINOR]).keys() == {MINOR}  # this one can make environments


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--versions=newest,latest"], "VERSIONS: 'latest' is none of tested, newest, oldest"),
        (["--pythons=/nowhere/python"], "PYTHONS: '/nowhere/python' is no Python with"),
        ([f"--pythons={sys.executable} {sys.executable}"], f"are both Python {MINOR}"),
        (["--keep", "tests/sampling"], "--keep needs VERSIONS=newest and the whole suite"),
        (["--keep", "--versions=oldest"], "--keep needs VERSIONS=newest and the whole suite"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(flags, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compatibility", *flags])
    assert compatibility.main() == 2
    said = capsys.readouterr().err
    assert line in said and said.startswith("error: ") and said.count("\n") == 1


def test_the_oldest_versions_are_the_lower_bounds():
    bounds = compatibility.lower_bounds((ROOT / "requirements.txt").read_text())
    asked = requirements("requirements.txt")
    assert len(bounds) == len(asked)
    for bound, requirement in zip(bounds, asked, strict=True):
        own = Requirement(bound)
        assert own.name == requirement.name
        (pin,) = own.specifier
        assert requirement.specifier.contains(pin.version)
        assert str(requirement.specifier).endswith(f">={pin.version}")


TESTS = """
import pytest
def test_passes(): pass
def test_fails(): assert False
@pytest.fixture
def broken(): raise OSError
def test_has_a_broken_fixture(broken): pass
@pytest.mark.skip
def test_is_skipped(): pass
"""


def test_a_row_counts_what_passed_and_names_what_failed(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "--junitxml=tests.xml", "test_it.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True)
    counts, faults = compatibility.outcomes(tmp_path / "tests.xml")
    assert counts == Counter(passed=1, failed=2, skipped=1)
    assert faults == ["test_it.test_fails", "test_it.test_has_a_broken_fixture"]
    row = Row("3.12", "newest", {"jax": "0.12.0"}, counts, faults, 2.6)
    assert not row.whole and Row("3.12", "newest", counts=Counter(passed=1)).whole
    text = compatibility.table([row])
    assert "| 3.12 | newest | 0.12.0 |" in text and "| 1 | 2 | 1 | 3 |" in text
    assert "\nPython 3.12, newest:\n  test_it.test_fails\n" in text
