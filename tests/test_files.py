"""Files that are whole or not there, and stages that know their settings."""

import json
import time

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.files import (
    Stage,
    flatten,
    read_json,
    read_npz,
    write_json,
    write_npz,
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


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": (2,)}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": (2,),
        "e": None,
    }


SETTINGS = {"seed": 0, "sampling": {"k": 50, "prompts": ("a {name}",)}}


def test_stage_is_done_only_after_it_ran_through(tmp_path):
    stage = Stage("sample", tmp_path / "s", SETTINGS)
    assert not stage.done
    with pytest.raises(KeyboardInterrupt), stage.running():
        raise KeyboardInterrupt
    assert not stage.done
    stage.check_settings()  # may be continued
    with stage.running():
        assert not stage.done
    again = Stage("sample", tmp_path / "s", SETTINGS)
    assert again.done
    again.check_settings()
    assert again.record["settings"] == json.loads(json.dumps(SETTINGS))
    assert again.record["seconds"] >= 0 and again.record["peak_memory_mb"] > 1
    again.clear()
    assert not again.done and not (tmp_path / "s").exists()


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"seed": 1, "sampling": SETTINGS["sampling"]}, ("seed=0", "has 1")),
        (
            {"seed": 0, "sampling": SETTINGS["sampling"] | {"k": 60}},
            ("sampling.k=50", "has 60"),
        ),
        (
            {"seed": 0, "sampling": SETTINGS["sampling"] | {"prompts": ("b",)}},
            ("sampling.prompts=['a {name}']", "has ['b']"),
        ),
        ({"seed": 0, "sampling": {"k": 50}}, ("sampling.prompts=", "has 'unset'")),
        (SETTINGS | {"rounds": 3}, ("rounds='unset'", "has 3")),
    ],
)
def test_changed_setting_is_named(tmp_path, changed, parts, done):
    try:
        with Stage("sample", tmp_path, SETTINGS).running():
            if not done:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    with pytest.raises(UserError) as caught:
        Stage("sample", tmp_path, changed).check_settings()
    message = str(caught.value)
    for part in (*parts, str(tmp_path), "--overwrite"):
        assert part in message
    assert "\n" not in message


def test_damaged_record_is_named(tmp_path):
    stage = Stage("sample", tmp_path, SETTINGS)
    (tmp_path / "stage.json").write_text('{"settings"')
    with pytest.raises(UserError, match=r"stage\.json"):
        stage.check_settings()


def test_seconds_add_up_over_interruptions_and_start_anew_after_the_end(tmp_path):
    stage = Stage("sample", tmp_path, SETTINGS)
    with pytest.raises(KeyboardInterrupt), stage.running():
        time.sleep(0.05)
        raise KeyboardInterrupt
    assert not stage.done and stage.record["seconds"] >= 0.05
    with stage.running():
        pass
    assert stage.done and stage.record["seconds"] >= 0.05
    with stage.running():
        pass
    assert stage.record["seconds"] < 0.05
