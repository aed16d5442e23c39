"""Runs the tests with several Pythons and the versions that requirements.txt allows.

    make compatibility PYTHONS="python3.12 /opt/python3.13" VERSIONS=newest ARGS="tests/sampling"

Each Python gets an environment of its own, `.compatibility/<python>-<versions>`, for each choice of
versions:

- `tested`: those of `constraints/`, as `make quickstart` installs them;
- `newest`: the newest that requirements.txt allows;
- `oldest`: its lower bounds, with the oldest Python alone.

A table tells how the tests ended. `--keep` then writes the newest versions to `constraints/`, for
the Pythons with which none failed. Needs only the standard library and the package index.
"""

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".compatibility"
CONSTRAINTS = ROOT / "constraints"
VERSIONS = ("tested", "newest", "oldest")
SHOWN = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "diffusers", "transformers")
OUTCOMES = ("passed", "failed", "skipped")
# Where Pythons lie that are not on the path, for a minor version such as 3.12.
PLACES = (
    "{pyenv}/versions/{minor}.*/bin/python",
    "{uv}/cpython-{minor}.*/bin/python{minor}",
    "{home}/miniconda3/envs/*/bin/python{minor}",
    "{home}/miniforge3/envs/*/bin/python{minor}",
    "/opt/*/bin/python{minor}",
    "/usr/local/bin/python{minor}",
    "/usr/bin/python{minor}",
)
# A Python that can make environments names its minor version.
PROBE = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


class Refused(Exception):
    """Says in one line what is asked for and cannot be done."""


@dataclass
class Row:
    """A row of the table: an environment, what is installed in it, and how the tests ended."""

    minor: str
    versions: str
    installed: dict[str, str] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    minutes: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether every test passed that was not skipped."""
        return not self.faults and self.counts["passed"] > 0

    @property
    def folder(self) -> Path:
        """Where its environment lies."""
        return FOLDER / f"{self.minor}-{self.versions}"


def tested_minors() -> list[str]:
    """Returns the minor versions of Python that `constraints/` has a file for, oldest first."""
    names = [path.stem.removeprefix("python") for path in CONSTRAINTS.glob("python*.txt")]
    return sorted(names, key=lambda name: [int(part) for part in name.split(".")])


def minor_of(python: str) -> str | None:
    """Returns the minor version of an interpreter, or None where it cannot make environments."""
    try:
        probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return probe.stdout.strip() if probe.returncode == 0 else None


def find(minors: list[str]) -> dict[str, str]:
    """Returns the first interpreter found of each minor version: {"3.12": "/usr/bin/python3.12"}.

    On the path, then where pyenv, uv, conda and systems put them.
    """
    home = Path.home()
    roots = {
        "home": home,
        "pyenv": os.environ.get("PYENV_ROOT", home / ".pyenv"),
        "uv": os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python"),
    }
    found = {}
    for minor in minors:
        places = [place.format(minor=minor, **roots) for place in PLACES]
        candidates = [shutil.which(f"python{minor}"), *(p for at in places for p in glob.glob(at))]
        usable = (python for python in candidates if python and minor_of(python) == minor)
        if python := next(usable, None):
            found[minor] = python
    return found


def named(pythons: list[str]) -> dict[str, str]:
    """Returns named interpreters by their minor version, see `find`.

    Raises:
      Refused: one cannot make environments, or two have the same minor version.
    """
    found: dict[str, str] = {}
    for python in pythons:
        minor = minor_of(python)
        if minor is None:
            raise Refused(f"PYTHONS: {python!r} is no Python with the modules venv and ensurepip")
        if minor in found:
            raise Refused(f"PYTHONS: {found[minor]!r} and {python!r} are both Python {minor}")
        found[minor] = python
    return found


def lower_bounds(requirements: str) -> list[str]:
    """Returns the lower bounds of the lines of a requirements file as constraints."""
    lines = re.findall(r"^([\w.-]+)(?:\[\w+\])?>=([\w.]+)", requirements, re.MULTILINE)
    return [f"{name}=={version}" for name, version in lines]


def install(row: Row, python: str) -> None:
    """Makes or renews an environment; what pip says goes to its `install.log`.

    Raises:
      CalledProcessError: pip could not install.
    """
    environment, own = row.folder / "venv", row.folder / "constraints.txt"
    row.folder.mkdir(parents=True, exist_ok=True)
    if minor_of(str(environment / "bin/python")) != row.minor:
        subprocess.run([python, "-m", "venv", "--clear", environment], check=True)
    pip = [environment / "bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    choice = ["--upgrade", "--upgrade-strategy", "eager"]
    if row.versions == "tested":
        choice = ["-c", CONSTRAINTS / f"python{row.minor}.txt"]
    if row.versions == "oldest":
        own.write_text("\n".join(lower_bounds((ROOT / "requirements.txt").read_text())) + "\n")
        choice = ["-c", own]
    with (row.folder / "install.log").open("w") as log:
        command = [*pip, "install", "-r", ROOT / "requirements-dev.txt", *choice]
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    lines = sorted(frozen.splitlines(), key=str.lower)
    own.write_text("\n".join(lines) + "\n")
    row.installed = {name.lower().replace("_", "-"): v for name, _, v in map(_parts, lines)}


def _parts(line: str) -> tuple[str, str, str]:
    return line.partition("==")


def outcomes(report: Path) -> tuple[Counter, list[str]]:
    """Returns the counts of a JUnit report's outcomes and the names of the tests that failed."""
    counts, faults = Counter(), []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            counts["failed"] += 1
            faults.append(f"{case.get('classname')}.{case.get('name')}")
        else:
            counts["skipped" if "skipped" in kinds else "passed"] += 1
    return counts, faults


