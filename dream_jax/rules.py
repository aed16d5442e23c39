"""What values a setting may have: one rule for its check, its error message and its type."""

import math
import os
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

# Whole numbers are counted in 32 bits on the devices, and numbers computed in float32.
MOST_WHOLE = 2**31 - 1
MOST_NUMBER = 3.4e38
LEAST_NUMBER = 1.2e-38  # above 0
# JAX draws the same from a seed and from what its lowest 32 bits are.
MOST_SEED = 2**32 - 1
# What file systems allow, in bytes.
LONGEST_NAME = 255
LONGEST_PATH = 4000
LIST_SUFFIX = ".txt"  # of a file that lists images


def _unchanged(value: Any) -> Any:
    return value


class Rule(NamedTuple):
    """Whether a value is allowed, and in words which values are.

    `made` gives what an allowed value becomes, such as a path with the home folder for `~`.
    """

    holds: Callable[[Any], bool]
    allowed: str
    made: Callable[[Any], Any] = _unchanged


def whole(low: int, high: int = MOST_WHOLE) -> Rule:
    """Returns the rule of a whole number in [`low`, `high`]."""
    return Rule(
        lambda value: (
            isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        ),
        f"a whole number of at least {low} and at most {high}",
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
        lambda value: _is_number(value) and low + LEAST_NUMBER <= value <= high,
        f"a number above {low:g}{upper}, also in float32",
    )


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= MOST_NUMBER  # which is False of what is not finite


def one_of(allowed: Collection) -> Rule:
    """Returns the rule of one of some values of one type."""

    def holds(value: Any) -> bool:
        return any(type(value) is type(known) and value == known for known in allowed)

    return Rule(holds, f"one of {', '.join(map(str, sorted(allowed)))}")


def is_line(value: Any) -> bool:
    """Returns whether `value` is a text on one line, without control characters."""
    return isinstance(value, str) and not any(
        unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in value
    )


def is_name(value: Any) -> bool:
    """Returns whether `value` is a text on one line that is not empty."""
    return is_line(value) and bool(value.strip())


def text(allowed: str, empty: bool = True) -> Rule:
    """Returns the rule of a text on one line."""
    return Rule(is_line if empty else is_name, allowed)


def is_template(value: Any) -> bool:
    """Returns whether `value` is a text with {name} in it, and no other braces."""
    return is_line(value) and "{name}" in value and without_braces(value.replace("{name}", ""))


def without_braces(value: str) -> bool:
    """Returns whether a text, which becomes a part of a template, has no braces."""
    return "{" not in value and "}" not in value


def template() -> Rule:
    """Returns the rule of a text in which {name} stands for a class's name."""
    return Rule(is_template, "a text with {name} in it and no other braces")


def outlier_prompt() -> Rule:
    """Returns the rule of a text in which {name} may stand for a class's name."""
    return Rule(
        lambda value: is_name(value) and without_braces(value.replace("{name}", "")),
        "a text without braces but {name}",
    )


def texts(allowed: str, empty: bool = True) -> Rule:
    """Returns the rule of a list of texts that are not empty."""
    return all_of(text(allowed, empty=False), allowed, empty)


def all_of(rule: Rule, allowed: str, empty: bool = True) -> Rule:
    """Returns the rule of a list whose values all follow a rule."""

    def holds(value: Any) -> bool:
        return is_list(value) and (empty or len(value) > 0) and all(map(rule.holds, value))

    return Rule(holds, allowed, lambda value: tuple(map(rule.made, value)))


def path(allowed: str, empty: bool = True) -> Rule:
    """Returns the rule of a text that may name a file or folder, with `~` for a home folder."""
    is_text = text(allowed, empty).holds
    return Rule(lambda value: is_text(value) and _may_exist(value), allowed, os.path.expanduser)


def project() -> Rule:
    """Returns the rule of the name of a project of Weights & Biases, or of none."""
    barred = set("/\\#?%:")
    return Rule(
        lambda value: is_line(value) and len(value) <= 128 and not barred & set(value),
        f"the name of a Weights & Biases project without any of {' '.join(sorted(barred))}, or "
        f"empty",
    )


def run_name() -> Rule:
    """Returns the rule of the name of a run, which names its folder."""
    return Rule(
        lambda value: is_name(value) and _may_exist(f"./{value}"), "a text that can name a folder"
    )


def place_parts(place: str) -> tuple[str, str]:
    """Returns the image list, or "", and the folder of `list.txt@folder` or of `folder`."""
    file, is_list, folder = place.partition(f"{LIST_SUFFIX}@")
    return (f"{file}{LIST_SUFFIX}", folder) if is_list and file and folder else ("", place)


def sets(allowed: str, empty: bool = True) -> Rule:
    """Returns the rule of a list of image sets' names, some of them as name=folder or name=list."""

    def holds(value: Any) -> bool:
        return is_name(value) and all(map(_may_exist, place_parts(value.partition("=")[2])))

    def made(value: str) -> str:
        name, is_place, place = value.partition("=")
        file, folder = map(os.path.expanduser, place_parts(place))
        return f"{name}{is_place}{file}@{folder}" if file else f"{name}{is_place}{folder}"

    return all_of(Rule(holds, allowed, made), allowed, empty)


def _may_exist(path: str) -> bool:
    """Returns whether a path can be looked for: it is not too long, and its `~` is known."""
    path = os.path.expanduser(path)
    parts = [len(os.fsencode(part)) for part in path.split("/")]
    return not path.startswith("~") and max(parts) <= LONGEST_NAME and sum(parts) <= LONGEST_PATH


def seeds(allowed: str) -> Rule:
    """Returns the rule of a list of seeds, each once."""
    is_seed = whole(0, MOST_SEED).holds
    return Rule(
        lambda value: is_list(value) and all(map(is_seed, value)) and is_distinct(value), allowed
    )


def mapping(allowed: str, holds: Callable[[Any], bool]) -> Rule:
    """Returns the rule of a mapping from texts to values for which `holds` is true."""

    def is_mapping(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and all(is_line(key) for key in value)
            and all(map(holds, value.values()))
        )

    return Rule(is_mapping, allowed)


def is_suffix(value: Any) -> bool:
    """Returns whether `value` can stand in a prompt after a class's name."""
    return is_name(value) and without_braces(value)


def is_section(value: Any) -> bool:
    """Returns whether `value` is a mapping from texts."""
    return isinstance(value, dict) and all(is_line(key) for key in value)


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
