"""Bad settings, image files at random: what goes into the programs from outside."""

import importlib.util
import json
import os
import sys

from tests.soak import programs
from tests.soak.laboratory import Case, Outcome
from tests.soak.programs import REPOSITORY, Program

SECONDS = 10.0  # in which a bad setting is refused, on a machine that is not overloaded
FILES = 100  # image files of a case
FUZZ = """
import json, pathlib, sys
from tests import fuzz_images
count, seed, folder = sys.argv[1:]
print(json.dumps(fuzz_images.run(int(count), int(seed), pathlib.Path(folder))))
"""


def missing(part: str) -> str:
    """Returns what a part lacks to run; empty if nothing."""
    module = {"images": "tests.fuzz_images", "settings": "tests.fuzz_settings"}.get(part)
    absent = module and importlib.util.find_spec(module) is None
    return f"there is no {module.replace('.', '/')}.py" if absent else ""


def images(case: Case) -> Outcome:
    """Damages image files at random, and reads them."""
    from tests import fuzz_images  # type: ignore[attr-defined]  # another part of the tests

    outcome, seed = Outcome(), case.random().randrange(2**31)
    case.folder.mkdir(parents=True, exist_ok=True)
    variables = programs.environment(case.laboratory.compiled) | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", FUZZ, str(FILES), str(seed), str(case.folder)]
    ending = Program(command, variables, REPOSITORY).end()
    if not outcome.expect("BROKEN", "" if ending.status == 0 else str(ending)):
        return outcome
    figures = json.loads(ending.printed[-1])
    outcome.counts.update(files=FILES, read=figures["read"], refused=figures["refused"])
    outcome.most["most memory of a file, MB"] = round(figures["peak_mb"])
    wrong = {name.upper(): figures[name] for name in fuzz_images.FAULTS}
    wrong["ABOVE 1 GB"] = int(figures["peak_mb"] >= 1024)
    for name, count in wrong.items():
        outcome.expect(name, "; ".join(ending.errors) if count else "")
    return outcome


def settings(case: Case) -> Outcome:
    """Starts a launch program with something that it must refuse, in one line and soon."""
    from tests import fuzz_settings  # type: ignore[attr-defined]  # another part of the tests

    outcome = Outcome()
    ((program, arguments),) = fuzz_settings.bad_settings(case.random().randrange(2**31), 1)
    case.folder.mkdir(parents=True, exist_ok=True)
    for name in ("configs", "dream_jax", "launch", "tests"):
        (case.folder / name).symlink_to(REPOSITORY / name)
    variables = programs.environment(case.laboratory.compiled)
    ending = Program(programs.command(program, arguments), variables, case.folder).end(120)
    outcome.counts["settings"] += 1
    place = f"{program} {' '.join(arguments)}"
    if ending.status is None:
        outcome.expect("HANGS", f"{place}: {ending}")
    elif outcome.expect("NOT ONE LINE", "" if ending.refusal else f"{place}: {ending}"):
        slow = ending.seconds > SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        outcome.expect("SLOW", f"{place}: {ending.seconds:.1f} s" if slow else "")
    return outcome
