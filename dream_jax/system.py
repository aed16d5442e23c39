"""What the system refuses (disk, permissions, memory), told in one line."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

_SPACE = "the disk is full: make room there, or give another --workdir"
_RIGHTS = "give the right to it, or name another place"
_OPEN = "raise `ulimit -n`, or lower config.data.workers"
# What to do about an error of the system.
ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: "the disk quota is used up: make room, or give another --workdir",
    errno.EFBIG: "a file may not become this large here: raise `ulimit -f`, or take another disk",
    errno.EROFS: "nothing can be written there: give another place",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOTDIR: "a part of this path is a file: name a folder",
    errno.EISDIR: "a file must be here, and it is a folder",
    errno.EEXIST: "a file is where a folder must be: move it away, or name another place",
    errno.ENOENT: "it must be there while the program runs",
    errno.ENAMETOOLONG: "a name is longer than the file system allows: shorten it",
    errno.ELOOP: "a symbolic link leads back to itself",
    errno.EMFILE: _OPEN,
    errno.ENFILE: _OPEN,
    errno.EIO: "the disk or the network to it fails: look at the system's log",
    errno.ESTALE: "the network file system has lost this file: mount it again",
    errno.ENOMEM: "",  # see _MEMORY
}
# Libraries that are written in C++ hand on only the text of such an error.
_HIDDEN = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EMFILE),
    *(errno.EIO, errno.ESTALE),
)
_MEMORY = re.compile("RESOURCE_EXHAUSTED|out of memory|failed to allocate|unable to allocate", re.I)
_PATH = re.compile(r"""(?:^|(?<=[\s"'`(\[]))(/[^\s"'`\]:;,]+)""")


def explain(error: BaseException, workdir: Path | None = None) -> str | None:
    """Returns one line for an error of the system, however deep it lies; None for any other.

    Args:
      error: looked at with all that it was raised from.
      workdir: named where the error names no path.
    """
    chain = list(_chain(error))
    for found in chain:
        if isinstance(found, MemoryError) or getattr(found, "errno", None) == errno.ENOMEM:
            return _memory("this machine", found)
    for found in chain:
        if isinstance(found, OSError) and found.errno is not None:
            return _line(found.errno, found.filename or _path_in(str(found)) or workdir, found)
    for found in filter(_is_native, chain):
        text = str(found)
        for number in _HIDDEN:  # first: tensorstore calls a full disk RESOURCE_EXHAUSTED too
            if os.strerror(number).lower() in text.lower():
                return _line(number, _path_in(text) or workdir, found)
        if says_memory(text):
            return _memory("the device", found)
    return None


def says_memory(text: str) -> bool:
    """Returns whether the text of an error says that memory was not enough."""
    return _MEMORY.search(text) is not None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and all that it was raised from or is a group of."""
    while error is not None:
        yield error
        for member in getattr(error, "exceptions", ()):
            yield from _chain(member)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_native(error: BaseException) -> bool:
    """Whether compiled code may have raised it, or a worker process that it was sent from."""
    return isinstance(error, RuntimeError | ValueError | OSError)


def _path_in(text: str) -> str | None:
    """Returns the first path in a message; of the file itself where it is still being written."""
    found = _PATH.search(text)
    return found[1] if found else None


def _line(number: int, path: object, error: BaseException) -> str:
    place = os.fsdecode(path) if isinstance(path, bytes) else str(path or type(error).__name__)
    advice = ADVICE.get(number)
    return f"{place}: {os.strerror(number)}" + (f"; {advice}" if advice else "")


def _memory(whose: str, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return (
        f"the memory of {whose} is not enough ({reason}); lower the batch sizes: batch_size and "
        f"outlier_batch_size of the training, config.eval_batch_size, decoding.batch_size, "
        f"decoding.vae_batch_size (0 finds the last three); or data.hold_bytes and data.workers"
    )
