"""Files that are whole or not there."""

import hashlib

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.evaluation.report import style
from dream_jax.files import (
    checksums,
    read_json,
    read_npz,
    write_json,
    write_npz,
    write_text,
    write_whole,
)


def shown(folder) -> list[str]:
    """Names in a folder that do not begin with a dot."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_failed_writing_leaves_nothing_that_looks_whole(tmp_path):
    def write(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a.txt", write)
    assert shown(tmp_path) == []


def test_failed_writing_keeps_what_was_there(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert read_json(tmp_path / "a.json") == {"old": 1}
    write_json(tmp_path / "a.json", {"new": 2})  # what the failure left is no obstacle
    assert read_json(tmp_path / "a.json") == {"new": 2}


def test_texts_and_figures_replace_files_and_are_not_written_into_them(tmp_path):
    """So another run's hard link to a file keeps what it was made for."""

    def draw(path, title: str) -> None:
        figure = style.figure_of(1, 1)
        figure.suptitle(title)
        style.save(figure, path)

    for name, write in (("a.txt", write_text), ("a.png", draw)):
        write(tmp_path / name, "old")
        before = (tmp_path / name).read_bytes()
        (tmp_path / "other").hardlink_to(tmp_path / name)
        write(tmp_path / name, "new")
        assert (tmp_path / "other").read_bytes() == before != (tmp_path / name).read_bytes()
        (tmp_path / "other").unlink()
    assert shown(tmp_path) == ["a.png", "a.txt"]


def test_writing_makes_folders_and_cleans_up(tmp_path):
    write_whole(tmp_path / "x" / "y.txt", lambda path: path.write_text("whole"))
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["y.txt"]


def test_npz_round_trip(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "name": np.array("outliers")}
    write_npz(tmp_path / "a.npz", **arrays)
    assert shown(tmp_path) == ["a.npz"]
    back = read_npz(tmp_path / "a.npz")
    assert back.keys() == arrays.keys()
    for name in arrays:
        assert np.array_equal(back[name], arrays[name])


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "flipped", "text", "pickle"])
def test_damaged_npz_is_named(tmp_path, damage):
    path = tmp_path / "features.npz"
    write_npz(path, a=np.random.default_rng(0).random(5000))
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "pickle":
        np.savez(path, a=np.array([{"a": 1}], object))
    else:
        middle = len(content) // 2
        content[middle] ^= 0xFF
        left = {"empty": b"", "short": content[:middle], "flipped": content, "text": b"no zip"}
        path.write_bytes(left[damage])
    with pytest.raises(UserError) as caught:
        read_npz(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"\xff\xfe\x00"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "stage.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_checksums_are_of_own_files_only(tmp_path):
    (tmp_path / "part" / "class").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for name in ("a.npz", "stage.json", "part/class/0.png", "other/stage.json", "other/b.npz"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / ".partial-a.npz").write_bytes(b"half")
    found = checksums(tmp_path, "stage.json")
    assert list(found) == ["a.npz", "part/class/0.png"]
    assert found["a.npz"] == {"size": 5, "sha256": hashlib.sha256(b"a.npz").hexdigest()}
    assert checksums(tmp_path / "nowhere", "stage.json") == {}
