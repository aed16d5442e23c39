"""Rows of the results: trainings and detectors as pairs, and what a run makes for them."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from dream_jax import pipeline
from dream_jax.checks import check
from dream_jax.detector.detectors import DETECTORS
from dream_jax.detector.methods import TRAININGS
from dream_jax.errors import UserError
from dream_jax.evaluation.report.stage import sections, titles
from dream_jax.rows import ALL, make_rows, with_options
from dream_jax.run import Run

WORKDIR = Path("run")


@pytest.fixture
def made(toy):
    """`made(methods=..., ...)`: the run of the toy's configuration with changes."""

    def make(**changes) -> Run:
        config = toy.config()
        config.update_from_flattened_dict(changes)
        return pipeline.make_run(check(config), WORKDIR)

    return make


def of_step(run: Run, step: str) -> list[str]:
    prefix = f"{step} "
    return [name.removeprefix(prefix) for name in run.stages if name.startswith(prefix)]


REAL = ["energy_fine_tuning", "mcd"]


@pytest.mark.parametrize(
    ("methods", "init_from", "trained", "scored"),
    [
        (("energy",), "", ["cross_entropy"], ["cross_entropy"]),
        (("godin",), "", ["godin"], ["godin"]),
        (("knn", "msp"), "", ["cross_entropy"], ["cross_entropy"]),
        (("dream_ood",), "", ["cross_entropy", "dream_ood"], ["dream_ood"]),
        (("bood",), "", ["cross_entropy", "bood"], ["bood"]),
        (("dream_id", "vos"), "", ["cross_entropy", "vos", "dream_id"], ["dream_id", "vos"]),
        (("energy_fine_tuning", "mcd"), "", ["cross_entropy", *REAL], REAL),
        (("vos/knn", "vos", "gan/vim"), "", ["gan", "vos"], ["vos", "gan"]),
        (("knn", "dream_ood"), "other", ["cross_entropy", "dream_ood"], None),
    ],
)
def test_what_is_trained_and_scored_for_the_rows(made, methods, init_from, trained, scored):
    run = made(methods=methods, init_from=init_from)
    assert of_step(run, "train") == trained
    of_generator = ("embeddings", "legible", "outliers")
    evaluated = [name for name in of_step(run, "evaluate") if name not in of_generator]
    assert evaluated == (trained if scored is None else scored)


def test_names_of_rows(made):
    run = made(methods=("cross_entropy", "knn", "dream_ood/knn", "npos/knn", "dream_ood"))
    assert [row.key for row in run.rows] == ["energy", "knn", "dream_ood/knn", "npos", "dream_ood"]
    assert [(row.training, row.detector) for row in run.rows] == [
        ("cross_entropy", "energy"),
        ("cross_entropy", "knn"),
        ("dream_ood", "knn"),
        ("npos", "knn"),
        ("dream_ood", "energy"),
    ]
    assert titles(run.rows) == {
        "energy": "Energy",
        "knn": "KNN",
        "dream_ood/knn": "Dream-OOD / KNN",
        "npos": "NPOS",
        "dream_ood": "Dream-OOD",
    }
    assert sections(run.rows[:4]) is None
    assert sections(run.rows)["npos"] == "Trained on the ID images alone"


def test_all_is_every_detector_of_the_plain_classifier_and_the_other_trainings(made):
    keys = [row.key for row in made(methods=("all",)).rows]
    assert tuple(keys) == ALL
    in_all = {name for name, training in TRAININGS.items() if training.in_all}
    assert in_all - {"cross_entropy"} <= set(keys) and {"knn", "energy"} <= set(keys)
    by_name = tuple(name for name in TRAININGS if name not in in_all)
    assert [row.key for row in made(methods=by_name).rows] == list(by_name)
    assert not set(by_name) & set(keys)
    without = made(**{"methods": ("all",), "data.auxiliary": ()})
    real = {name for name, training in TRAININGS.items() if training.extra == "auxiliary"}
    assert real == {"outlier_exposure", "energy_fine_tuning", "mcd", "mixoe"}
    assert [row.key for row in without.rows] == [key for key in ALL if key not in real]


def test_every_is_all_and_the_rows_by_name(made):
    every = [row.key for row in made(methods=("every",)).rows]
    named = [name for name, training in TRAININGS.items() if not training.in_all]
    assert set(every) == {*ALL, *named, "mcm", "gl_mcm", "neg_label"} and len(named) == 8
    assert len(every) == len(set(every))
    with pytest.raises(UserError, match="'every' is no row; allowed: all, every, or some of"):
        made(methods=("every", "knn"))


