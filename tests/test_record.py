"""Records of stages: what was made with which settings, and of which files it is."""

import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.files import read_json
from dream_jax.record import FORMAT, Record
from dream_jax.repair import damaged_files, repair
from dream_jax.stage import Stage
from dream_jax.training.devices import MappedFunction

SETTINGS = {"seed": 0, "sampling.k": 50, "sampling.prompts": ("a {name}",)}


def nothing(work) -> None:
    """Makes nothing."""


def record(root: Path, settings: dict[str, Any], name: str = "sample", **more: Any) -> Record:
    upstream, origins = more.pop("upstream", {}), more.pop("origins", {})
    return Record(Stage(name, name, name, (), nothing, **more), root, settings, origins, upstream)


def test_a_stage_is_done_only_after_it_ran_through(tmp_path):
    stage = record(tmp_path, SETTINGS)
    assert not stage.done
    with pytest.raises(KeyboardInterrupt), stage.running():
        raise KeyboardInterrupt
    assert not stage.done
    stage.refuse_changes()  # may be continued
    with stage.running():
        assert not stage.done
        (stage.folder / "a.npz").write_bytes(b"content")
    again = record(tmp_path, SETTINGS)
    assert again.done
    again.refuse_changes()
    content = again.read()
    assert content["format"] == FORMAT and content["stage"] == "sample"
    assert content["settings"] == json.loads(json.dumps(SETTINGS))
    assert content["seconds"] >= 0 and content["peak_memory_mb"] > 1
    assert content["files"] == {
        "a.npz": {"size": 7, "sha256": hashlib.sha256(b"content").hexdigest()}
    }
    again.clear()
    assert not again.done and not any((tmp_path / "sample").iterdir())


def test_sizes_of_batches_that_were_found_are_recorded(tmp_path):
    found, given = record(tmp_path, {}, "found"), record(tmp_path, {}, "given")
    rows = {"x": np.arange(5.0)}
    with found.running():
        MappedFunction(lambda _, batch: batch["x"], {}, 0)(rows)
    with given.running():
        MappedFunction(lambda _, batch: batch["x"], {}, 2)(rows)
    devices = jax.local_device_count()
    assert found.read()["batch_sizes"] == {"eval_batch_size": [max(8, devices)]}
    assert "batch_sizes" not in given.read()
    assert found.settings == given.settings


@pytest.mark.skipif(sys.platform != "linux", reason="only the peak of the process is known")
def test_the_peak_of_memory_is_that_of_the_stage_alone(tmp_path):
    large, small = record(tmp_path, {}, "large"), record(tmp_path, {}, "small")
    with large.running():
        np.ones(2**25)  # 256 MiB
    with small.running():
        pass
    first, second = large.read(), small.read()
    assert first["peak_memory_mb"] - first["start_memory_mb"] > 200
    assert second["peak_memory_mb"] - second["start_memory_mb"] < 50
    assert second["peak_memory_mb"] < first["peak_memory_mb"] - 200


def test_clearing_leaves_the_stages_in_the_folder(tmp_path):
    inner = record(tmp_path, {}, "sample/inliers")
    with inner.running():
        pass
    outer = record(tmp_path, SETTINGS)
    with outer.running():
        (outer.folder / "classes").mkdir()
        (outer.folder / "classes" / "0.npz").write_bytes(b"x")
    assert list(outer.read()["files"]) == ["classes/0.npz"]
    outer.clear()
    assert inner.done and [path.name for path in outer.folder.iterdir()] == ["inliers"]


CHANGES = [
    (SETTINGS | {"seed": 1}, ("seed=0", "has 1")),
    (SETTINGS | {"sampling.k": 60}, ("sampling.k=50", "has 60")),
    (SETTINGS | {"sampling.prompts": ("b",)}, ("sampling.prompts=['a {name}']", "has ['b']")),
    ({"seed": 0, "sampling.k": 50}, ("sampling.prompts=", "has 'unset'")),
    (SETTINGS | {"rounds": 3}, ("rounds='unset'", "has 3")),
]


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(("changed", "parts"), CHANGES)
def test_a_changed_setting_is_named(tmp_path, changed, parts, done):
    try:
        with record(tmp_path, SETTINGS).running():
            if not done:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    with pytest.raises(UserError) as caught:
        record(tmp_path, changed).refuse_changes()
    message = str(caught.value)
    for part in (*parts, str(tmp_path), "stage sample was made with", "--overwrite"):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(("changed", "parts"), CHANGES)
