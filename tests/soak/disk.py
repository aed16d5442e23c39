"""Fills the disk under a run, and continues it with space."""

import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.soak import results
from tests.soak.laboratory import Case, Outcome

PLENTY = 2**36  # bytes of a file system in memory, which holds what is written and no more


@cache
def can_mount() -> bool:
    """Whether a file system of a chosen size can be had."""
    return os.geteuid() == 0 and shutil.which("mount") is not None and _try_mount()


def _try_mount() -> bool:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        mounted = subprocess.run(command, capture_output=True).returncode == 0
        return mounted and subprocess.run(["umount", folder]).returncode == 0


@contextmanager
def small_disk(folder: Path, size: int):
    """Gives a folder a file system of its own."""
    if folder.is_mount():  # by a soak test that was killed
        subprocess.run(["umount", "-l", folder], check=True)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def resize(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def used(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def run(case: Case) -> Outcome:
    """Lets a run meet the end of its disk, or of the size of a file; then continues it."""
    draw, outcome = case.random(), Outcome()
    if not can_mount() or draw.random() < 0.15:
        return limited_files(case, draw, outcome)
    disk = case.folder / "disk"
    with small_disk(disk, PLENTY):
        full_disk(case, draw, outcome, disk)
        if outcome.faults:
            shutil.copytree(disk, case.folder / "kept")
    disk.rmdir()
    return outcome


def full_disk(case: Case, draw: random.Random, outcome: Outcome, disk: Path) -> None:
    """Two or three times, a few kilobytes are left at a random stage."""
    laboratory, workdir = case.laboratory, disk / "run"
    for _ in range(draw.randrange(2, 4)):
        resize(disk, PLENTY)
        later, room = draw.randrange(8), draw.choice((0, 4, 16, 64, 256, 1024)) * 1024
        if later == 0:  # before the start
            resize(disk, max(4096, used(disk) + room))
        (program,) = laboratory.start(workdir)
        if later and program.wait(lambda n: sum(x.startswith("── ") for x in n) >= later):  # noqa: B023 called at once
            program.sleep(draw.random())
            resize(disk, max(4096, used(disk) + room + 4096))
        ending = program.end()
        if ending.status == 0 and not ending.wrong:
            outcome.counts["fitted"] += 1
        else:
            outcome.counts["full disks"] += 1
            where = [line for line in ending.printed if line.startswith("── ")][-1:]
            wrong = "" if ending.refusal else f"{room >> 10} KiB left, in {where}: {ending}"
            outcome.expect("NOT ONE LINE", wrong)
    resize(disk, PLENTY)
    _continue(case, outcome, workdir)


def limited_files(case: Case, draw: random.Random, outcome: Outcome) -> Outcome:
    """No file may be longer than a few kilobytes, as under a quota."""
    if (tool := shutil.which("prlimit")) is None:
        outcome.counts["skipped: neither a disk nor a limit of file sizes can be set"] += 1
        return outcome
    size, workdir = draw.choice((1, 10, 30, 100, 300)) * 1024, case.folder / "run"
    ending = case.laboratory.finish(workdir, prefix=[tool, f"--fsize={size}"])
    if ending.status == 0 and not ending.wrong:
        outcome.counts["fitted"] += 1
    else:
        outcome.counts["limited files"] += 1
        outcome.expect("NOT ONE LINE", "" if ending.refusal else f"files ≤ {size}: {ending}")
    _continue(case, outcome, workdir)
    return outcome


def _continue(case: Case, outcome: Outcome, workdir: Path) -> None:
    ending = case.laboratory.finish(workdir)
    good = ending.status == 0 and not ending.wrong
    if outcome.expect("DOES NOT CONTINUE", "" if good else str(ending)):
        expected = case.laboratory.reference().results
        others = results.differences(results.read(workdir), expected)
        outcome.expect("DIFFERS", ", ".join(others[:8]))
