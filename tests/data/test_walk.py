"""Folders are walked once, links and pipes and all; what is left out is counted and named."""

import os

import numpy as np
from PIL import Image

from dream_jax.data.folders import image_files
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import load_id, load_ood


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
