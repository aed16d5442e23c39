"""Which pictures are decoded, and that an interruption changes none of them."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest
from PIL import Image

from dream_jax.data.images import Images
from dream_jax.decoding.pictures import Order, decode_pictures, plan_pictures
from dream_jax.decoding.round_trips import write_round_trips, write_shares
from dream_jax.errors import UserError
from dream_jax.files import PARTIAL
from dream_jax.generator.interface import Sampling
from dream_jax.keys import stage_key

NAMES = ("dog", "cat")
WORDS = ("a", "the", "dog", "cat", "house")  # a token each
SAMPLING = Sampling("ddim", steps=1, guidance=1.0, batch_size=3, vae_batch_size=3)
SHAPE = (4, 4, 1)


class PlainGenerator:
    """A `Generator` whose pictures have one shade, which tells the key; it notes its calls."""

    table = np.eye(len(WORDS), dtype=np.float32)

    def __init__(self):
        self.ids, self.embeddings, self.keys, self.batches = [], [], [], []

    def name_ids(self, text: str) -> list[int]:
        return [WORDS.index(word) for word in text.split()]

    def prompt_ids(self, ids) -> np.ndarray:
        return np.int32([*ids, *[-1] * (4 - len(ids))][:4])

    def decode(self, ids, embeddings, keys, sampling, image_shape=None):
        self.ids.extend(ids.tolist())
        self.embeddings.extend([] if embeddings is None else embeddings.tolist())
        self.keys.extend(jax.random.key_data(keys).tolist())
        for start in range(0, len(ids), sampling.batch_size):
            shades = jax.vmap(jax.random.uniform)(keys[start : start + sampling.batch_size])
            self.batches.append(len(shades))
            yield np.broadcast_to(np.asarray(shades)[:, None, None, None], (len(shades), *SHAPE))

    def round_trip(self, images, batch_size, progress, done=0):
        for start in range(done, len(images), batch_size):
            yield 255 - images.pixels(slice(start, start + batch_size))

    def release(self) -> None:
        pass


def embeddings(count: int = 7) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, count, 5)).astype(np.float32)


def order(kind: str, count: int, **changes) -> Order:
    vectors = None if kind.startswith("by_name") else embeddings()
    return dataclasses.replace(Order(kind, count, NAMES, NAMES, 0, vectors), **changes)


def pixels(folder) -> dict[str, bytes]:
    """The files' bytes by class and number, whichever part they are in."""
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in folder.glob("part-*/*/*.png")}


def listed(part) -> list[dict]:
    return [json.loads(line) for line in (part / "metadata.jsonl").read_text().splitlines()]


def test_classes_prompts_and_embeddings_take_turns(decoding):
    pictures = plan_pictures(order("outliers", 400), decoding)
    assert [p.label for p in pictures] == [0, 1] * 200
    assert [p.prompt for p in pictures[:6]] == ["a {name}"] * 2 + ["the {name}"] * 2 + [
        "a {name}"
    ] * 2
    counts = np.bincount([p.embedding for p in pictures], minlength=7)
    assert counts.min() > 30 and len(counts) == 7
    assert pictures[:9] == plan_pictures(order("outliers", 9), decoding)


def test_other_kinds_say_the_prompt_of_the_classes(decoding):
    inliers = plan_pictures(order("inliers", 40), decoding)
    assert {p.prompt for p in inliers} == {"{name}"}
    outliers = plan_pictures(order("outliers", 40), decoding)
    assert [p.embedding for p in inliers] != [p.embedding for p in outliers]
    assert {p.embedding for p in plan_pictures(order("by_name", 4), decoding)} == {None}


def test_what_is_said_after_a_name_follows_it_in_the_prompt(decoding):
    decoding = dataclasses.replace(
        decoding,
        prompts=("a {name} at home",),
        id_prompt="the {name}",
        name_suffixes={"kite": "bird"},
    )
    names = ("kite", "zebra")
    outliers = plan_pictures(order("outliers", 4, class_names=names), decoding)
    assert [p.prompt for p in outliers] == ["a {name} bird at home", "a {name} at home"] * 2
    by_name = plan_pictures(order("by_name", 2, class_names=names), decoding)
    assert [p.prompt.format(name=names[p.label]) for p in by_name] == ["the kite bird", "the zebra"]
    assert [p.file_name for p in by_name] == ["kite/000000.png", "zebra/000001.png"]


