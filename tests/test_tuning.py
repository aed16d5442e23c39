"""Candidates are tried beside a run, on the tuning sets alone, and the best is chosen."""

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from slow import takes_a_minute

from configs import quickstart
from dream_jax import tuning
from dream_jax.candidates import choose, tuning_note
from dream_jax.checks import check
from dream_jax.errors import UserError
from dream_jax.files import read_json, write_json
from dream_jax.rows import candidates, make_rows


def candidate(value, fpr95, auroc, id_accuracy) -> dict:
    measures = {"fpr95": fpr95, "auroc": auroc, "id_accuracy": id_accuracy}
    return {"options": {"weight": value}, **measures}


def test_the_least_fpr95_wins_then_auroc_among_those_that_keep_the_accuracy():
    first, second = candidate(1, 0.3, 0.9, 0.98), candidate(2, 0.2, 0.8, 0.98)
    assert choose([first, second]) == {"weight": 2}
    assert choose([first, second, candidate(3, 0.2, 0.9, 0.975)]) == {"weight": 3}
    assert choose([first, second, candidate(4, 0.1, 0.9, 0.96)]) == {"weight": 2}
    assert choose([first, candidate(5, 0.3, 0.9, 0.98)]) == {"weight": 1}


def test_the_note_tells_settings_by_hand_from_chosen_ones():
    own = {"candidates": [candidate(v, 0.3, 0.9, 0.98) for v in (1, 2)], "chosen": {"weight": 2}}
    record = {"sets": ["noise"], "seed": 7, "rows": {"vos": own, "gan": own, "knn": own}}
    note = tuning_note(record, {"vos": {"weight": 2, "k": 3}, "gan": {"weight": 1}})
    assert note["sets"] == ["noise"] and note["seed"] == 7
    assert note["rows"] == {
        "vos": {"candidates": 2, "chosen": {"weight": 2}},
        "gan": {"candidates": 0, "chosen": {"weight": 1}},
    }


def test_rows_that_are_not_tuned_now_stay_as_they_were(tmp_path):
    """Of a record of other sets, seeds or candidates nothing stays; the folder's own goes first."""
    config = quickstart.get_config()
    file = tmp_path / "record.json"
    names = {"knn": "k", "vim": "dimension", "nnguide": "k"}
    config.tuning.candidates = ConfigDict({key: {name: (1, 2)} for key, name in names.items()})
    config.tuning.record = str(file)

    def record(fpr95: float, *keys: str, **more) -> dict:
        rows = {}
        for key in keys:
            tried = [candidate(value, fpr95, 0.9, 0.98) for value in (1, 2)]
            for one in tried:
                one["options"] = {names[key]: one["options"]["weight"]}
            rows[key] = {"candidates": tried, "chosen": choose(tried)}
        sets = {"config": "quickstart", "sets": ["noise", "alphabets"], "seed": 100}
        return sets | {"rows": rows} | more

    def kept() -> dict:
        return {
            key: own["candidates"][0]["fpr95"]
            for key, own in tuning.tuned_before(check(config), tmp_path).items()
        }

    write_json(file, record(0.3, "knn", "vim"))
    assert kept() == {"knn": 0.3, "vim": 0.3}
    write_json(tmp_path / "tuning.json", record(0.2, "vim", "nnguide"))
    assert kept() == {"knn": 0.3, "vim": 0.2, "nnguide": 0.2}
    config.tuning.candidates.vim.dimension = (1, 3)
    assert kept() == {"knn": 0.3, "nnguide": 0.2}
    for other in ({"seed": 5}, {"sets": ["noise"]}, {"config": "other"}):
        write_json(tmp_path / "tuning.json", record(0.2, "nnguide", **other))
        assert kept() == {"knn": 0.3}
    (tmp_path / "tuning.json").write_text("{")
    with pytest.raises(UserError, match=r"^the record of earlier tuning is [^\n]*or deleted$"):
        kept()


@pytest.fixture
def config(toy) -> ConfigDict:
    config = toy.config()
    config.methods = ("knn", "outlier_exposure", "energy")
    config.data.tuning = ("noise",)
    config.data.auxiliary, config.data.auxiliary_count = ("symbols",), 30
    config.tuning.seed = 5
    config.tuning.candidates = ConfigDict(
        {"knn": {"k": (3, 30)}, "outlier_exposure": {"weight": (0.5, 2.0)}}
    )
    return config.lock()  # as flags leave it


@takes_a_minute
def test_tuning_beside_a_finished_run(config, copied_run, capsys):
    workdir = copied_run()
    before = {p: p.read_bytes() for p in workdir.rglob("*.json")}
    record = tuning.run(config, workdir)
    assert record == read_json(workdir / "tuning.json") == json.loads(json.dumps(record))
    assert record["sets"] == ["noise"] and record["seed"] == 5
    tried = {row: [c["options"] for c in own["candidates"]] for row, own in record["rows"].items()}
    assert tried == {
        "knn": [{"k": 3}, {"k": 30}],
        "outlier_exposure": [{"weight": 0.5}, {"weight": 2.0}],
    }
    for own in record["rows"].values():
        assert own["chosen"] == choose(own["candidates"])
    output = capsys.readouterr().out
    assert "── learn" not in output and "── decode" not in output
    assert (
        output.count("── train cross_entropy, seed 5") == 1
    )  # one network for all of knn's candidates
    assert all(p.read_bytes() == content for p, content in before.items())  # the run's own stay
    with config.unlocked():
        config.methods = ("knn",)
    assert tuning.run(config, workdir) == record  # the other row stays
    printed = capsys.readouterr().out
    assert "──" not in printed and "before: outlier_exposure" in printed


def test_nothing_to_tune_by_is_refused(config, tmp_path):
    config.data.tuning = ()
    with pytest.raises(UserError, match=r"config.data.tuning is \(\)"):
        tuning.run(config, tmp_path)
    config.data.tuning, config.methods = ("noise",), ("msp",)
    with pytest.raises(UserError, match=r"candidates for some of config.methods = \('msp',\)"):
        tuning.run(config, tmp_path)


def test_the_quickstart_uses_what_its_record_chose():
    """So the table may say that its settings were tuned."""
    config = quickstart.get_config()
    config.methods = ("every",)
    settings = check(config)
    record = read_json(Path(settings.tuning.record))
    assert set(record["rows"]) == set(settings.tuning.candidates)
    rows = {row.key: {**row.training_options, **row.options} for row in make_rows(settings)}
    for key, own in record["rows"].items():
        assert [c["options"] for c in own["candidates"]] == candidates(settings, key)
        assert own["chosen"] == choose(own["candidates"])
        assert {name: rows[key][name] for name in own["chosen"]} == own["chosen"], key
    assert tuple(record["sets"]) == settings.data.tuning
    assert record["seed"] == settings.tuning.seed
