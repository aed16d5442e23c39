"""Image lists: how lines are read, ID, OOD and shifted sets of them, and what is refused."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import base
from dream_jax.checks import check
from dream_jax.data import lists, registry, shifted
from dream_jax.data.image_sets import DataOptions
from dream_jax.errors import DataUnavailable, UserError
from dream_jax.rules import place_parts

# Name → (grey value, label); folders of classes, in an order that is not that of the names.
TRAIN = {"cat/1.png": (10, 0), "bird of prey/2.png": (20, 1), "cat/3.png": (30, 0)}
TEST = {"test/4.png": (40, 1), "test/5.png": (50, 0), "test/6.png": (60, 0)}
OTHERS = {"far/7.png": (70, -1), "far/8 9.png": (80, 3), "far/10.png": (90, -1)}


def written(folder, name: str, entries, end: str = "\n") -> str:
    lines = [f"{image} {label}{end}" for image, (_, label) in entries.items()]
    path = folder / name
    path.write_bytes("".join(lines).encode())
    return str(path)


@pytest.fixture
def data(tmp_path):
    """The options of an ID set of two classes; its lists and one of OOD images lie in a folder."""
    root = tmp_path / "images"
    for name, (value, _) in (TRAIN | TEST | OTHERS).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (value, 0, 0)).save(root / name)
    written(tmp_path, "others.txt", OTHERS)
    return DataOptions(
        channels=3,
        count=1000,
        folder=str(root),
        train_list=written(tmp_path, "train.txt", TRAIN),
        test_list=written(tmp_path, "test.txt", TEST, end="\r\n"),
    )


def values(images) -> list[int]:
    return np.round(255 * np.asarray(images)[:, 0, 0, 0]).astype(int).tolist()


def test_id_set_in_the_order_of_the_lists(data):
    train, test = registry.load_id("imagelist", data)
    assert values(train.images) == [10, 20, 30] and train.labels.tolist() == [0, 1, 0]
    assert values(test.images) == [40, 50, 60] and test.labels.tolist() == [1, 0, 0]
    assert train.class_names == test.class_names == ("cat", "bird of prey")


def test_classes_are_named_and_chosen_by_number_or_folder(data):
    named = dataclasses.replace(data, classes=(("1", "eagle"), ("0", "lion")))
    assert registry.load_id("imagelist", named)[0].class_names == ("lion", "eagle")
    one = dataclasses.replace(data, classes=(("bird of prey", "eagle"),))
    train, test = registry.load_id("imagelist", one)
    assert (values(train.images), train.labels.tolist()) == ([20], [0])
    assert (values(test.images), test.class_names) == ([40], ("eagle",))


def test_classes_without_folders_have_their_numbers_as_names(data, tmp_path):
    flat = {name.replace("/", "_"): entry for name, entry in TRAIN.items()}
    for name, (value, _) in flat.items():
        Image.new("L", (32, 32), value).save(tmp_path / "images" / name)
    options = dataclasses.replace(data, train_list=written(tmp_path, "flat.txt", flat))
    assert registry.load_id("imagelist", options)[0].class_names == ("0", "1")


def test_ood_set_is_the_list_or_a_random_part_in_its_order(data, tmp_path):
    name = f"far={tmp_path}/others.txt@{data.folder}"
    found = registry.load_ood(name, data)
    assert found.name == "far" and values(found.images) == [70, 80, 90] and not len(found.labels)
    some = dataclasses.replace(data, count=2)
    part = values(registry.load_ood(name, some).images)
    assert len(part) == 2 and part == sorted(part)
    assert part == values(registry.load_ood(name, some).images)
    registry.check_available(name, data)


def test_shifted_set_has_the_classes_of_its_labels(data, tmp_path):
    _, test = registry.load_id("imagelist", data)
    name = f"new={tmp_path}/others.txt@{data.folder}"
    (tmp_path / "others.txt").write_text("far/7.png 1\nfar/8 9.png 5\nfar/10.png 0\n")
    shifted.check_shifted(name, data)
    (found,) = shifted.load_shifted(name, test, data)
    assert (found.family, found.strength) == ("new", 0)
    assert values(found.images.images) == [70, 90] and found.images.labels.tolist() == [1, 0]
    one = dataclasses.replace(data, classes=(("1", "eagle"),))
    (found,) = shifted.load_shifted(name, registry.load_id("imagelist", one)[1], one)
    assert values(found.images.images) == [70] and found.images.labels.tolist() == [0]


def test_fingerprint_is_of_content_not_place(data, tmp_path):
    name = f"far={tmp_path}/others.txt@{data.folder}"
    first, own = registry.fingerprint(name, data), registry.fingerprint("imagelist", data)
    moved = tmp_path / "moved"
    (tmp_path / "images").rename(moved)
    other = dataclasses.replace(data, folder=str(moved))
    assert registry.fingerprint(f"far={tmp_path}/others.txt@{moved}", other) == first
    assert registry.fingerprint("imagelist", other) == own
    (tmp_path / "others.txt").write_text("far/7.png -1\nfar/8 9.png -1\nfar/10.png 2\n")
    assert registry.fingerprint(f"far={tmp_path}/others.txt@{moved}", other) != first
    Image.new("L", (32, 32), 1).save(moved / "cat/1.png")
    assert registry.fingerprint("imagelist", other) != own


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no lines"),
        (b"\n \n", "has no lines"),
        (b"a.png 0\nb.png\n", r"line 2 .*is 'b.png'; it must be 'path label'"),
        (b"a.png zero\n", "line 1 .*'path label'"),
        (b"a.png 1.0\n", "line 1 .*'path label'"),
        (b"a.png -2\n", "at least -1"),
        (b"a.png 99999999999\n", "'path label'"),
        (b"-1\n", "'path label'"),
        (b"/etc/a.png 0\n", "must be relative"),
        (b"b/../../a.png 0\n", "must be relative"),
        (b"\xff\xfe 0\n", "cannot be read"),
    ],
)
def test_bad_lists_are_refused(tmp_path, content, said):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        lists.read_list(str(path))
    assert "\n" not in str(caught.value) and "list.txt" in str(caught.value)


def test_a_list_is_read_again_when_it_changed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\ufeffa.png 0\n\nb c.png\t-1", "utf-8")
    assert lists.read_list(str(path)).names == ("a.png", "b c.png")
    path.write_text("d.png 7\n")
    assert lists.read_list(str(path)).labels.tolist() == [7]


@pytest.mark.parametrize(
    ("part", "content", "said"),
    [
        ("train_list", "cat/1.png 0\ncat/3.png -1\n", "cat/3.png has the label -1"),
        ("test_list", "test/4.png 1\ntest/5.png 7\n", "has the label 7; those of data.train_list"),
        ("test_list", "test/4.png 1\n", "has no image of class 'cat', label 0"),
        ("test_list", "cat/1.png 0\ntest/4.png 1\n", "both have cat/1.png"),
        ("train_list", "cat/1.png 0\ncat/1.png 1\n", "the labels 0 and 1"),
        ("test_list", "test/4.png 1\ntest/none.png 0\n", "none.png: not a readable image"),
    ],
)
def test_bad_id_lists_are_refused(data, tmp_path, part, content, said):
    (tmp_path / "bad.txt").write_text(content)
    options = dataclasses.replace(data, **{part: str(tmp_path / "bad.txt")})
    with pytest.raises(UserError, match=said) as caught:
        registry.load_id("imagelist", options)
    assert "\n" not in str(caught.value)


def test_missing_parts_are_named(data, tmp_path):
    with pytest.raises(DataUnavailable, match=r"no image list .*none\.txt"):
        registry.load_ood(f"far={tmp_path}/none.txt@{data.folder}", data)
    with pytest.raises(DataUnavailable, match=r"no folder .*nowhere, which has the images"):
        registry.load_ood(f"far={tmp_path}/others.txt@{tmp_path}/nowhere", data)
    (tmp_path / "images" / "far" / "7.png").unlink()
    skipping = dataclasses.replace(data, unreadable="skip")
    assert values(
        registry.load_ood(f"far={tmp_path}/others.txt@{data.folder}", skipping).images
    ) == [80, 90]


def configured(data, tmp_path, **more) -> ConfigDict:
    config = base.get_config()
    config.name = "lists"
    config.data.update(
        id="imagelist",
        folder=data.folder,
        train_list=data.train_list,
        test_list=data.test_list,
        near=(f"tin={tmp_path}/others.txt@{data.folder}",),
    )
    config.data.update(more)
    return config


def test_lists_of_one_folder_are_sets_of_their_own(data, tmp_path):
    """Images are compared, as all lists of a benchmark are of one folder."""
    config = configured(data, tmp_path)
    assert check(config).data.train_list == data.train_list
    overlap = written(tmp_path, "overlap.txt", {"test/4.png": (0, -1)})
    for bad, said in (
        ({"far": (f"far={overlap}@{data.folder}",)}, "data.id has the images"),
        ({"far": (f"far={data.folder}/test",)}, "data.id has the images"),
        ({"far": (f"far={tmp_path}/others.txt@{data.folder}/.",)}, "share one set"),
        ({"auxiliary": (f"far={data.folder}/far",)}, "share one set"),
        (
            {"near": tuple(f"{n}={tmp_path}/others.txt@{data.folder}" for n in "ab")},
            "which are one list",
        ),
        ({"train_list": ""}, "config.data.train_list is ''; with data.id = imagelist"),
        ({"folder": ""}, "config.data.folder is ''; with data.id = imagelist"),
        ({"id": "cifar10", "folder": "", "test_list": ""}, "config.data.train_list is"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            check(configured(data, tmp_path, **bad))
        assert "\n" not in str(caught.value)


def test_home_folder_in_both_parts(monkeypatch, data, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = configured(data, tmp_path, near=("tin=~/others.txt@~/images",))
    assert check(config).data.near == (f"tin={tmp_path}/others.txt@{tmp_path}/images",)


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        ("a/list.txt@b", ("a/list.txt", "b")),
        ("a/list.txt", ("", "a/list.txt")),
        ("a@b", ("", "a@b")),
        ("list.txt@", ("", "list.txt@")),
        (".txt@b", ("", ".txt@b")),
    ],
)
def test_places_are_folders_or_lists(place, parts):
    assert place_parts(place) == parts
