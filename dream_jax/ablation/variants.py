"""The variants of a recipe: some of its settings changed, written as flags give them."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from dream_jax.checks import check
from dream_jax.data.groups import on_tuning_sets
from dream_jax.errors import UserError
from dream_jax.origins import ORIGINS
from dream_jax.rows import ALL, pair
from dream_jax.settings import Settings, as_dict, field_types, flatten, is_as_before, is_neutral
from dream_jax.starting import reason_of

RECIPE = "the recipe"  # the configuration as it is, with which all variants are compared
FIELD = "config.ablation.variants"
# What all variants have in common, for otherwise their numbers could not be compared.
COMMON = (
    *("name", "seeds", "methods", "data.id", "data.folder", "data.class_names"),
    *("data.ood", "data.near", "data.far", "data.ood_count", "data.shifted"),
    *("data.full_spectrum", "data.tuning", "tuning"),
    *("ablation.seeds", "ablation.variants", "ablation.only"),
)
# What does not count for a variant's folder: seeds can be added, and others say what is compared.
_OUTSIDE = ("name", "seeds", "tuning", "ablation")


@dataclass(frozen=True)
class Variant:
    """A recipe to try.

    Attributes:
      name: as tables call it.
      changes: the settings in which it differs from the configuration, "field=value" each.
      settings: of its run, which has one row and is measured on the tuning sets.
    """

    name: str
    changes: tuple[str, ...]
    settings: Settings

    @property
    def folder(self) -> str:
        """The name of its folder: another one where any setting of it is another."""
        known = field_types()
        counted = {
            name: value
            for name, value in flatten(as_dict(self.settings)).items()
            if name.partition(".")[0] not in _OUTSIDE
            and not (name in known and is_as_before(self.settings, name))
            and (name not in known or not is_neutral(name) or name in ORIGINS)
        }
        digest = hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()
        readable = re.sub(r"[^a-z0-9]+", "-", self.name.lower())[:40].strip("-")
        return f"{readable or 'variant'}-{digest[:8]}"


def read_variants(config: ConfigDict) -> tuple[Variant, ...]:
    """Returns the recipe as it is, and all of `config.ablation.variants`.

    Raises:
      UserError: there is none, there is no set to measure on, or a variant is not allowed; the line
        names the variant.
    """
    settings = check(config)
    if not settings.data.tuning:
        raise UserError(
            "config.data.tuning is (); it must name OOD sets on which the variants are measured"
        )
    if not settings.ablation.variants:
        raise UserError(
            f"{FIELD} is (); it must list what is compared with {RECIPE}, such as "
            f"(('few features', 'sampling.k=50'),)"
        )
    found = [Variant(RECIPE, (), _settings(config, settings))]
    for name, *given in settings.ablation.variants:
        if name in [variant.name for variant in found]:
            fault = "is what the configuration is called" if name == RECIPE else "is there twice"
            raise UserError(f"{FIELD}: {name!r} {fault}; every variant needs a name of its own")
        changes = tuple(change.strip().removeprefix("--config.") for change in given)
        try:
            _check_changes(changes)
            changed = with_flags(config, changes)
            found.append(Variant(name, changes, _settings(changed, settings)))
        except UserError as error:
            raise of_variant(name, error) from error
    return tuple(found)


def asked_for(variants: Sequence[Variant], only: Sequence[str]) -> set[str]:
    """Returns the names of the variants that are made: the recipe, and those of `ablation.only`.

    Args:
      only: names, or how others begin: "k 20" is not also "k 200"; () asks for all.

    Raises:
      UserError: no variant's name begins so.
    """
    names = [variant.name for variant in variants]
    found = {RECIPE} if only else set(names)
    for beginning in only:
        begun = {name for name in names if name.startswith(beginning)}
        own = {beginning} & begun or begun
        if not own:
            raise UserError(
                f"config.ablation.only names {beginning!r}; no variant's name begins so: "
                f"{', '.join(names)}"
            )
        found |= own
    return found


def of_variant(name: str, error: UserError) -> UserError:
    """Returns an error with the name of the variant that it is about."""
    return error if name == RECIPE else UserError(f"{FIELD}: {name!r}: {error}")


def with_flags(config: ConfigDict, changes: Sequence[str]) -> ConfigDict:
    """Returns a copy of a configuration with settings as flags would change them.

    Args:
      changes: "field=value" each, such as "sampling.k=50".

    Raises:
      UserError: a change is not written so, or its value is not of the type of the field.
    """
    argv = ["ablate", *(f"--config.{change}" for change in changes)]
    copy = config.copy_and_resolve_references().unlock()
    for change in changes:
        section, method, *_ = (*_path(change), "")
        if section == "method_options" and method not in copy.method_options:
            copy.method_options[method] = ConfigDict()  # it has no settings of its own yet
    own = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict(
            "config",
            copy,
            flag_values=own,
            lock_config=False,
            accept_new_attributes=True,  # options of methods; `check` refuses what is no setting
            sys_argv=argv,
        )
        own(argv)
    except Exception as error:  # absl and ml_collections raise many kinds
        raise UserError(reason_of(error).removeprefix("flag --")) from error
    return own["config"].value


def _path(change: str) -> tuple[str, ...]:
    """Returns the parts of the name of the field that a change sets."""
    field, equals, _ = change.partition("=")
    try:
        parts = config_path.split(field) if equals else ()
    except ValueError:
        parts = ()
    if not parts or not all(isinstance(part, str) for part in parts):
        raise UserError(f"{change!r} is no setting; it must be written as field=value")
    return parts


def _check_changes(changes: Sequence[str]) -> None:
    """Checks that a variant changes settings, each once, and none that all have in common."""
    if not changes:
        raise UserError("it changes nothing; give it settings, such as 'sampling.k=50'")
    known, seen = field_types(), set()
    for field in (".".join(_path(change)) for change in changes):
        of = [name for name in known if field == name or field.startswith(f"{name}.")]
        if not of or (field not in of and "dict[" not in str(known[of[0]])):
            raise UserError(f"config.{field} is no setting; allowed: {', '.join(sorted(known))}")
        if field in seen:
            raise UserError(f"config.{field} is there twice")
        if any(field == name or field.startswith(f"{name}.") for name in COMMON):
            raise UserError(
                f"config.{field} is the same for all variants, or they could not be compared; "
                f"leave it out"
            )
        seen.add(field)


def _settings(config: ConfigDict, of_all: Settings) -> Settings:
    """Returns the settings of a variant's run, checked as a whole.

    Args:
      config: of the variant.
      of_all: the settings of the configuration.
    """
    own = config.copy_and_resolve_references().unlock()
    row = own.ablation.row
    if not isinstance(row, str) or pair(row) is None:
        raise UserError(
            f"config.ablation.row is {row!r}; it must be one of {', '.join(ALL)}, or a pair "
            f"training/detector"
        )
    with own.ignore_type():
        own.methods = (row,)
        own.seeds = of_all.ablation.seeds or of_all.seeds or (of_all.seed,)
    found = check(own)
    return replace(found, data=on_tuning_sets(found.data))
