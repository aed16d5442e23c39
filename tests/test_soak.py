"""The soak test's own checks: each can fail, and the advice of lines is understood."""

import json
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.soak import advice, damages, inputs, kills, programs, results
from tests.soak.laboratory import Case, Laboratory
from tests.soak.programs import Program


def ending(code: str, tmp_path, limit: float | None = None) -> programs.Ending:
    command = [sys.executable, "-c", code]
    return Program(command, programs.environment(tmp_path), tmp_path).end(limit)


def test_an_ending_is_told_from_another(tmp_path):
    error = "import sys; print('error: a', file=sys.stderr); "
    bar = r"sys.stderr.write('\r 5%|#  | 1/2 [00:01<?]\r'); "
    good = ending(f"{error}{bar}sys.exit(2)", tmp_path)
    assert (good.refusal, good.wrong) == ("error: a", "")
    for code in (f"{error}{error}sys.exit(2)", f"{error}sys.exit(1)", "import sys; sys.exit(2)"):
        assert not ending(code, tmp_path).refusal
    assert (
        "a traceback, which ends with 'ValueError: b'"
        in ending("raise ValueError('b')", tmp_path).wrong
    )
    child = "import subprocess; subprocess.Popen(['sleep', '60'])"
    assert ending(child, tmp_path).wrong == "left processes behind"


def test_a_program_that_hangs_is_killed(tmp_path):
    begin = time.monotonic()
    hangs = ending("import time; print('a', flush=True); time.sleep(60)", tmp_path, limit=1.0)
    assert hangs.status is None and hangs.wrong == "hangs; last lines: ['a']"
    assert time.monotonic() - begin < 20
    assert not Program.running


@pytest.mark.parametrize(
    ("stage", "status", "errors", "right"),
    [
        ("learn", 143, ["stopped by SIGTERM"], True),
        ("start-up", 143, ["waiting for all processes, 10 of 60 s", "stopped by SIGTERM"], True),
        ("learn", 0, [], True),
        ("learn", 143, [], False),
        ("learn", 143, ["a", "b"], False),
        ("learn", 130, ["stopped"], False),
        ("learn", -15, [], False),
        ("start-up", -15, [], True),
        ("start-up", -15, ["a"], False),
    ],
)
def test_a_signal_ends_with_its_status_and_a_line(stage, status, errors, right):
    found = programs.Ending(status, [], errors, 1.0, False)
    assert (not kills._unclean(kills.signal.SIGTERM, stage, found)) == right


RUN = Path("/tmp/run")


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("{run}/a.npz: cannot be read (x: y); delete it to redo its stage", ("{run}/a.npz", ())),
        ("{run}/config.json: is []; delete it: it is written again", ("{run}/config.json", ())),
        (
            "checkpoint {run}/c/25: cannot be read; delete this folder to continue",
            ("{run}/c/25", ()),
        ),
        ("{run}/l/a.json: is []; delete the folder {run}/l to make it again", ("{run}/l", ())),
        ("{run}/l: has no file; delete {run}/l, or go", ("{run}/l", ())),
        ("--workdir {run} holds another version; delete that folder", ("{run}", ())),
        ("{run}/c: x; redo with --stages=a --overwrite", (None, ("--stages=a", "--overwrite"))),
        ("{run}/c: its parts list 3 images; redo with --overwrite", (None, ("--overwrite",))),
        ("{run}/c: busy; run it again", (None, ())),
    ],
)  # fmt: skip
def test_advice_is_understood(line, action):
    path, flags = action
    expected = advice.Advice(Path(path.format(run=RUN)) if path else None, flags=flags)
    line = "error: " + line.format(run=RUN)
    assert advice.read_advice(line, random.Random(0)) == expected


def test_lines_without_advice_and_with_a_choice():
    draw = random.Random(0)
    assert advice.read_advice("error: /tmp/run/a.npz: is bad, sorry", draw) is None
    line = "error: /tmp/run: changed; use --overwrite to redo it, or another --workdir"
    found = {advice.read_advice(line, draw) for _ in range(20)}
    assert found == {advice.Advice(flags=("--overwrite",)), advice.Advice(elsewhere=True)}
    line = "error: /tmp/run/a.json: Permission denied; give the right to it, or name another place"
    assert advice.read_advice(line, draw) == advice.Advice(RUN / "a.json", delete=False)


@pytest.fixture
def workdir(tmp_path):
    """What looks like a run."""
    folder = tmp_path / "run"
    record = {"stage": "learn", "done": True, "settings": {"seed": 0}, "seconds": 1.5}
    record["files"] = {"features.npz": {"size": 3}, "checkpoints/25/x": {"size": 3}}
    (folder / "learn" / "checkpoints" / "25").mkdir(parents=True)
    (folder / "learn" / "checkpoints" / "25" / "x").write_text("random")
    (folder / "learn" / "stage.json").write_text(json.dumps(record))
    (folder / "learn" / "features.npz").write_bytes(bytes(range(200)))
    (folder / "config.json").write_text('{"name": "a", "model": {"width": 8}}')
    (folder / "index.html").write_text("<td>2.5 s</td><td>1,033 MB</td><td>98.2</td>")
    return folder


def test_what_a_run_has_left_is_compared(workdir):
    before = results.read(workdir)
    record = workdir / "learn" / "stage.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seconds": 3.0}))
    (workdir / "index.html").write_text("<td>1 min 2 s</td><td>1.2 GB</td><td>98.2</td>")
    (workdir / "learn" / "checkpoints" / "25" / "x").rename(workdir / "learn" / "checkpoints" / "y")
    assert not results.differences(results.read(workdir), before)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"done": False}))
    (workdir / "index.html").write_text("<td>1 min 2 s</td><td>1.2 GB</td><td>98.3</td>")
    (workdir / "config.json").unlink()
    (workdir / "learn" / ".partial-x").write_text("")
    assert sorted(results.differences(results.read(workdir), before)) == [
        "config.json is missing",
        "index.html differs",
        "learn/.partial-x is left over",
        "learn/stage.json differs",
    ]


@pytest.mark.parametrize("kind", damages.DAMAGES)
def test_each_damage_changes_a_file(workdir, kind):
    path, draw = workdir / "config.json", random.Random(0)
    (workdir / "another.json").write_text("{}")
    before = damages._content(path)
    if kind == "unreadable" and damages.without_privileges() is None:
        pytest.skip("permissions do not count for root, and there is no setpriv")
    assert damages.DAMAGES[kind](path, draw)
    assert damages._content(path) != before


def test_a_bad_setting_that_is_accepted_is_a_fault(tmp_path, monkeypatch):
    fuzz = pytest.importorskip("tests.fuzz_settings")
    monkeypatch.setattr(fuzz, "bad_settings", lambda seed, count: [("launch/main.py", ["--help"])])
    case = Case(Laboratory(tmp_path, time.monotonic() + 60), "settings", 1, seed=0)
    outcome = inputs.settings(case)
    assert len(outcome.faults) == 1 and outcome.faults[0].startswith("NOT ONE LINE: launch/main.py")
    shutil.rmtree(case.folder)
    monkeypatch.setattr(fuzz, "bad_settings", lambda seed, count: [("launch/main.py", ["stray"])])
    assert not inputs.settings(case).faults
