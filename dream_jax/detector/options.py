"""The settings that a training or a detector declares, each with its default."""

from collections.abc import Mapping, Sequence
from typing import Any

from dream_jax import rules
from dream_jax.errors import UserError
from dream_jax.rules import Option

Options = Mapping[str, Any]


def number(default: float, low: float, high: float) -> Option:
    """Declares a number in [`low`, `high`]."""
    return Option(default, rules.number(low, high))


def whole(default: int, low: int) -> Option:
    """Declares a whole number of at least `low`."""
    return Option(default, rules.whole(low))


def choice(default: str, allowed: Sequence[str]) -> Option:
    """Declares one of some texts."""
    return Option(default, rules.one_of(allowed))


def resolve(name: str, options: Mapping[str, Option], given: Options) -> dict[str, Any]:
    """Returns all settings of `name`: the given ones in place of the defaults.

    Raises:
      UserError: there is no such setting, or its value is not allowed.
    """
    for key, value in given.items():
        if key not in options:
            raise UserError(
                f"{name} has no setting {key!r}; allowed: {', '.join(options) or 'none'}"
            )
        if not options[key].rule.holds(value):
            raise UserError(f"{name}: {key} is {value!r}; it must be {options[key].rule.allowed}")
    return {key: given.get(key, option.default) for key, option in options.items()}
