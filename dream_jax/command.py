"""The command that makes a run, as the report names it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

# Flags that say where a run lies, how many processes work, and what of it is made this time.
LEFT_OUT = ("workdir", "coordinator", "processes", "process_id", "workers", "stages", "overwrite")


def command_of(argv: Sequence[str]) -> str:
    """Returns a command line for a shell, without the flags that leave results as they are.

    So it is the same for a run that was interrupted, moved, or made step by step.

    Args:
      argv: the program and its flags; `--flag value` counts as `--flag=value`.
    """
    program, *rest = argv
    kept: list[str] = []
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("-"):
            kept.append(flag)
            continue
        name, _, value = flag.lstrip("-").partition("=")
        if not value and "=" not in flag and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        if name.removeprefix("no") not in LEFT_OUT and name not in LEFT_OUT:
            kept.append(f"--{name}={value}" if value or "=" in flag else f"--{name}")
    return shlex.join(["python", "/".join(Path(program).parts[-2:]), *kept])
