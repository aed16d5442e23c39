"""Folders are walked once, links and pipes and all; what is left out is counted and named."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream_jax.data.folders import image_files
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import load_id, load_ood
from dream_jax.data.shifted import load_shifted
from dream_jax.errors import UserError


def test_each_file_counts_once_and_what_is_left_out_is_named(tmp_path, capsys):
    root = tmp_path / "set"
    (root / "below").mkdir(parents=True)
    for name in ("a.PNG", "below/b.webp", os.fsdecode(b"c\xe4.bmp")):
        Image.new("RGB", (9, 9)).save(root / name)
    (root / "up").symlink_to(root)
    (root / "below" / "up").symlink_to(root)
    (root / "again").symlink_to(root / "below")
    (root / "again.png").symlink_to(root / "a.PNG")
    (root / "lost.png").symlink_to(root / "nowhere")
    (root / "d.heic").write_bytes(b"")
    (root / "README.txt").write_text("no image")
    os.mkfifo(root / "pipe.png")
    names = image_files(root)
    assert names == sorted(["a.PNG", "below/b.webp", os.fsdecode(b"c\xe4.bmp")])
    assert len(load_ood(f"x={root}", DataOptions(channels=3))) == 3
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("2 links to a folder", "pipe.png", "lost.png", "d.heic", "(again, again.png)"):
        assert part in line
    assert "README" not in line


def test_class_names_that_are_not_utf8(tmp_path):
    for split in ("train", "test"):
        for name in (b"a", b"b\xe4"):
            folder = tmp_path / split / os.fsdecode(name)
            folder.mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(folder / "0.png")
        (tmp_path / split / "loop").symlink_to(tmp_path)
    train, _ = load_id("imagefolder", DataOptions(channels=3, folder=str(tmp_path)))
    assert train.class_names == ("a", "b\\xe4")
    np.testing.assert_array_equal(train.labels, [0, 1])


def test_class_names_of_both_unicode_forms_are_one(tmp_path):
    """Copied by way of macOS, `Zahnräder` may come as another string that looks the same."""
    composed, apart = "Zahnr\xe4der", "Zahnra\u0308der"
    for place in ("train/A", f"train/{composed}", "test/A", f"test/{apart}", f"odd/{apart}"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / place / "0.png")
    for key in ({}, {composed: "gear"}, {apart: "gear"}):
        options = DataOptions(channels=3, folder=str(tmp_path), classes=tuple(key.items()))
        train, test = load_id("imagefolder", options)
        assert train.class_names[-1] == (key.get(composed) or key.get(apart) or composed)
        np.testing.assert_array_equal(train.labels, test.labels)
        (odd,) = load_shifted(f"odd={tmp_path / 'odd'}", test, options)
        assert odd.images.labels.tolist() == [len(train.class_names) - 1]
    (tmp_path / "train" / apart).mkdir()
    with pytest.raises(UserError, match="two folders are called 'Zahnr\xe4der'"):
        load_id("imagefolder", DataOptions(channels=3, folder=str(tmp_path)))


READ_ALL = """
import os, pathlib, sys
from dream_jax.data import images
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import load_id, load_ood
from dream_jax.errors import UserError

def read():
    for ask, what in ((load_ood, f"x={root}"), (load_id, "imagefolder")):
        try:
            ask(what, DataOptions(channels=3, folder=root))
            print("read")
        except UserError as error:
            print(error)

root = sys.argv[1]
read()  # and import all that it needs, as the administrator
for closed in sys.argv[2:]:
    pathlib.Path(closed).chmod(0)
    sys.stdout.flush()
    if os.fork():
        os.wait()
        pathlib.Path(closed).chmod(0o755)
        continue
    images._threads.cache_clear()  # a fork has none of the threads
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    read()
    sys.exit()
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="only the administrator can become a user without permissions",
)
def test_what_may_not_be_read_is_one_line():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        root = Path(folder)
        for place in ("train/a", "train/b", "train/b/below", "test/a", "test/b"):
            (root / place).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(root / place / "0.png")
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        closed = [f"{root}/{name}" for name in ("train/b/0.png", "train/b/below", "train/b")]
        closed += [f"{root}/train", folder]
        # Python 3.12 warns of forks in a process that has threads.
        quiet = ["-W", "ignore::DeprecationWarning"]
        command = [sys.executable, *quiet, "-c", READ_ALL, folder, *closed]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["read", "read"] and len(lines) == 12 and not done.stderr, done
    for number, line in enumerate(lines[2:]):
        assert closed[number // 2] in line and "Permission denied" in line
