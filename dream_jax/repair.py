"""Finding finished stages whose files are missing or damaged, where these files are needed."""

import os
import stat
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from dream_jax.errors import UserError
from dream_jax.files import checksum, delete
from dream_jax.record import Record, of_checkpoint
from dream_jax.run import Run
from dream_jax.training import hosts
from dream_jax.training.curves import METRICS


def find_damage(run: Run, chosen: Sequence[str], missing: Collection[str]) -> dict[str, list[str]]:
    """Returns the damaged files of the finished stages that are made again for them.

    What a stage that will be made needs is compared with its checksums; of what the chosen stages
    have left, files must be there in their sizes, and the measures and the report be those that
    were written. The result is the same in all processes.

    Args:
      chosen: names of the stages that may be made.
      missing: those of them that will be made anyway.

    Raises:
      UserError: a stage is needed that is not chosen, and it is damaged or not done.
    """
    found = hosts.from_main(lambda: _damage(run, chosen, missing))
    for name, files in found.items():
        if name not in chosen:
            step = run.stages[name].step
            if not files:
                raise UserError(
                    f"--stages lacks {step}, whose stage {name!r} is needed and not done in "
                    f"{run.workdir}"
                )
            path = run.record(name).path(files[0])
            raise UserError(
                f"{path}: is missing or damaged, and stage {name} is not chosen to make it again; "
                f"add {step} to --stages"
            )
    return found


def damaged_files(record: Record, thorough: bool) -> list[str]:
    """Returns which recorded files of a finished stage are missing or not as they were written.

    Args:
      thorough: whether to compare checksums, and to look at the checkpoints that others read;
        otherwise only sizes are compared, but for metrics.csv, and checkpoints may be missing: what
        is finished needs them no more.
    """
    found = []
    for name, recorded in record.read()["files"].items():
        if of_checkpoint(name) and (not thorough or record.stage.open is None):
            continue
        path = record.path(name)
        whole = _size(path) == recorded["size"]
        # The report reads the curves of all trainings; they are small.
        if not whole or ((thorough or name == METRICS) and checksum(path) != recorded):
            found.append(name)
    return found


def _size(path: Path) -> int | None:
    """Returns the size of a file in bytes; None where there is none. A run has many of them."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def repair(record: Record, damaged: Iterable[str]) -> None:
    """Deletes damaged files of a stage that is made again, so that it keeps the others.

    Of a checkpoint, everything is deleted: the training goes on from the one before it.
    """
    parts = [PurePosixPath(name).parts[: 2 if of_checkpoint(name) else None] for name in damaged]
    for path in (record.path(str(Path(*part))) for part in dict.fromkeys(parts)):
        print(f"missing or damaged, made again: {path}", flush=True)
        delete(path)


def _damage(run: Run, chosen: Sequence[str], missing: Collection[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    whole = [name for name in chosen if name not in missing]
    for name in whole:
        if damaged := damaged_files(run.record(name), thorough=run.stages[name].derived):
            found[name] = damaged
    waiting, seen = [*missing, *found], set(missing)
    while waiting:
        for source in run.stages[waiting.pop()].inputs:
            if source in seen:
                continue
            seen.add(source)
            if not run.record(source).done:
                return {source: []}
            if damaged := damaged_files(run.record(source), thorough=True):
                found[source] = damaged
                waiting.append(source)
    return found
