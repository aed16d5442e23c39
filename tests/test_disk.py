"""The disk: what a run will take, what is refused before any work, and a disk that gets full."""

import shutil
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
