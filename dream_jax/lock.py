"""One run at a time in a folder: a file `.lock` in it names the process that works there.

The file is made with O_EXCL, which exactly one process can do, on the disks of one machine as well
as on network file systems. `flock` is not used: many network file systems, and many that are
mounted from a cloud's store, ignore it or lock each host for itself.

The kernel does not delete the file of a process that was killed, so that one that comes later must
find out whether the holder lives:

- On the same machine, by its number and the time at which it started, as numbers are used again.
  Machines are told apart by the number of the boot and by the space that process numbers are of,
  not by names: containers and virtual machines often share one.
- On another, by the file's time, which the holder renews every `BEAT` seconds and which counts as
  that of a dead process after `DEAD` seconds. It is compared with that of a file written just now,
  not with this machine's clock.

A dead process's lock is deleted under a lock of its own, which is named after the one that is
deleted: of two that find it dead at the same time, one does so, and neither can mistake the
other's new lock for the dead one. A holder that finds another's token in the file, because it was
suspended for long, ends.
"""

import errno
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dream_jax.errors import UserError

NAME = ".lock"
BEAT = 20
DEAD = 180


@dataclass(frozen=True)
class Holder:
    """The process that works in a folder; empty where its file was cut short."""

    host: str = ""
    machine: str = ""
    process: int = 0
    started: str = ""  # by the machine's clock; tells it from a later process of that number
    since: str = ""
    program: str = ""
    token: str = ""


_held: dict[Path, str] = {}  # file → its token, of this process


@contextmanager
def hold(folder: Path, lost: Callable[[str], None], flag: str = "--workdir") -> Iterator[None]:
    """Holds the lock of a folder, which is made if it is missing.

    A folder that nothing can be written into needs no lock. One that was made for it is deleted
    again if nothing else was written.

    Args:
      lost: called in a thread, with a line, if another process has taken the lock over.
      flag: what messages call the folder.

    Raises:
      UserError: another process holds it, or the folder cannot be made.
    """
    made = _make(folder, flag)
    file = folder / NAME
    taken = file not in _held and os.access(folder, os.W_OK)  # not again inside of a run
    if taken:
        taken = _try(file, flag)
    if taken:
        threading.Thread(target=_beat, args=(file, lost), daemon=True, name="lock").start()
    try:
        yield
    finally:
        if taken:
            _release(file)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def release_all() -> None:
    """Gives back the locks of this process, which is about to end."""
    for file in tuple(_held):
        _release(file)


def _make(folder: Path, flag: str) -> list[Path]:
    """Makes a folder; returns what was made, the innermost first."""
    made = []
    for parent in (folder, *folder.parents):
        if parent.exists():
            break
        made.append(parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = next((f"{p} is a file" for p in (folder, *folder.parents) if p.is_file()), "")
        raise UserError(
            f"{flag} {folder} cannot be made ({fault or error.strerror}); give another"
        ) from error
    return made


def _try(file: Path, flag: str) -> bool:
    """Takes the lock; returns False where nothing can be written."""
    try:
        _take(file, _myself())
    except FileExistsError as error:
        raise UserError(f"{flag} {error}") from None
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return False
        raise
    return True


def _take(file: Path, holder: Holder) -> None:
    """Makes the file, after deleting that of a dead process.

    Raises:
      FileExistsError: a living process has it; the text names it.
    """
    while True:
        with suppress(FileExistsError):
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            break
        found = _read(file)
        if found is None:
            continue  # it was given back in between
        silence = _silence(file)
        if _lives(found, silence):
            raise FileExistsError(_refusal(file, found, silence))
        claim = file.with_name(f"{file.name}-after-{found.token or 'nobody'}")
        _take(claim, holder)
        try:
            if _read(file) == found:
                file.unlink()
        finally:
            _release(claim)
    _held[file] = holder.token
    try:
        with os.fdopen(handle, "w") as opened:
            json.dump(asdict(holder), opened)
    except OSError:  # a full disk: an empty lock would keep everybody out
        _held.pop(file)
        file.unlink()
        raise


def _release(file: Path) -> None:
    """Deletes the file if it is this process's."""
    token = _held.pop(file, "")
    with suppress(OSError):
        found = _read(file)
        if found is not None and found.token == token:
            file.unlink()


def _read(file: Path) -> Holder | None:
    """Returns the holder, or None where there is no file; waits a moment for one being written."""
    for _ in range(10):
        try:
            return Holder(**json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            time.sleep(0.05)
    return Holder()


def _lives(found: Holder, silence: float) -> bool:
    """Returns whether the holder of a lock lives, as far as can be known."""
    if found.machine and found.machine == _machine():
        return _started(found.process) == found.started != ""
    return silence < DEAD


def _silence(file: Path) -> float:
    """Returns the seconds since a lock was renewed, by the clock of its file system."""
    probe = file.with_name(f"{NAME}-probe-{secrets.token_hex(8)}")
    try:
        probe.touch()
        return probe.stat().st_mtime - file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _beat(file: Path, lost: Callable[[str], None]) -> None:
    """Renews the file's time while this process holds it."""
    token = _held.get(file)
    while True:
        time.sleep(BEAT)
        if token is None or _held.get(file) != token:
            return
        found = _read(file)
        if _held.get(file) == token and (found is None or found.token != token):
            _held.pop(file, None)
            lost(f"{file} is no longer of this process; {_name(found or Holder())} has it")
            return
        with suppress(OSError):  # the network may be away for a while
            os.utime(file)


def _refusal(file: Path, found: Holder, silence: float) -> str:
    line = f"{file.parent} is in use by {_name(found)}; wait for it, or give another"
    if found.machine == _machine():
        return line
    return (
        f"{line} (its last sign of life is {silence:.0f} s old; after {DEAD} s it counts as dead)"
    )


def _name(found: Holder) -> str:
    if not found.token:
        return "another process"
    return f"process {found.process} on host {found.host} ({found.program}) since {found.since}"


def _myself() -> Holder:
    return Holder(
        host=socket.gethostname(),
        machine=_machine(),
        process=os.getpid(),
        started=_started(os.getpid()),
        since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        program=Path(sys.argv[0]).name,
        token=secrets.token_hex(8),
    )


def _machine() -> str:
    """Tells apart the spaces of process numbers; where the system does not say, the host's name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(process: int) -> str:
    """Returns when a process started, in the system's own terms; empty if there is none."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    listed = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()
