"""The configuration checked as a whole, once, before any work, into typed settings."""

from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ml_collections import ConfigDict

from dream_jax import origins
from dream_jax.combinations import check_combinations
from dream_jax.config_tree import plain_tree, shown
from dream_jax.configurations import check_known, check_program
from dream_jax.data.roles import check_sets
from dream_jax.detector.methods import PLAIN, TRAININGS
from dream_jax.errors import UserError
from dream_jax.generator.folders import check_generator
from dream_jax.precision import resolve_precision
from dream_jax.rows import check_tuning, make_rows
from dream_jax.rules import Rule, one_of
from dream_jax.sampling.settings import check_class_sizes
from dream_jax.settings import Settings
from dream_jax.sizes import check_sizes
from dream_jax.training.event_files import check_project

# Lists of names, for which a flag may give one text: --config.methods=msp,vos
LISTS = ("methods", "ablation.only", *origins.LISTS)


def check(config: ConfigDict) -> Settings:
    """Checks every field by itself, then those that must fit each other.

    Raises:
      UserError: one line with the first bad field, its value and what is allowed.
    """
    tree = plain_tree(config)
    check_program(Settings, tree, "configs/quickstart.py")
    for field in LISTS:
        _split_at_commas(tree, field)
    settings = typed(Settings, tree, "")
    check_known(Settings, tree)
    rows = make_rows(settings)
    check_tuning(settings)
    check_sets(settings.data)
    check_sizes(settings)
    check_class_sizes(settings)
    check_combinations(settings, rows)
    if settings.init_from in TRAININGS and settings.init_from != PLAIN:
        raise UserError(
            f"config.init_from is {settings.init_from!r}; allowed: empty, {PLAIN!r}, or a folder "
            f"of checkpoints"
        )
    if settings.classifier.by_name_share > 0 and settings.decoding.by_name == 0:
        raise UserError(
            f"config.decoding.by_name is 0; with classifier.by_name_share = "
            f"{settings.classifier.by_name_share} it must be above 0"
        )
    check_project(settings.wandb)
    check_generator(settings.generator.path, settings.generator.revision)
    return resolve_precision(settings)


def _split_at_commas(tree: dict[str, Any], field: str) -> None:
    """Divides texts of a list at their commas, unless they name a folder (`name=folder`)."""
    *sections, last = field.split(".")
    section: Any = tree.get(sections[0]) if sections else tree
    texts = section.get(last) if isinstance(section, dict) else None
    if isinstance(texts, tuple | list) and all(isinstance(text, str) for text in texts):
        parts = [[text] if "=" in text else text.split(",") for text in texts]
        section[last] = tuple(name.strip() for names in parts for name in names)


def typed(kind: Any, tree: Any, prefix: str) -> Any:
    """Makes a section of the settings, a dataclass with rules, of a tree of values.

    Args:
      kind: the dataclass.
      tree: field → value, or → the tree of a section.
      prefix: of the fields' names in messages, "" or "section.".

    Raises:
      UserError: names the first field that is missing or not allowed.
    """
    values: dict[str, Any] = {}
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    if not isinstance(tree, dict):
        raise UserError(
            f"config.{prefix.rstrip('.')} is {shown(tree)}; it must be a section with the fields "
            f"{', '.join(field.name for field in fields(kind))}"
        )
    for field in fields(kind):
        hint, path = hints[field.name], f"{prefix}{field.name}"
        if is_dataclass(hint):
            values[field.name] = typed(hint, tree.get(field.name, {}), f"{path}.")
            continue
        rule = rule_of(hint)
        if field.name not in tree:
            raise UserError(f"config.{path} is missing; it must be {rule.allowed}")
        value = tree[field.name]
        if not rule.holds(value):
            raise UserError(f"config.{path} is {shown(value)}; it must be {rule.allowed}")
        made = rule.made(value)
        values[field.name] = tuple(made) if isinstance(made, list) else made
    return kind(**values)


def rule_of(hint: Any) -> Rule:
    """Returns the rule in the type of a field."""
    found = [part for part in get_args(hint) if isinstance(part, Rule)]
    if found:
        return found[0]
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(kind) is Literal:
        return one_of(get_args(kind))
    assert kind is bool, f"{hint} has no rule"
    return Rule(lambda value: isinstance(value, bool), "True or False")
