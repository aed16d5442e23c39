"""Fingerprints of what a run reads: the same wherever it lies, another when it is another."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream_jax import fingerprint as fingerprints
from dream_jax.checks import check
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import fingerprint as set_fingerprint
from dream_jax.fingerprint import of_files
from dream_jax.origins import ORIGINS, counted, fingerprint
from dream_jax.settings import Settings, field_types


def image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "data"
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            for index in range(3):
                image(root / split / name / f"{index}.png", 10 * number + index)
    return root


def folder(path) -> DataOptions:
    return DataOptions(folder=str(path))


def changed(root: Path, before: dict) -> set[str]:
    now = set_fingerprint("imagefolder", folder(root))
    return {entry for entry in before if before[entry] != now[entry]}


def test_a_folder_is_known_by_its_content_wherever_it_lies(root, tmp_path, monkeypatch):
    before = set_fingerprint("imagefolder", folder(root))
    assert before["classes"] == ["cat", "dog"] and before["test files"] == 6
    assert not changed(root, before)
    assert set_fingerprint("imagefolder", folder(f"{root}/")) == before
    monkeypatch.chdir(tmp_path)
    assert set_fingerprint("imagefolder", folder("data")) == before
    shutil.copytree(root, tmp_path / "moved")
    assert not changed(tmp_path / "moved", before)
    (root / "notes.txt").write_text("no image")
    assert not changed(root, before)


def test_what_changed_in_a_folder_shows(root):
    before = set_fingerprint("imagefolder", folder(root))
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / "9.png")
    assert changed(root, before) == {"training contents"}
    before = set_fingerprint("imagefolder", folder(root))
    image(root / "test" / "dog" / "3.png", 7)
    assert changed(root, before) == {"test files", "test bytes", "test contents"}
    before = set_fingerprint("imagefolder", folder(root))
    path = root / "train" / "dog" / "1.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)  # of the same size
    assert changed(root, before) == {"training contents"}
    before = set_fingerprint("imagefolder", folder(root))
    for split in ("train", "test"):
        (root / split / "cat").rename(root / split / "tiger")
    assert "classes" in changed(root, before)


def test_only_chosen_classes_count(root):
    chosen = replace(folder(root), classes=(("cat", "pussycat"),))
    before = set_fingerprint("imagefolder", chosen)
    shutil.rmtree(root / "train" / "dog")
    assert set_fingerprint("imagefolder", chosen) == before
    assert before["classes"] == ["pussycat"]


@pytest.mark.parametrize("count", [3, 40])
def test_contents_are_read_within_a_budget(tmp_path, monkeypatch, count):
    """Three files are read at both ends; of forty, names and sizes count alone."""
    monkeypatch.setattr(fingerprints, "BUDGET", 3 * fingerprints.LEAST_SHARE)
    names = [f"{index}.bin" for index in range(count)]
    for name in names:
        (tmp_path / name).write_bytes(bytes(3 * fingerprints.LEAST_SHARE))
    before = of_files(tmp_path, names)
    assert before["files"] == count
    assert before["bytes"] == count * 3 * fingerprints.LEAST_SHARE
    seen = []
    for place in (10, 3 * fingerprints.LEAST_SHARE // 2, -10):
        content = bytearray(3 * fingerprints.LEAST_SHARE)
        content[place] = 1
        (tmp_path / names[1]).write_bytes(content)
        seen.append(of_files(tmp_path, names) != before)
    assert seen == ([True, False, True] if count == 3 else [False] * 3)
    (tmp_path / names[1]).write_bytes(b"x")
    assert of_files(tmp_path, names) != before


@pytest.fixture
def settings(toy) -> Settings:
    return check(toy.config())


def test_every_origin_is_a_field(settings):
    assert ORIGINS.keys() <= field_types().keys()
    for field in ORIGINS:
        assert isinstance(fingerprint(settings, field), dict)


def test_the_generator_is_known_by_its_parts(settings, toy, tmp_path):
    before = fingerprint(settings, "generator.path")
    assert before["files"] >= 8
    other = tmp_path / "moved"
    shutil.copytree(toy.generator, other)
    (other / "README.md").write_text("no part")
    moved = replace(settings, generator=replace(settings.generator, path=f"{other}/"))
    assert fingerprint(moved, "generator.path") == before
    weights = other / "unet" / "diffusion_flax_model.msgpack"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    assert fingerprint(moved, "generator.path") != before


def test_sets_in_folders_are_known_by_title_and_content(settings, root):
    def of(*names: str) -> tuple:
        data = replace(settings.data, ood=names, auxiliary=())
        changed = replace(settings, data=data)
        return counted(changed, "data.ood"), fingerprint(changed, "data.ood")

    titles, found = of("letters", f"broken={root / 'train'}", f"lost={root / 'nowhere'}")
    assert titles == ["letters", "broken", "lost"]
    assert set(found) == {"broken: files", "broken: bytes", "broken: contents"}
    assert of("letters", f"broken={root}/train/", "lost=elsewhere") == (titles, found)
    image(root / "train" / "cat" / "7.png", 3)
    assert of("letters", f"broken={root / 'train'}")[1] != found


def test_a_start_and_a_record_are_known_by_their_files(settings, tmp_path):
    for content in ("1", "2"):
        for place in ("a", "b"):
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / place / "tuning.json").write_text(content)
    one, other = (
        replace(
            settings,
            init_from=str(tmp_path / place),
            tuning=replace(settings.tuning, record=str(tmp_path / place / "tuning.json")),
        )
        for place in ("a", "b")
    )
    for field in ("init_from", "tuning.record"):
        assert counted(one, field) == counted(other, field)
        assert fingerprint(one, field) == fingerprint(other, field) != {}
    (tmp_path / "b" / "tuning.json").write_text("3")
    for field in ("init_from", "tuning.record"):
        assert fingerprint(one, field) != fingerprint(other, field)
    assert counted(replace(settings, init_from="cross_entropy"), "init_from") == "cross_entropy"


def test_prepared_sets_are_known_by_version_and_files(tmp_path):
    def prepare(version: str, size: int) -> DataOptions:
        place = tmp_path / "some_set" / version
        place.mkdir(parents=True, exist_ok=True)
        (place / "dataset_info.json").write_text("{}")
        (place / "some_set-test.array_record-00000-of-00001").write_bytes(bytes(size))
        return DataOptions(tfds_dir=str(tmp_path))

    first = set_fingerprint("some_set", prepare("1.0.0", 100))
    assert first["version"] == "1.0.0" and first["files"] == 2
    assert set_fingerprint("some_set", prepare("1.0.0", 101)) != first
    assert set_fingerprint("some_set", prepare("1.0.1", 100))["version"] == "1.0.1"
