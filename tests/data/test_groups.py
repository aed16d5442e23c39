"""Near, far and other OOD sets: their names, their places in results, and what is refused."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from configs import quickstart
from dream_jax.checks import check
from dream_jax.data.groups import groups_of, on_tuning_sets, ood_names
from dream_jax.errors import UserError
from dream_jax.evaluation.evaluators.ood import use_of


def config(**data) -> ConfigDict:
    found = quickstart.get_config()
    with found.unlocked():
        found.data.update(data)
    return found


def test_all_sets_are_tested_on_and_groups_hold_those_measured():
    data = check(config(ood=("faces",), near=("letters",), far=("textures,fashion_mnist",))).data
    assert ood_names(data) == ("faces", "letters", "textures", "fashion_mnist")
    measured = ("faces", "letters", "textures", "mean")
    expected = {"ood": ["faces"], "near": ["letters"], "far": ["textures"]}
    assert groups_of(data, measured) == expected
    assert groups_of(data, ("textures",)) == {"far": ["textures"]}
    titled = check(config(ood=(), near=("a=x/a", "b=x/b"), far=())).data
    assert groups_of(titled, ("a", "b")) == {"near": ["a", "b"]}


def test_one_group_is_none():
    data = check(config()).data
    assert ood_names(data) == data.ood and groups_of(data, data.ood) == {}


def test_sets_to_tune_on_are_told_from_no_ood_sets():
    settings = check(config(ood=(), near=("letters",), tuning=()))
    assert use_of(settings) == "OOD"
    tuned = dataclasses.replace(settings.data, tuning=("noise",))
    data = on_tuning_sets(tuned)
    assert (data.ood, data.near) == (("noise",), ())
    assert use_of(dataclasses.replace(settings, data=data)) == "tuning"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"ood": ()}, ["config.data.ood is ()", "near", "far"]),
        ({"ood": ("letters",), "near": ("letters",)}, ["data.near", "data.ood", "'letters'"]),
        ({"ood": (), "near": ("a=x",), "far": ("a=y",)}, ["'a=x'", "'a=y'"]),
        ({"ood": (), "near": ("a=x",), "far": ("b=x/y",)}, ["'a=x'", "'b=x/y'"]),
        ({"ood": (), "near": ("letters", "letters")}, ["data.near", "'letters'"]),
        ({"ood": (), "near": ("nothing_of_the_kind",)}, ["data.near", "no OOD set"]),
        ({"ood": (), "far": ("symbols",)}, ["data.far", "auxiliary"]),
        ({"ood": (), "near": ("noise",), "tuning": ("noise",)}, ["data.near", "data.tuning"]),
        ({"ood": (), "near": ("near=x",)}, ["data.near", "'near'"]),
        ({"ood": ("far=x",), "near": ("letters",)}, ["data.ood", "'far'"]),
        ({"ood": (), "near": (1,)}, ["data.near", "(1,)"]),
        ({"full_spectrum": True}, ["data.shifted is ()", "full_spectrum"]),
    ],
)
def test_refused_in_one_line(data, said):
    with pytest.raises(UserError) as caught:
        check(config(**data))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in said), message


def test_a_set_may_be_called_like_a_group_where_there_are_none():
    assert check(config(ood=("near=x", "far=y"))).data.ood == ("near=x", "far=y")