def test_a_changed_setting_upstream_is_named(tmp_path, changed, parts):
    def decode(settings: dict[str, Any]) -> Record:
        source = record(tmp_path, settings)
        return record(tmp_path, {"steps": 2}, "decode", upstream={"sample": source})

    with decode(SETTINGS).running():
        pass
    decode(SETTINGS).refuse_changes()
    with pytest.raises(UserError) as caught:
        decode(changed).refuse_changes()
    for part in (*parts, "stage decode was made from stage sample with"):
        assert part in str(caught.value)


def test_a_derived_stage_is_outdated_instead_of_refused(tmp_path):
    source = record(tmp_path, SETTINGS)
    with source.running():
        (source.folder / "a.npz").write_bytes(b"1")

    def scores(settings: dict[str, Any], products: tuple[str, ...] = ("m.json",)) -> Record:
        upstream = {"sample": record(tmp_path, SETTINGS)}
        more = {"derived": True, "products": products, "upstream": upstream}
        return record(tmp_path, settings, "scores", **more)

    def make() -> None:
        with scores({"rows": 1}).running():
            (tmp_path / "m.json").write_text("{}")

    make()
    assert scores({"rows": 1}).done
    changed = scores({"rows": 2})
    changed.refuse_changes()
    assert changed.outdated and not changed.done

    with source.running():  # made again, and with another result
        (source.folder / "a.npz").write_bytes(b"2")
    assert scores({"rows": 1}).outdated
    make()
    assert scores({"rows": 1}).done
    (tmp_path / "m.json").unlink()
    assert damaged_files(scores({"rows": 1}), thorough=False) == ["../m.json"]
    make()
    scores({"rows": 1}).clear()
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("content", ['{"settings"', "", "{}", "[]", "3", "null"])
def test_a_damaged_record_is_named(tmp_path, content):
    stage = record(tmp_path, SETTINGS)
    stage.folder.mkdir()
    (stage.folder / "stage.json").write_text(content)
    with pytest.raises(
        UserError, match=r"stage\.json.* delete the folder .*sample to make it"
    ) as e:
        stage.refuse_changes()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("change", ["seed", "seal", "done"])
def test_damage_inside_of_a_record_is_found(tmp_path, change):
    with record(tmp_path, SETTINGS).running():
        pass
    path = tmp_path / "sample" / "stage.json"
    lines = [line for line in path.read_text().splitlines() if f'"{change}"' not in line]
    path.write_text("\n".join(lines).replace(",\n}", "\n}"))
    with pytest.raises(UserError, match=r"stage\.json.* delete the folder"):
        record(tmp_path, SETTINGS).refuse_changes()


def test_a_derived_stage_with_a_damaged_record_is_made_anew(tmp_path):
    def scores() -> Record:
        return record(tmp_path, SETTINGS, derived=True)

    with scores().running():
        pass
    (tmp_path / "sample" / "stage.json").write_text("{}")
    scores().refuse_changes()
    assert not scores().done and not scores().digest
    with scores().running():
        pass
    assert scores().done


def test_files_without_a_record_are_refused(tmp_path):
    (tmp_path / "sample").mkdir()
    record(tmp_path, SETTINGS).refuse_changes()
    (tmp_path / "sample" / ".partial-a.npz").write_bytes(b"")
    record(tmp_path, SETTINGS).refuse_changes()
    (tmp_path / "sample" / "a.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.npz: lies there without .*stage\.json"):
        record(tmp_path, SETTINGS).refuse_changes()