def test(row: Row, arguments: list[str]) -> None:
    """Runs the tests in an environment; what pytest says goes to its `tests.log`."""
    report, log = row.folder / "tests.xml", row.folder / "tests.log"
    report.unlink(missing_ok=True)
    python = row.folder / "venv/bin/python"
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
    start = time.monotonic()
    with log.open("w") as output:
        ended = subprocess.run(
            [*command, *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    row.minutes = (time.monotonic() - start) / 60
    if report.exists():
        row.counts, row.faults = outcomes(report)
    if ended.returncode not in (0, 1) or not row.counts:
        row.faults.append(f"pytest ended with status {ended.returncode}, see {log}")


def table(rows: list[Row]) -> str:
    """Returns the rows as a Markdown table, then what failed in each."""
    head = ("Python", "versions", *SHOWN, *OUTCOMES, "minutes")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        versions = [row.installed.get(name, "–") for name in SHOWN]
        counts = [str(row.counts[outcome]) for outcome in OUTCOMES]
        cells = [row.minor, row.versions, *versions, *counts, f"{row.minutes:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    for row in rows:
        lines += [f"\nPython {row.minor}, {row.versions}:" for _ in row.faults[:1]]
        lines += [f"  {fault}" for fault in row.faults]
    return "\n".join(lines)


def run(pythons: dict[str, str], chosen: list[str], arguments: list[str]) -> list[Row]:
    """Makes the environments and runs the tests in one after the other."""
    rows = []
    for versions in chosen:
        minors = list(pythons)[:1] if versions == "oldest" else list(pythons)
        rows += [Row(minor, versions) for minor in minors]
    for row in rows:
        print(f"Python {row.minor}, {row.versions}: {row.folder}", file=sys.stderr, flush=True)
        try:
            install(row, pythons[row.minor])
        except subprocess.CalledProcessError:
            row.faults.append(f"pip could not install, see {row.folder / 'install.log'}")
            continue
        test(row, arguments)
    return rows


def asked(args: argparse.Namespace, arguments: list[str]) -> dict[str, str]:
    """Returns the interpreters that are asked for, see `find`.

    Raises:
      Refused: there are none, or the flags contradict each other or what is there.
    """
    chosen, minors = args.versions.split(","), tested_minors()
    if wrong := sorted({*chosen} - {*VERSIONS}):
        raise Refused(f"VERSIONS: {', '.join(wrong)!r} is none of {', '.join(VERSIONS)}")
    if args.keep and (arguments or "newest" not in chosen):
        raise Refused("--keep needs VERSIONS=newest and the whole suite, so no other ARGS")
    pythons = named(args.pythons.split()) if args.pythons else find(minors)
    if not pythons:
        raise Refused(f"no Python of {', '.join(minors)} was found; name some by PYTHONS=...")
    if "tested" in chosen and (untested := [minor for minor in pythons if minor not in minors]):
        raise Refused(f"VERSIONS: {CONSTRAINTS.name}/ has no versions tested with {untested[0]}")
    return pythons


def main() -> int:
    """Finds the Pythons, runs the tests and prints the table; returns the exit status."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--pythons", default="", help="interpreters; those of this machine if empty")
    flags.add_argument("--versions", default="newest,oldest", help=f"some of {','.join(VERSIONS)}")
    flags.add_argument("--keep", action="store_true", help="write what passed to constraints/")
    args, arguments = flags.parse_known_args()
    try:
        pythons = asked(args, arguments)
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 2
    rows = run(pythons, args.versions.split(","), arguments)
    print(table(rows))
    for row in rows:
        if args.keep and row.versions == "newest" and row.whole:
            shutil.copy(row.folder / "constraints.txt", CONSTRAINTS / f"python{row.minor}.txt")
    return 0 if all(row.whole for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
