"""The settings that a detector or a training method declares, with defaults and what is allowed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dream_jax.errors import UserError


class Option(NamedTuple):
    """A setting: its default, whether a value is allowed, and what is, in words."""

    default: Any
    holds: Callable[[Any], bool]
    allowed: str


def number(default: float, low: float, high: float) -> Option:
    """A number in [low, high]."""

    def holds(value) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and low <= value <= high

    return Option(default, holds, f"a number of at least {low:g} and at most {high:g}")


def whole(default: int, low: int) -> Option:
    """A whole number of at least `low`."""

    def holds(value) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= low

    return Option(default, holds, f"a whole number of at least {low}")


def choice(default: str, allowed: Sequence[str]) -> Option:
    """One of some texts."""
    return Option(default, lambda value: value in allowed, f"one of {', '.join(allowed)}")


def resolve(name: str, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of `name`: the given ones in place of the defaults.

    Raises:
      UserError: there is no such setting, or its value is not allowed.
    """
    for key, value in given.items():
        if key not in options:
            raise UserError(
                f"{name} has no setting {key!r}; allowed: {', '.join(options) or 'none'}"
            )
        if not options[key].holds(value):
            raise UserError(f"{name}: {key} is {value!r}; it must be {options[key].allowed}")
    return {key: given.get(key, option.default) for key, option in options.items()}
