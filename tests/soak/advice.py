"""What the lines of the programs advise, so that the soak test can do it."""

import random
import re
from pathlib import Path
from typing import NamedTuple


class Advice(NamedTuple):
    """What a line says to do before the next start: something with a path, flags, another folder.

    `delete` tells whether the path is to be deleted, or made readable.
    """

    path: Path | None = None
    delete: bool = True
    flags: tuple[str, ...] = ()
    elsewhere: bool = False


# The forms of advice. `it` and the like mean the first path of the line.
DELETE = re.compile(
    r"delete (the (file|folder) )?"
    r"(?P<named>/\S+?)?(?P<it>it|(this|that) (file|folder))?(?=[ ,;:.]|$)"
)
PERMIT = re.compile(r"give the right to it")
FLAGS = re.compile(r"(?P<stages>--stages=\S+ )?--overwrite")
ELSEWHERE = re.compile(r"another --workdir")
SAME = re.compile(r"(run|start) (it |the same command )?again|the same command")
SUBJECT = re.compile(r"(?<![\w/])(/[^:,;'\"]*?)(?=[:,;'\"]| holds | is | has | cannot |$)")


def read_advice(line: str, draw: random.Random) -> Advice | None:
    """Returns what a line advises, one of it where it leaves a choice; None if nothing known."""
    choices: list[Advice] = []
    subject = SUBJECT.search(line)
    for found in DELETE.finditer(line):
        if found["named"]:
            choices.append(Advice(Path(found["named"])))
        elif found["it"] and subject:
            choices.append(Advice(Path(subject[1])))
    if PERMIT.search(line) and subject:
        choices.append(Advice(Path(subject[1]), delete=False))
    choices += [Advice(flags=tuple(found[0].split())) for found in FLAGS.finditer(line)]
    if ELSEWHERE.search(line):
        choices.append(Advice(elsewhere=True))
    if not choices and SAME.search(line):
        choices.append(Advice())
    return draw.choice(choices) if choices else None
