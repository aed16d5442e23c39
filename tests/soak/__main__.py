"""Disturbs runs at random for a chosen time, and says what did not hold.

    python -m tests.soak --minutes=60 --seed=7 --parts=kills,damages --folder=/tmp/soak
    python -m tests.soak --seed=7 --repeat=damages:12     one case alone, whose folder is kept

Parts: `kills` of runs over one, two and four devices and two processes; `damages` of the files of a
finished run, whose advice is followed; `disk`, which fills up; `images`, files damaged at random;
`settings`, which no program accepts. What a case does follows from the seed and its number, but for
the moment at which a signal arrives. Ends with the figures, also as figures.json in the folder, and
with status 1 if anything was wrong. Figures in capitals are faults.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from tests.soak import damages, disk, inputs, kills
from tests.soak.laboratory import Case, Laboratory, Outcome
from tests.soak.programs import REPOSITORY, kill_all

# Name → its cases, and its share of the time.
PARTS: dict[str, tuple[Callable[[Case], Outcome], float]] = {
    "kills": (kills.run, 0.45),
    "damages": (damages.run, 0.35),
    "disk": (disk.run, 0.06),
    "images": (inputs.images, 0.06),
    "settings": (inputs.settings, 0.08),
}


def arguments() -> argparse.Namespace:
    described = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m tests.soak", None, __doc__, formatter_class=described
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them")
    parser.add_argument("--jobs", type=int, default=2, help="cases at the same time")
    parser.add_argument("--folder", type=Path, help="for all files; a temporary one if not given")
    parser.add_argument("--repeat", metavar="PART:NUMBER", help="one case alone")
    given = parser.parse_args()
    given.parts = [given.repeat.split(":")[0]] if given.repeat else given.parts.split(",")
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"--parts names {sorted(unknown)}; allowed: {', '.join(PARTS)}")
    return given


class Soak:
    """Hands out cases to threads until the time is over, and keeps what they find."""

    def __init__(self, laboratory: Laboratory, parts: list[str], seed: int):
        self.laboratory, self.parts, self.seed = laboratory, parts, seed
        self.spent = dict.fromkeys(parts, 0.0)
        self.numbers: Counter[str] = Counter()
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.faults: list[str] = []
        self._lock = threading.Lock()

    def next_case(self) -> Case:
        """Returns a case of the part that is furthest behind its share of the time."""
        part = min(self.parts, key=lambda name: self.spent[name] / PARTS[name][1])
        self.spent[part] += 5.0 * PARTS[part][1]  # lest both jobs begin with the same part
        self.numbers[part] += 1
        return Case(self.laboratory, part, self.numbers[part], self.seed)

    def run(self, case: Case, keep: bool = False) -> None:
        """Runs a case; its folder stays if something was wrong."""
        begin = time.monotonic()
        shutil.rmtree(case.folder, ignore_errors=True)
        outcome = PARTS[case.part][0](case)
        if self.laboratory.stopped:
            return
        with self._lock:
            self.spent[case.part] += time.monotonic() - begin
            counts = self.counts[case.part]
            counts.update(outcome.counts)
            for name, value in outcome.most.items():
                counts[name] = max(counts[name], value)
            for fault in outcome.faults:
                self.faults.append(f"{case.name}: {fault}")
                tqdm.write(f"{case.name}: {fault}")
        if outcome.faults:
            root = self.laboratory.folder
            again = f"python -m tests.soak --seed={self.seed} --repeat={case.name} --folder={root}"
            tqdm.write(f"    again: {again}\n    kept:  {case.folder}")
        elif not keep:
            shutil.rmtree(case.folder, ignore_errors=True)

    def run_all(self, jobs: int, minutes: float) -> None:
        """Runs cases side by side until no more may begin, and waits for the last ones."""
        begin = time.monotonic()
        running: set[Future] = set()
        form = "{l_bar}{bar}| {n:.1f} of {total:.0f} min {postfix}"
        with ThreadPoolExecutor(jobs) as pool, tqdm(total=minutes, bar_format=form) as bar:
            try:
                while running or not self.laboratory.over:
                    while len(running) < jobs and not self.laboratory.over:
                        running.add(pool.submit(self.run, self.next_case()))
                    done, running = wait(running, 5, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    bar.n = min((time.monotonic() - begin) / 60, minutes)
                    bar.set_postfix(dict(self.numbers) | {"faults": len(self.faults)})
            except BaseException:
                self.laboratory.stopped, self.laboratory.deadline = True, 0.0
                kill_all()
                raise

    def show(self, file: Path) -> None:
        """Prints the figures, and writes them as JSON."""
        for part, counts in self.counts.items():
            print(f"\n{part}")
            for name, count in sorted(counts.items(), key=lambda item: (item[0].isupper(), item)):
                print(f"  {name:<40} {count:6}")
        figures = {
            "seed": self.seed,
            "seconds": {part: round(seconds) for part, seconds in self.spent.items()},
            "figures": self.counts,
            "faults": self.faults,
        }
        file.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"\n{len(self.faults)} faults; seed {self.seed}; figures: {file}")


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    given = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)  # also where a shell's background job ignores SIGINT
    folder = given.folder or Path(tempfile.mkdtemp(prefix="dream-jax-soak-"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(REPOSITORY)
    print(f"seed {given.seed}, folder {folder}")
    for part in list(given.parts):
        if why := inputs.missing(part):
            print(f"skipped: {part}, {why}")
            given.parts.remove(part)
    if "disk" in given.parts and not disk.can_mount():
        print("skipped: disks that are full, which only root can mount; files are limited instead")
    laboratory = Laboratory(folder, time.monotonic() + 60 * given.minutes)
    soak = Soak(laboratory, given.parts, given.seed)
    interrupted = False
    try:
        laboratory.build_generator()
        if given.repeat:
            part, number = given.repeat.split(":")
            soak.run(Case(laboratory, part, int(number), given.seed), keep=True)
        elif given.parts:
            soak.run_all(given.jobs, given.minutes)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        kill_all()
        soak.show(folder / "figures.json")
    shutil.rmtree(folder / "references", ignore_errors=True)
    if given.folder is None and not soak.faults:
        shutil.rmtree(folder, ignore_errors=True)
    return 130 if interrupted else int(bool(soak.faults))


if __name__ == "__main__":
    sys.exit(main())
