"""Kills a run again and again until it ends, and compares it with one that nothing disturbed."""

import random
import signal
from collections.abc import Callable

from tests.soak import results
from tests.soak.laboratory import LAYOUTS, Case, Outcome, Reference
from tests.soak.programs import Ending, Program

LIMIT = 90.0  # seconds in which a program ends that was asked to; others of its run too
MOST = 40  # kills of one run
EDGE = 0.03  # seconds around the beginning of a stage, where records are written
WAITING = "waiting for all processes"  # what one of several says from time to time
Moment = Callable[[Program], bool]


def run(case: Case) -> Outcome:
    """Kills one run at random moments of random stages."""
    laboratory, draw, outcome = case.laboratory, case.random(), Outcome()
    (layout,) = draw.choices(list(LAYOUTS), list(LAYOUTS.values()))
    reference, workdir = laboratory.reference(layout), case.folder / "run"
    for number in range(MOST + 1):
        started = laboratory.start(workdir, layout)
        moment = _draw_moment(draw, reference)
        if number < MOST and not laboratory.over and moment(started[0]):
            stage = _stage(started[0])
            kind, endings = _kill(draw, started)
            outcome.counts.update({"kills": 1, f"kills, {layout}": 1, f"kills in {stage}": 1})
            outcome.counts[kind.name] += 1
            for ending in endings:
                hangs = ending.status is None
                outcome.expect("HANGS", f"{kind.name} in {stage}: {ending.wrong}" if hangs else "")
            if wrong := _unclean(kind, stage, endings[0]):
                outcome.expect("UNCLEAN ENDINGS", f"{kind.name} in {stage}: {wrong}")
            continue
        endings = [program.end() for program in started]
        wrong = [str(ending) for ending in endings if ending.status != 0 or ending.wrong]
        if outcome.expect("DOES NOT CONTINUE", "; ".join(wrong)):
            others = results.differences(results.read(workdir), reference.results)
            outcome.expect("DIFFERS", ", ".join(others[:8]))
        break
    outcome.counts["runs"] += 1
    return outcome


def _stage(program: Program) -> str:
    """The stage that the program has last begun."""
    begun = [line for line in program.printed if line.startswith("── ")]
    return begun[-1].removeprefix("── ") if begun else "start-up"


def _draw_moment(draw: random.Random, reference: Reference) -> Moment:
    """Draws when to kill: in start-up, where a stage begins, or within a stage."""
    where = draw.choices(("start-up", "edge", "within"), (1, 2, 7))[0]
    later, share = draw.choices(range(5), (3, 6, 4, 3, 2))[0], draw.random()

    def moment(program: Program) -> bool:
        if where == "start-up":
            return program.sleep(3 * share)
        if not program.wait(lambda lines: sum(line.startswith("── ") for line in lines) > later):
            return False
        seconds = 1.2 * max(0.1, reference.seconds.get(_stage(program), 1.0))
        return program.sleep(share * (EDGE if where == "edge" else seconds))

    return moment


def _kill(draw: random.Random, started: list[Program]) -> tuple[signal.Signals, list[Ending]]:
    """Sends a signal to all processes or to one, and waits until all have ended.

    The first ending is that of a process that got the signal.
    """
    kind = draw.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    victims = list(started)
    draw.shuffle(victims)
    alone = draw.random() < 0.15
    for program in victims[: 1 if alone else None]:
        program.signal(kind)
    if kind != signal.SIGKILL and draw.random() < 0.1:  # impatient
        victims[0].sleep(draw.random())
        for program in victims:
            program.signal(signal.SIGKILL)
        kind = signal.SIGKILL
    return kind, [program.end(LIMIT) for program in victims]


def _unclean(kind: signal.Signals, stage: str, ending: Ending) -> str:
    """What is wrong about the ending of a program that was asked to end; empty if nothing.

    A signal may come before the program can handle it, or when all is done.
    """
    if kind == signal.SIGKILL or ending.status in (0, None):
        return ""
    if stage == "start-up" and ending.status == -kind and not ending.errors:
        return ""
    lines = [line for line in ending.errors if WAITING not in line]
    good = ending.status == 128 + kind and len(lines) == 1 and not ending.wrong
    return "" if good else str(ending)
