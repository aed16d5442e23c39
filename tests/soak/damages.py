"""Damages a file of a finished run, starts the run again, and does what its line advises."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.soak import results
from tests.soak.advice import read_advice
from tests.soak.laboratory import (
    METHODS,
    MORE_ROWS,
    Case,
    Laboratory,
    Outcome,
    Reference,
    without_privileges,
)

EVALUATED = [*(f"evaluation/{name}" for name in ("cross_entropy", *METHODS[2:])), "metrics.json"]
# Folder of a stage → what is made from it; deleted at random, so that the damage matters.
READERS = {
    "latent_space": ["embeddings", "embeddings/inliers", "report"],
    "embeddings": ["images/outliers"],
    "embeddings/inliers": ["images/inliers"],
    "images/outliers": ["classifier/dream_ood"],
    "images/inliers": ["classifier/dream_id"],
    "images/by_name": ["classifier/dream_ood"],
    "images/by_name_test": ["evaluation/legible", *EVALUATED],
    "images/round_trips_test": EVALUATED,
    "images/round_trips_train": ["classifier/dream_ood", "classifier/vos"],
    "classifier/cross_entropy": ["classifier/dream_ood", "evaluation/legible"],
    "evaluation": ["metrics.json", "report"],
    "metrics.json": ["report"],
}


def run(case: Case) -> Outcome:
    """Damages one file; often also deletes what was made from it, or asks for more rows."""
    laboratory, draw, outcome = case.laboratory, case.random(), Outcome()
    workdir, plain = case.folder / "run", laboratory.reference()
    shutil.copytree(plain.workdir, workdir)
    path = _draw_file(draw, workdir)
    kind, before = _damage(draw, path), path.relative_to(workdir).as_posix()
    flags: tuple[str, ...] = ()
    then = draw.choices(("nothing else", "deleted", "more rows"), (4, 5, 2))[0]
    if then == "more rows":
        flags = (MORE_ROWS,)
    elif then == "deleted":
        gone = _delete_reader(draw, workdir, before)
        then = f"{gone} deleted" if gone else "nothing else"
    what = f"{before} {kind}, {then}"
    outcome.counts.update({"damages": 1, f"damages of {_sort(before)}": 1})
    attempt = Attempt(laboratory, workdir, laboratory.reference(flags=flags), flags, draw)
    damaged = _content(path)
    ending = attempt.start()
    if ending.status == 0 and not ending.wrong:
        verdict, fault = attempt.judge(before, _content(path) == damaged)
    elif ending.refusal:
        verdict, fault = attempt.follow(ending.refusal)
    else:
        verdict, fault = "NO CLEAR LINE", str(ending)
    if verdict.isupper():
        outcome.expect(verdict, f"{what}: {fault}")
    else:
        outcome.counts[verdict] += 1
    return outcome


class Attempt:
    """A damaged run that is started again, as a user would."""

    def __init__(
        self,
        laboratory: Laboratory,
        workdir: Path,
        reference: Reference,
        flags: tuple[str, ...],
        draw: random.Random,
    ):
        self.laboratory, self.workdir, self.reference = laboratory, workdir, reference
        self.flags, self.draw = flags, draw

    def start(self, more: tuple[str, ...] = ()):
        prefix = without_privileges() or ()
        return self.laboratory.finish(self.workdir, flags=(*self.flags, *more), prefix=prefix)

    def judge(self, damaged: str, left: bool) -> tuple[str, str]:
        """Judges a run that ended well: what it left must be right, but for the damage itself.

        Args:
          damaged: the file that was damaged.
          left: whether it still is as the damage left it.
        """
        others = results.differences(results.read(self.workdir), self.reference.results)
        own = [text for text in others if text.startswith((f"{damaged} ", f"{damaged}/"))]
        if len(others) > len(own):
            return "SILENTLY WRONG", ", ".join(others[:6])
        if not own:
            return ("unneeded" if left else "repaired"), ""
        if damaged in ("config.json", "metrics.json") or damaged.startswith("report/"):
            return "LEFT DAMAGED", own[0]
        return ("unneeded", "") if left else ("SILENTLY WRONG", own[0])

    def follow(self, line: str) -> tuple[str, str]:
        """Does what a line advises, starts the run again and judges that."""
        advice = read_advice(line, self.draw)
        if advice is None:
            return "NO ADVICE", line
        path = advice.path and advice.path.resolve()
        if path and not (path.is_relative_to(self.workdir) and path.exists()):
            return "ADVICE FAILS", f"{path} is no part of the run: {line}"
        if path and advice.delete:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif path:
            path.chmod(0o755)
        if advice.elsewhere:
            self.workdir = self.workdir.with_name("another")
        ending = self.start(advice.flags)
        if ending.status != 0 or ending.wrong:
            return "ADVICE FAILS", f"after {line!r} comes {ending}"
        others = results.differences(results.read(self.workdir), self.reference.results)
        return ("ADVICE FAILS", f"{line} → {others[:6]}") if others else ("advice worked", "")


# The damages: each changes a file, and returns False where it cannot.


def _cut(path: Path, draw: random.Random) -> bool:
    size = path.stat().st_size
    return size > 1 and path.write_bytes(path.read_bytes()[: draw.randrange(1, size)]) > 0


def _empty(path: Path, draw: random.Random) -> bool:
    return path.stat().st_size > 0 and path.write_bytes(b"") == 0


def _flip(path: Path, draw: random.Random) -> bool:
    content = bytearray(path.read_bytes())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
    return bool(content)


def _zero_half(path: Path, draw: random.Random) -> bool:
    content = path.read_bytes()
    half = len(content) // 2
    return half > 0 and path.write_bytes(content[:half] + bytes(len(content) - half)) > 0


def _delete(path: Path, draw: random.Random) -> bool:
    path.unlink()
    return True


def _write(text: str) -> Callable[[Path, random.Random], bool]:
    return lambda path, draw: path.write_text(text) > 0


def _folder(path: Path, draw: random.Random) -> bool:
    path.unlink()
    path.mkdir()
    return True


def _forbid(path: Path, draw: random.Random) -> bool:
    if without_privileges() is None:
        return False
    path.chmod(0)
    return True


def _exchange(path: Path, draw: random.Random) -> bool:
    """Puts another file of the run there that has the same ending."""
    root = next(parent for parent in path.parents if (parent / "config.json").exists())
    others = [p for p in sorted(root.rglob(f"*{path.suffix}")) if p.is_file() and p != path]
    others = [p for p in others if p.read_bytes() != path.read_bytes()]
    if others:
        shutil.copyfile(draw.choice(others), path)
    return bool(others)


def _lose_a_key(path: Path, draw: random.Random) -> bool:
    """Leaves a value out of a JSON file, or replaces it by one of another type."""
    if path.suffix != ".json":
        return False
    tree = json.loads(path.read_bytes())
    place = tree
    while isinstance(place, dict) and place:
        key = draw.choice(sorted(place))
        if not isinstance(place[key], dict) or draw.random() < 0.4:
            value = draw.choice([None, 3, "text", [], {}])
            place.pop(key) if draw.random() < 0.5 else place.update({key: value})
            break
        place = place[key]
    path.write_text(json.dumps(tree, indent=2) + "\n")
    return True


DAMAGES: dict[str, Callable[[Path, random.Random], bool]] = {
    "cut short": _cut,
    "emptied": _empty,
    "with a bit flipped": _flip,
    "with its second half zero": _zero_half,
    "deleted": _delete,
    "replaced by {}": _write("{}"),
    "replaced by []": _write("[]"),
    "replaced by text": _write("this is another file\n"),
    "replaced by a folder": _folder,
    "unreadable": _forbid,
    "exchanged for another": _exchange,
    "with a value lost": _lose_a_key,
}


def _damage(draw: random.Random, path: Path) -> str:
    """Damages a file in a way that changes it, and returns how."""
    before, kinds = path.read_bytes(), list(DAMAGES)
    draw.shuffle(kinds)
    for kind in kinds:
        if DAMAGES[kind](path, draw) and _content(path) != before:
            return kind
    raise AssertionError(f"{path} cannot be damaged")


def _content(path: Path) -> bytes | str:
    """What is at a path; permissions are part of it."""
    if not path.exists():
        return "nothing"
    if path.is_dir():
        return "a folder"
    return path.read_bytes() if path.stat().st_mode & 0o400 else "an unreadable file"


def _sort(name: str) -> str:
    """The sort of a file, by its name relative to the run's folder."""
    if results.CHECKPOINTS in name:
        return "checkpoints"
    if name.startswith("report/"):
        return "report"
    own = Path(name).name
    return own if own in ("stage.json", "config.json", "metrics.json") else Path(own).suffix[1:]


def _draw_file(draw: random.Random, workdir: Path) -> Path:
    """Draws a sort of files, then a stage, then one of its files."""

    def narrow(files: list[Path], key: Callable[[Path], str]) -> list[Path]:
        chosen = draw.choice(sorted({key(path) for path in files}))
        return [path for path in files if key(path) == chosen]

    files = [path for path in sorted(workdir.rglob("*")) if path.is_file()]
    files = narrow(files, lambda path: _sort(path.relative_to(workdir).as_posix()))
    return draw.choice(narrow(files, lambda path: str(path.relative_to(workdir).parts[:2])))


def _delete_reader(draw: random.Random, workdir: Path, damaged: str) -> str:
    """Deletes something that is made from the damaged file; returns its name, "" if nothing."""
    for part in (damaged, *(str(parent) for parent in Path(damaged).parents)):
        readers = READERS.get(part)
        if part.startswith("classifier/"):
            readers = [*(readers or ()), part.replace("classifier", "evaluation"), "report"]
        readers = [name for name in readers or () if (workdir / name).exists()]
        if readers:
            name = draw.choice(readers)
            path = workdir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            return name
    return ""
