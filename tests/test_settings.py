"""Typed settings, their rules, and the views that show a part of them."""

from functools import reduce
from typing import get_args

import pytest
import toy as toy_module

from dream_jax import settings as module
from dream_jax.checks import check, rule_of
from dream_jax.data.augment import AUGMENTATIONS
from dream_jax.generator.load import PRECISIONS
from dream_jax.generator.resizing import MIXED, WAYS
from dream_jax.generator.schedulers import SCHEDULERS
from dream_jax.models.resnet import ARCHITECTURES, STEMS
from dream_jax.models.resnet import PRECISIONS as MODEL_PRECISIONS
from dream_jax.precision import AUTO
from dream_jax.sampling.rounds import SHARED_ROUNDS
from dream_jax.settings import (
    UndeclaredField,
    as_dict,
    expand,
    field_types,
    flatten,
    is_neutral,
    view,
)


@pytest.fixture(scope="module")
def settings(toy):
    return check(toy.config())


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        (module.Augmentation, AUGMENTATIONS),
        (module.Architecture, ARCHITECTURES),
        (module.Stem, STEMS),
        (module.ModelPrecision, (AUTO, *MODEL_PRECISIONS)),
        (module.GeneratorPrecision, (AUTO, *PRECISIONS)),
        (module.Scheduler, SCHEDULERS),
        (module.Selection, SHARED_ROUNDS),
        (module.Resize, (*WAYS, MIXED)),
    ],
)
def test_names_that_are_allowed_are_those_that_exist(kind, known):
    assert sorted(get_args(kind)) == sorted(known)


def test_every_field_has_a_rule_and_is_in_the_base_configuration():
    from configs import base

    given = base.get_config().to_dict()
    for name, hint in field_types().items():
        assert rule_of(hint).allowed
        section = given
        for part in name.split("."):
            section = section[part]


def test_a_configuration_from_before_a_field_gets_its_neutral_value(settings, tmp_path):
    """Those of the base configuration, so that a run goes on as it began."""
    from configs import base
    from dream_jax.files import write_json
    from dream_jax.record import FORMAT, seal
    from dream_jax.run_config import read_config

    old = as_dict(settings)
    for name in module.LATER:
        section, field = place_of(old, name)
        del section[field]
    old = {name: section for name, section in old.items() if section != {}}
    assert "zero_shot" not in old
    write_json(tmp_path / "config.json", seal({"format": FORMAT} | old))
    found, given = read_config(tmp_path), base.get_config().to_dict()
    for name, value in module.LATER.items():
        (section, field), (base_section, _) = place_of(found, name), place_of(given, name)
        assert section[field] == value == base_section[field], name
    assert found.keys() == as_dict(settings).keys()


def place_of(tree: dict, name: str) -> tuple[dict, str]:
    """The section that a dotted name is in, and the field's own name."""
    *sections, field = name.split(".")
    return reduce(dict.__getitem__, sections, tree), field


def test_a_view_shows_declared_fields_and_notes_what_is_read(settings):
    read: set[str] = set()
    shown = view(settings, ("sampling", "seed", "latent_space.optimizer.momentum"), read)
    assert shown.sampling.k == settings.sampling.k
    assert shown.latent_space.optimizer.momentum == 0.9
    assert read == {"sampling.k", "latent_space.optimizer.momentum"}
    for undeclared in ("shown.name", "shown.data.id", "shown.latent_space.epochs"):
        with pytest.raises(UndeclaredField, match="does not declare"):
            eval(undeclared)
    with pytest.raises(AttributeError, match="nonsense"):
        shown.sampling.nonsense  # noqa: B018
    assert len(read) == 2


def test_expand_names_fields_and_sections():
    assert expand(("seed", "model")) == (
        *("seed", "model.arch", "model.width", "model.stem", "model.precision"),
    )
    assert expand(("model.arch", "model"))[0] == "model.arch"
    with pytest.raises(KeyError, match="mode is no field"):
        expand(("mode",))


def test_neutral_fields():
    assert is_neutral("save_every") and is_neutral("data.unreadable")
    assert not is_neutral("seed") and not is_neutral("decoding.prompts")


def test_settings_as_a_dictionary(settings):
    tree = as_dict(settings)
    assert flatten({k: v for k, v in tree.items() if k not in ("method_options", "tuning")})
    assert tree["sampling"]["k"] == 10 and tree["latent_space"]["optimizer"]["momentum"] == 0.9
    assert as_dict(view(settings, tuple(field_types()))) == tree
    assert check(toy_module.ConfigDict(tree)) == settings


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": (2,)}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": (2,),
        "e": None,
    }