def test_class_names_become_names_of_folders(decoding):
    names = ("../dog", "a: b/c")
    pictures = plan_pictures(order("by_name", 2, class_names=names), decoding)
    assert [p.file_name for p in pictures] == ["_dog/000000.png", "a_ b_c/000001.png"]


def test_files_and_their_list(decoding, tmp_path):
    wanted, generator = order("outliers", 5), PlainGenerator()
    pictures = plan_pictures(wanted, decoding)
    decode_pictures(wanted, pictures, generator, SAMPLING, SHAPE, tmp_path)
    assert generator.batches == [3, 2]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(stage_key(0, "decode", "outliers"), np.arange(5))
    assert generator.keys == jax.random.key_data(keys).tolist()
    for picture, key in zip(pictures, keys, strict=True):
        with Image.open(tmp_path / "part-00000" / picture.file_name) as image:
            shade = np.round(255 * np.asarray(jax.random.uniform(key)))
            np.testing.assert_array_equal(np.asarray(image), np.full((4, 4), shade))
    assert listed(tmp_path / "part-00000")[3] == {
        "file_name": "cat/000003.png",
        "class": "cat",
        "label": 1,
        "embedding": pictures[3].embedding,
        "seed": 0,
        "prompt": "the {name}",
    }


def test_embeddings_take_the_place_of_the_words(decoding, tmp_path):
    wanted, generator = order("outliers", 4, words=("house", "cat")), PlainGenerator()
    pictures = plan_pictures(wanted, decoding)
    decode_pictures(wanted, pictures, generator, SAMPLING, SHAPE, tmp_path)
    assert generator.ids == [[0, 5, -1, -1]] * 2 + [[1, 5, -1, -1]] * 2  # "a @", "the @"
    expected = [wanted.embeddings[p.label, p.embedding].tolist() for p in pictures]
    assert generator.embeddings == expected


def test_names_are_said_as_they_are(decoding, tmp_path):
    wanted, generator = order("by_name", 2), PlainGenerator()
    pictures = plan_pictures(wanted, decoding)
    decode_pictures(wanted, pictures, generator, SAMPLING, SHAPE, tmp_path)
    assert generator.ids == [[2, -1, -1, -1], [3, -1, -1, -1]] and not generator.embeddings


def test_an_interrupted_run_decodes_what_is_missing(decoding, tmp_path):
    wanted = order("outliers", 7)
    pictures = plan_pictures(wanted, decoding)
    decode_pictures(wanted, pictures, PlainGenerator(), SAMPLING, SHAPE, tmp_path / "whole")
    decode_pictures(wanted, pictures, PlainGenerator(), SAMPLING, SHAPE, tmp_path / "cut")
    part = tmp_path / "cut" / "part-00000"
    (part / pictures[2].file_name).unlink()
    (part / pictures[5].file_name).rename(part / "cat" / f"{PARTIAL}000005.png")
    (part / "metadata.jsonl").unlink()

    generator = PlainGenerator()
    decode_pictures(wanted, pictures, generator, SAMPLING, SHAPE, tmp_path / "cut")
    assert generator.batches == [2]
    assert pixels(tmp_path / "cut") == pixels(tmp_path / "whole")
    assert not list(part.rglob(f"{PARTIAL}*"))
    assert listed(part) == listed(tmp_path / "whole" / "part-00000")


def test_nothing_is_decoded_twice_and_all_parts_are_listed(decoding, tmp_path):
    """Parts of an earlier run with more processes stay as they are."""
    wanted = order("by_name", 6)
    pictures = plan_pictures(wanted, decoding)
    decode_pictures(wanted, pictures, PlainGenerator(), SAMPLING, SHAPE, tmp_path)
    other = tmp_path / "part-00001"
    for picture in pictures[3:]:
        (other / picture.file_name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "part-00000" / picture.file_name).rename(other / picture.file_name)

    generator = PlainGenerator()
    decode_pictures(wanted, pictures, generator, SAMPLING, SHAPE, tmp_path)
    assert not generator.batches and len(pixels(tmp_path)) == 6
    names = [
        [entry["file_name"] for entry in listed(tmp_path / p)] for p in ("part-00000", "part-00001")
    ]
    assert names == [[p.file_name for p in pictures[:3]], [p.file_name for p in pictures[3:]]]


