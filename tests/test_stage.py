"""Records of stages: what was made with which settings, and of which files it is."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from dream_jax.errors import UserError
from dream_jax.files import read_json
from dream_jax.stage import FORMAT, Record, Stage

SETTINGS = {"seed": 0, "sampling.k": 50, "sampling.prompts": ("a {name}",)}


def nothing(work) -> None:
    """Makes nothing."""


def record(root: Path, settings: dict[str, Any], name: str = "sample", **more: Any) -> Record:
    upstream = more.pop("upstream", {})
    return Record(Stage(name, name, name, (), nothing, **more), root, settings, upstream)


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
    assert scores({"rows": 1}).outdated
    make()
    scores({"rows": 1}).clear()
    assert not (tmp_path / "m.json").exists()


def test_a_damaged_record_is_named(tmp_path):
    stage = record(tmp_path, SETTINGS)
    stage.folder.mkdir()
    (stage.folder / "stage.json").write_text('{"settings"')
    with pytest.raises(UserError, match=r"stage\.json"):
        stage.refuse_changes()


@pytest.mark.parametrize("content", [{"settings": {}, "done": True}, {"format": 1}, [1]])
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
