"""The disk: what a run will take, what is refused before any work, and a disk that gets full."""

import os
import shutil
import subprocess
from collections import namedtuple

import pytest

from dream_jax import disk, pipeline
from dream_jax.checks import check
from dream_jax.errors import UserError

Usage = namedtuple("Usage", "total used free")


def test_the_estimate_is_that_of_a_real_run(toy, toy_run):
    run = pipeline.make_run(check(toy.config()), toy_run.workdir)
    needed = disk.estimate(run.settings, run.rows, disk._sizes(run, run.stages), run.stages)
    used = disk._used(toy_run.workdir)
    assert used <= sum(needed.values()) <= 3 * used
    for name, size in needed.items():
        assert size >= disk._used(run.folder(name)) / 1.5, name  # also of folders in that folder


def test_too_little_space_is_refused_before_any_work(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**5))
    with pytest.raises(UserError, match=r"--workdir .*run: the run needs about 0\.00\d+ GB more"):
        pipeline.run(toy.config(), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_what_a_run_has_written_is_needed_no_more(toy, copied_run, monkeypatch):
    workdir = copied_run("report")
    run = pipeline.make_run(check(toy.config()), workdir)
    seen = [disk.REPORT + disk.REPORT_ROW * len(run.rows) + disk.FOLDER]
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(10**9, 0, seen[0]))
    disk.check_space(run, ["report"])
    seen[0] -= 1
    with pytest.raises(UserError, match="for stage 'report'"):
        disk.check_space(run, ["report"])
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 0))
    shutil.rmtree(workdir / "evaluation")
    with pytest.raises(UserError, match="make room"):
        disk.check_space(run, ["report"])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_gets_full(toy, small_disk):
    """What Orbax and tensorstore say of it is one line; with more room the same command goes on."""
    process = toy.start(small_disk / "run", ["--stages=learn"])
    seen = ""
    while "── learn" not in seen:
        seen += process.stdout.read(1)
        assert process.poll() is None, seen
    free = shutil.disk_usage(small_disk).free
    (small_disk / "of another program").write_bytes(bytes(free - 15 * disk.BLOCK))
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 2, output
    lines = [line for line in output.splitlines() if line and "latent space:" not in line]
    assert len(lines) == 1 and lines[0].startswith(f"error: {small_disk}/run"), output
    assert "No space left on device; the disk is full: make room there" in lines[0]
    assert os.listdir(small_disk / "run" / "latent_space" / "checkpoints") == []
    (small_disk / "of another program").unlink()
    assert "done in" in toy.finish(small_disk / "run", ["--stages=learn"])