def test_a_prompt_without_the_name_ends_the_run_before_any_picture(decoding, tmp_path):
    decoding = dataclasses.replace(decoding, prompts=("the the the the {name}",))
    wanted, generator = order("outliers", 2), PlainGenerator()
    pictures = plan_pictures(wanted, decoding)
    with pytest.raises(UserError, match=r"^decoding\.prompts: .*'dog'"):
        decode_pictures(wanted, pictures, generator, SAMPLING, SHAPE, tmp_path)
    assert not pixels(tmp_path)


def test_round_trips_are_written_once(tmp_path):
    images = Images.of(np.arange(5 * 16, dtype=np.uint8).reshape(5, 4, 4, 1))
    path = tmp_path / "images.npy"
    write_round_trips(path, PlainGenerator(), images, 2, "test")
    np.testing.assert_array_equal(np.load(path), 255 - images.pixels(slice(None)))
    written = path.stat().st_mtime_ns
    write_round_trips(path, PlainGenerator(), images, 2, "test")
    assert path.stat().st_mtime_ns == written
    assert [p.name for p in tmp_path.iterdir()] == ["images.npy"]


TRIPS = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 1), np.uint8)


def trips(path, stop_after: int | None = None) -> list[int]:
    """Writes `TRIPS` in batches of 2, stopped after some; returns where the batches began."""
    begun = []

    def rest(done):
        for start in range(done, len(TRIPS), 2):
            if len(begun) == stop_after:
                raise KeyboardInterrupt
            begun.append(start)
            yield TRIPS[start : start + 2]

    try:
        write_shares(path, TRIPS.shape, rest)
    except KeyboardInterrupt:
        assert stop_after is not None and not path.exists()
    else:
        assert np.array_equal(np.load(path), TRIPS)
        assert [p.name for p in path.parent.iterdir()] == [path.name]
    return begun


def test_interrupted_round_trips_continue_with_the_batch_that_was_not_finished(tmp_path):
    path = tmp_path / "images.npy"
    assert trips(path, stop_after=0) == []
    assert trips(path, stop_after=2) == [0, 2]
    assert trips(path, stop_after=1) == [4]
    assert trips(path) == [6, 8, 10]


def overwrite(path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


UNFINISHED = {  # a damage to what an interrupted run left → whether it is continued
    "nothing": (lambda folder: None, True),
    "a batch that was not noted": (lambda f: overwrite(f / "images.npy", -20 % 304, b"x"), True),
    "a byte of a batch": (lambda folder: overwrite(folder / "images.npy", 130, b"?!"), False),
    "cut short": (lambda folder: os.truncate(folder / "images.npy", 150), False),
    "no file": (lambda folder: (folder / "images.npy").unlink(), False),
    "no note": (lambda folder: (folder / "process-0.json").unlink(), False),
    "an empty note": (lambda folder: (folder / "process-0.json").write_text("{}"), False),
    "a list as a note": (lambda folder: (folder / "process-0.json").write_text("[]"), False),
    "no number": (lambda f: (f / "process-0.json").write_text('{"rows": "x", "sha256": 1}'), False),
    "other processes": (
        lambda f: (f / "begun.json").write_text('{"shape": [11, 4, 4, 1], "processes": 2}'),
        False,
    ),
    "another shape": (lambda f: (f / "begun.json").write_text('{"shape": [1]}'), False),
    "no beginning": (lambda folder: (folder / "begun.json").unlink(), False),
}


@pytest.mark.parametrize("damage", UNFINISHED)
def test_unfinished_round_trips_that_are_damaged_are_begun_anew(tmp_path, damage):
    path = tmp_path / "images.npy"
    trips(path, stop_after=3)
    spoil, continued = UNFINISHED[damage]
    spoil(tmp_path / "unfinished-images")
    assert trips(path)[0] == (6 if continued else 0)


def test_what_a_kill_left_of_whole_round_trips_is_deleted(tmp_path):
    path, images = tmp_path / "images.npy", Images.of(TRIPS)
    trips(path, stop_after=3)
    np.save(path, TRIPS)  # as if the kill had come after the file got its name
    write_round_trips(path, PlainGenerator(), images, 2, "test")
    assert np.array_equal(np.load(path), TRIPS)
    assert [p.name for p in tmp_path.iterdir()] == ["images.npy"]
