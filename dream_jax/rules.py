"""What values a setting may have: one rule for its check, its error message and its type."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """Whether a value is allowed, and in words which values are."""

    holds: Callable[[Any], bool]
    allowed: str


def whole(low: int) -> Rule:
    """Returns the rule of a whole number of at least `low`."""
    return Rule(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low,
        f"a whole number of at least {low}",
    )


def number(low: float, high: float = math.inf) -> Rule:
    """Returns the rule of a finite number in [`low`, `high`]."""
    upper = f" and at most {high:g}" if high < math.inf else ""
    return Rule(
        lambda value: _is_number(value) and low <= value <= high,
        f"a number of at least {low:g}{upper}",
    )


def above(low: float, high: float = math.inf) -> Rule:
    """Returns the rule of a finite number in (`low`, `high`]."""
    upper = f" and at most {high:g}" if high < math.inf else ""
    return Rule(
        lambda value: _is_number(value) and low < value <= high,
        f"a number above {low:g}{upper}",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def one_of(allowed: Collection) -> Rule:
    """Returns the rule of one of some values of one type."""

    def holds(value: Any) -> bool:
        return any(type(value) is type(known) and value == known for known in allowed)

    return Rule(holds, f"one of {', '.join(map(str, sorted(allowed)))}")


def text(allowed: str, empty: bool = True, holding: str = "") -> Rule:
    """Returns the rule of a text that contains `holding`."""
    return Rule(
        lambda value: isinstance(value, str) and (empty or bool(value)) and holding in value,
        allowed,
    )


def texts(allowed: str, empty: bool = True, holding: str = "") -> Rule:
    """Returns the rule of a list of texts, each of which contains `holding`."""

    is_text = text(allowed, holding=holding).holds

    def holds(value: Any) -> bool:
        return is_list(value) and (empty or len(value) > 0) and all(map(is_text, value))

    return Rule(holds, allowed)


def seeds(allowed: str) -> Rule:
    """Returns the rule of a list of whole numbers of at least 0, each once."""
    is_whole = whole(0).holds
    return Rule(
        lambda value: is_list(value) and all(map(is_whole, value)) and is_distinct(value), allowed
    )


def mapping(allowed: str, values: type) -> Rule:
    """Returns the rule of a mapping from texts to values of a type, texts not empty."""

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(
            isinstance(item, values) and (item or values is not str) for item in value.values()
        )

    return Rule(holds, allowed)


def is_list(value: Any) -> bool:
    """Returns whether `value` is a tuple or a list."""
    return isinstance(value, tuple | list)


def is_distinct(values: Sequence) -> bool:
    """Returns whether no value is there twice."""
    return len(set(values)) == len(values)


class Option(NamedTuple):
    """A setting that a training or a detector declares: its default and its rule."""

    default: Any
    rule: Rule