ORIGIN = {"classes": ["cat", "dog"], "training files": 36, "training contents": "a" * 64}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ["cat", "hound"]}, "classes 'dog'; now it has 'hound'"),
        ({"classes": ["cat", "dog", "owl"]}, "classes fewer; now it has 'owl'"),
        ({"classes": ["dog", "cat"]}, "classes ['cat', 'dog']; now it has ['dog', 'cat']"),
        ({"training files": 37}, "training files 36; now it has 37"),
        (
            {"training contents": "b" * 64},
            "training contents aaaaaaaaaaaa...; now it has bbbbbb",
        ),
    ],
)
@pytest.mark.parametrize("upstream", [False, True])
def test_other_data_are_refused_and_what_changed_is_named(tmp_path, change, words, upstream):
    def make(origin: dict[str, Any]) -> Record:
        learn = record(tmp_path, {}, "learn", origins={"data.id": origin})
        if not upstream:
            return learn
        return record(tmp_path, {}, "decode", upstream={"learn": learn})

    with make(ORIGIN).running():
        pass
    make(ORIGIN).refuse_changes()
    make({}).refuse_changes()  # the data are not here any more
    start = "from stage learn when" if upstream else "stage learn was made when"
    with pytest.raises(UserError, match=re.escape(f"{start} data.id had {words}")):
        make(ORIGIN | change).refuse_changes()


def test_a_stage_made_from_other_files_is_refused(tmp_path):
    def learn() -> Record:
        return record(tmp_path, {}, "learn")

    def sample() -> Record:
        return record(tmp_path, {}, upstream={"learn": learn()})

    def make(content: str) -> None:
        with learn().running():
            (tmp_path / "learn" / "features.npz").write_text(content)
            (tmp_path / "learn" / "checkpoints").mkdir(exist_ok=True)
            (tmp_path / "learn" / "checkpoints" / "time").write_text(str(time.perf_counter()))

    make("1")
    with sample().running():
        pass
    make("1")
    sample().refuse_changes()  # the times in checkpoints do not count
    make("2")
    with pytest.raises(UserError, match="stage sample was made from other files of stage learn"):
        sample().refuse_changes()


def test_what_is_damaged_is_found_and_deleted_and_nothing_else(tmp_path):
    def learn() -> Record:
        return record(tmp_path, {}, open=lambda run: None)

    folder = tmp_path / "sample"
    with learn().running():
        for name in ("a.npz", "b.npz", "c/d.png", "checkpoints/5/x/y", "checkpoints/9/x"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"content")
    assert damaged_files(learn(), thorough=True) == []
    (folder / "b.npz").write_bytes(b"changed")
    (folder / "c" / "d.png").unlink()
    (folder / "c" / "d.png").mkdir()
    (folder / "checkpoints" / "5" / "x" / "y").write_bytes(b"")
    assert damaged_files(learn(), thorough=False) == ["c/d.png"]
    damaged = damaged_files(learn(), thorough=True)
    assert damaged == ["b.npz", "c/d.png", "checkpoints/5/x/y"]
    learn().reopen()
    repair(learn(), damaged)
    assert not learn().done
    learn().refuse_changes()  # it is continued
    left = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert left == ["a.npz", "checkpoints/9/x", "stage.json"]


@pytest.mark.parametrize("content", [{"settings": {}, "done": True}, {"format": 1}])
def test_a_record_of_another_version_is_refused(tmp_path, content):
    stage = record(tmp_path, SETTINGS)
    stage.folder.mkdir()
    (stage.folder / "stage.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="another version of this program") as caught:
        stage.refuse_changes()
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_seconds_add_up_over_interruptions_and_start_anew_after_the_end(tmp_path):
    stage = record(tmp_path, SETTINGS)
    with pytest.raises(KeyboardInterrupt), stage.running():
        time.sleep(0.05)
        raise KeyboardInterrupt
    assert not stage.done and stage.read()["seconds"] >= 0.05
    with stage.running():
        pass
    assert stage.done and stage.read()["seconds"] >= 0.05
    with stage.running():
        pass
    assert stage.read()["seconds"] < 0.05
    assert read_json(stage.folder / "stage.json")["done"]
