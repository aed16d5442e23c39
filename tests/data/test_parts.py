"""Image folders: written by threads into parts, whole or not there, and read as one."""

import json
import threading
import time

import numpy as np
import pytest

from dream_jax.data import parts as images
from dream_jax.data.parts import (
    ImageWriter,
    part_folder,
    read_decoded,
    read_image,
    write_image,
    write_metadata,
    written_images,
)
from dream_jax.data.sources import to_bytes
from dream_jax.errors import UserError
from dream_jax.files import remove_partial


def picture(number: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(number).random((5, 5, channels), np.float32)


def write_parts(folder, count: int, parts: int) -> None:
    """Images dealt out to parts, as several processes might have."""
    for process in range(parts):
        part = part_folder(folder, process)
        names = [f"{'ab'[n % 2]}/{n:06d}.png" for n in range(process, count, parts)]
        for name in names:
            write_image(part / name, picture(int(name[2:-4])))
        write_metadata(part, [{"file_name": name, "number": int(name[2:-4])} for name in names])


@pytest.mark.parametrize("hold_bytes", [0, 2**20])
@pytest.mark.parametrize("parts", [1, 3])
def test_parts_are_read_as_one_by_number(tmp_path, parts, hold_bytes):
    write_parts(tmp_path, 7, parts)
    found, rows = read_decoded(tmp_path, 7, 5, 3, hold_bytes)
    assert [row["number"] for row in rows] == list(range(7))
    assert found.shape == (7, 5, 5, 3)
    expected = np.stack([picture(n) for n in range(7)])
    np.testing.assert_allclose(np.asarray(found), expected, atol=0.5 / 255 + 1e-6)
    assert len(written_images(tmp_path)) == parts
    assert sum(map(len, written_images(tmp_path).values())) == 7


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda folder: (part_folder(folder, 1) / "metadata.jsonl").unlink(), "cannot be read"),
        (
            lambda folder: (part_folder(folder, 1) / "metadata.jsonl").write_text('{"file'),
            "metadata.jsonl: cannot be read",
        ),
        (
            lambda folder: write_metadata(part_folder(folder, 1), []),
            r"list 3 images, expected 5 \(number 1 is missing\)",
        ),
        (
            lambda folder: write_image(
                part_folder(folder, 0) / "a/000002.png", np.zeros((6, 5, 3))
            ),
            r"000002.png: has size \(5, 6\), the first image \(5, 5\)",
        ),
        (
            lambda folder: (part_folder(folder, 0) / "a/000002.png").write_bytes(b"\x89PNG"),
            "000002.png: not a readable image .*; delete it to make it again",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_named(tmp_path, damage, line):
    write_parts(tmp_path, 5, 2)
    damage(tmp_path)
    with pytest.raises(UserError, match=line):
        read_decoded(tmp_path, 5, 5, 3, 2**20)


def test_more_or_fewer_images_than_expected(tmp_path):
    write_parts(tmp_path, 5, 2)
    for count in (4, 6):
        with pytest.raises(UserError, match=f"list 5 images, expected {count}"):
            read_decoded(tmp_path, count, 5, 3, 2**20)


def test_hugging_face_finds_each_image_by_its_part_and_name(tmp_path):
    """The convention: a metadata.jsonl above the images, whose file_name is relative to it."""
    write_parts(tmp_path, 7, 3)
    named = set()
    for listing in tmp_path.rglob("metadata.jsonl"):
        rows = [json.loads(line) for line in listing.read_text().splitlines()]
        named |= {listing.parent / row["file_name"] for row in rows}
    assert named == set(tmp_path.rglob("*.png"))


def test_partial_images_are_no_images_and_are_removed(tmp_path):
    write_parts(tmp_path, 4, 2)
    leftovers = [
        part_folder(tmp_path, 0) / "a/.partial-000009.png",
        part_folder(tmp_path, 1) / ".partial-metadata.jsonl",
    ]
    for path in leftovers:
        path.write_bytes(b"\x89PNG")
    assert sum(map(len, written_images(tmp_path).values())) == 4
    remove_partial(tmp_path)
    assert not any(path.exists() for path in leftovers)
    assert len(read_decoded(tmp_path, 4, 5, 3, 2**20)[0]) == 4


def test_writer_writes_all_in_several_threads(tmp_path, monkeypatch):
    threads, write_one = set(), write_image

    def slow(path, image):
        threads.add(threading.get_ident())
        time.sleep(0.01)
        write_one(path, image)

    monkeypatch.setattr(images, "write_image", slow)
    with ImageWriter() as write:
        for number in range(40):
            write(tmp_path / f"{number}.png", picture(number, 1))
    assert len(threads) > 1 and threading.get_ident() not in threads
    for number in range(40):
        expected = to_bytes(picture(number, 1))
        assert np.array_equal(read_image(tmp_path / f"{number}.png", 1), expected)


def test_writer_waits_where_too_many_are_waiting(tmp_path, monkeypatch):
    begun, go_on = [], threading.Event()

    def waits(path, image):
        go_on.wait(10)
        begun.append(path)

    monkeypatch.setattr(images, "write_image", waits)
    monkeypatch.setattr(images, "WAITING", 3)
    given = []

    def give():
        with ImageWriter() as write:
            for number in range(9):
                write(tmp_path / f"{number}.png", picture(0))
                given.append(number)

    giving = threading.Thread(target=give)
    giving.start()
    time.sleep(0.2)
    assert given == [0, 1, 2]  # the fourth call does not return
    go_on.set()
    giving.join(10)
    assert len(begun) == 9


@pytest.mark.parametrize("failing", [2, 39])
def test_writer_raises_what_a_thread_met(tmp_path, monkeypatch, failing):
    def fails(path, image):
        if path.name == f"{failing}.png":
            raise OSError("disk full")

    monkeypatch.setattr(images, "write_image", fails)
    with pytest.raises(OSError, match="disk full"), ImageWriter() as write:
        for number in range(40):
            write(tmp_path / f"{number}.png", picture(number))


def test_failed_writing_leaves_no_image(tmp_path):
    path = tmp_path / "a" / "000001.png"
    with pytest.raises(TypeError):
        write_image(path, np.zeros((4, 4, 5)))  # no PNG has five channels
    assert not path.exists()
