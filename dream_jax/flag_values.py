"""Which of several values given for one flag counts."""

from collections.abc import Sequence


def last_of_each(argv: Sequence[str]) -> list[str]:
    """Returns a command line in which of every setting that is given twice the last one is left.

    Without this, ml_collections takes the values of a list's flags together:
    `--config.data.ood=a --config.data.ood=b` would be both sets, while the second one of any other
    flag replaces the first.

    Args:
      argv: the program's name, then flags as `--config.field=value` or `--config.field value`.
    """
    kept: list[str] = []
    seen: set[str] = set()
    flags = list(argv)
    rest = flags[flags.index("--") :] if "--" in flags else []
    for part in _parts(flags[: len(flags) - len(rest)])[::-1]:
        name = part[0].lstrip("-").partition("=")[0]
        if not (part[0].startswith("-") and name.startswith("config.") and name in seen):
            kept = part + kept
        if part[0].startswith("-"):
            seen.add(name)
    return kept + rest


def _parts(flags: list[str]) -> list[list[str]]:
    """Returns each flag, with its value where that is an argument of its own."""
    parts: list[list[str]] = []
    for argument in flags:
        before = parts[-1][0] if parts and len(parts[-1]) == 1 else ""
        takes_one = before.lstrip("-").startswith("config.") and "=" not in before
        if takes_one and before.startswith("-") and not argument.startswith("-"):
            parts[-1].append(argument)
        else:
            parts.append([argument])
    return parts
