"""Which classifiers a run trains, what their stages depend on, and where results lie."""

from pathlib import Path

import pytest
import toy as toy_module
from ml_collections import ConfigDict

from dream_jax.plan import Plan

WORKDIR = Path("run")


def config(**changes) -> ConfigDict:
    config = toy_module.get_config()
    config.update_from_flattened_dict(changes)
    return config


def plan(**changes) -> Plan:
    return Plan(config(**changes), WORKDIR)


def differing(one: Plan, other: Plan) -> set[str]:
    """The stages of both whose settings differ."""
    common = one.stages.keys() & other.stages.keys()
    return {name for name in common if one.stages[name].settings != other.stages[name].settings}


@pytest.mark.parametrize(
    ("methods", "init_from", "trained", "scored"),
    [
        (("energy",), "", ["energy"], ["energy"]),
        (("godin",), "", ["godin"], ["godin"]),
        (("knn", "msp"), "", ["energy"], ["energy"]),
        (("dream_ood",), "", ["energy", "dream_ood"], ["dream_ood"]),
        (("dream_id", "vos"), "", ["energy", "vos", "dream_id"], ["vos", "dream_id"]),
        (("dream_ood",), "other/run", ["dream_ood"], ["dream_ood"]),
        (("knn", "dream_ood"), "other/run", ["dream_ood"], ["energy", "dream_ood"]),
        (("energy", "dream_ood"), "other/run", ["energy", "dream_ood"], ["energy", "dream_ood"]),
    ],
)
def test_what_is_trained_for_the_rows(methods, init_from, trained, scored):
    made = plan(methods=methods, init_from=init_from)
    assert made.trained == trained
    assert [method for method, _ in made.scored] == scored
    assert [n.split()[1] for n in made.stages if n.startswith("train")] == trained
    assert [n.split()[1] for n in made.stages if n.startswith("evaluate")] == scored


def test_stages_and_folders_of_other_seeds():
    made = plan(methods=("knn", "energy"), seeds=(0, 3))
    assert made.rows_of("energy") == ["knn", "energy"]
    assert list(made.stages)[-5:] == [
        "train energy",
        "evaluate energy",
        "train energy, seed 3",
        "evaluate energy, seed 3",
        "report",
    ]
    assert made.record("train", "energy", 0).folder == WORKDIR / "classifier" / "energy"
    assert made.record("evaluate", "energy", 3).folder == WORKDIR / "evaluation" / "energy-seed3"
    assert made.of_seed(3).seed == 3 and made.config.seed == 0


def test_more_rows_and_seeds_leave_what_is_trained_as_it_is():
    more = plan(methods=("knn", "vos", "energy", "dream_ood", "dream_id"), seeds=(0, 1))
    assert differing(plan(), more) == {"evaluate energy", "report"}
    other = plan(**{"data.ood": ("letters",), "data.shifted": ("noise",)})
    changed = {"evaluate energy", "evaluate dream_ood", "report"}
    assert differing(plan(), other) == changed
    weight = plan(**{"method_options.dream_ood.weight": 3.0})
    assert differing(plan(), weight) == {"train dream_ood", "evaluate dream_ood", "report"}


def test_only_what_uses_inliers_depends_on_them():
    methods = ("energy", "dream_id", "dream_ood")
    changed = plan(**{"methods": methods, "inliers.scale": 0.5})
    assert differing(plan(methods=methods), changed) == {
        "sample inliers",
        "decode inliers",
        "train dream_id",
        "evaluate dream_id",
        "report",
    }
    assert "sample inliers" not in plan().stages


def test_candidates_lie_apart():
    folders = set()
    for row, name in (("knn", "k=5"), ("nnguide", "k=5"), ("vos", "keep=1"), ("vos", "keep=2")):
        made = Plan(config(methods=(row,), seeds=(7,)), WORKDIR / "tuning", WORKDIR, (row, name))
        assert made.stages["learn"].folder == WORKDIR / "latent_space"
        folders |= {s.folder for n, s in made.stages.items() if n.startswith("evaluate")}
        if row == "vos":
            (trained,) = (s.folder for n, s in made.stages.items() if n.startswith("train"))
            assert trained == WORKDIR / "tuning" / "classifier" / f"vos-seed7-{name}"
    assert len(folders) == 4