def test_rows_that_cannot_be_made_are_left_out_with_the_reason_said_once(made, tmp_path, capsys):
    config = {"methods": ("every",), "data.auxiliary": (), "method_options.knn.k": 100}
    settings = made(**config).settings
    run = pipeline.possible_run(settings, tmp_path, ["train"], overwrite=False)
    without = {"outlier_exposure", "energy_fine_tuning", "mcd", "mixoe", "mcm", "gl_mcm"}
    keys = {row.key for row in run.rows}
    assert keys == {row.key for row in make_rows(settings)} - without - {"neg_label", "npos", "vos"}
    said = capsys.readouterr().out
    assert said.startswith("left out: ") and said.count("\n") == 1
    assert said.count("config.data.auxiliary is ()") == 1
    assert "mcm, gl_mcm, neg_label: config.data.channels is 1" in said


def test_no_name_means_a_training_and_a_detector():
    assert not set(TRAININGS) & set(DETECTORS)
    for training in TRAININGS.values():
        assert training.detector in DETECTORS
        assert set(training.detector_options) <= set(DETECTORS[training.detector].options)


def test_settings_of_a_pair_go_before_those_of_its_paper_and_these_before_the_detectors(toy):
    config = toy.config()
    config.methods = ("knn", "npos", "vos/knn", "dream_ood/knn", "energy")
    config.method_options = ConfigDict(
        {"knn": {"k": 7}, "vos/knn": {"k": 8}, "energy": {"temperature": 2}, "npos": {"k": 9}}
    )
    rows = {row.key: row for row in make_rows(check(config))}
    assert {key: rows[key].options["k"] for key in ("knn", "npos", "vos/knn", "dream_ood/knn")} == {
        "knn": 7,
        "npos": 300,
        "vos/knn": 8,
        "dream_ood/knn": 7,
    }
    assert rows["npos"].training_options["k"] == 9
    assert rows["energy"].options == {"temperature": 2}
    with config.unlocked():
        config.method_options["npos/knn"] = ConfigDict({"k": 50})
    rows = {row.key: row for row in make_rows(check(config))}
    assert rows["npos"].options["k"] == 50


def test_options_of_a_candidate_go_where_the_row_reads_them():
    given = {"knn": {"k": 3}, "vos": {"weight": 1.0}}
    assert with_options(given, "knn", {"k": 5})["knn"] == {"k": 5}
    assert with_options(given, "vos", {"weight": 2, "keep": 3})["vos"] == {"weight": 2, "keep": 3}
    assert with_options(given, "vos/knn", {"k": 9})["vos/knn"] == {"k": 9}
    assert given == {"knn": {"k": 3}, "vos": {"weight": 1.0}}


def test_bood_has_embeddings_and_images_of_its_own_unless_those_of_the_run_are_made_so(made):
    both = ("energy", "dream_ood", "bood")
    run = made(methods=both)
    assert {"sample", "sample bood", "decode", "decode bood"} <= run.stages.keys()
    assert run.stages["train dream_ood"].inputs[0] == "decode"
    assert run.stages["train bood"].inputs[0] == "decode bood"
    assert run.stages["decode bood"].inputs == ("sample bood",)
    same = made(**{"methods": both, "sampling.method": "bood"})
    assert not {"sample bood", "decode bood"} & same.stages.keys()
    assert same.stages["train bood"].inputs == same.stages["train dream_ood"].inputs
    assert "bood.step" in same.record("sample").settings
    assert not {"sampling.k", "sampling.scale"} & same.record("sample").settings.keys()
    assert "sample bood" not in made(methods=("energy", "dream_ood", "dream_id")).stages


def test_stages_and_folders_of_other_seeds(made):
    run = made(methods=("knn", "energy"), seeds=(0, 3))
    assert of_step(run, "train") == ["cross_entropy", "cross_entropy, seed 3"]
    assert of_step(run, "evaluate") == [
        *("embeddings", "legible", "cross_entropy", "cross_entropy, seed 3", "outliers")
    ]
    assert run.folder("train cross_entropy") == WORKDIR / "classifier" / "cross_entropy"
    folder = WORKDIR / "evaluation" / "cross_entropy-seed3"
    assert run.folder("evaluate cross_entropy, seed 3") == folder


def test_more_rows_and_seeds_leave_what_is_trained_as_it_is(made):
    one = made()
    more = made(methods=("knn", "vos", "energy", "dream_ood", "dream_id"), seeds=(0, 1))
    common = one.stages.keys() & more.stages.keys()
    changed = {name for name in common if one.record(name).settings != more.record(name).settings}
    assert changed == {"evaluate cross_entropy", "metrics", "report"}


def test_another_seed_leaves_the_accuracies_of_the_first_on_shifted_sets(made):
    options = {"methods": ("energy", "vos"), "data.shifted": ("blur",)}
    one, two = made(**options), made(**options, seeds=(0, 3))
    name = "evaluate shifted"
    assert two.stages.keys() >= {name, f"{name}, seed 3"}
    assert one.stages[name].inputs == two.stages[name].inputs
    assert one.record(name).settings == two.record(name).settings
    others = tuple(f"{training}, seed 3" for training in one.stages[name].inputs)
    assert two.stages[f"{name}, seed 3"].inputs == others
