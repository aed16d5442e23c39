"""Memory in pages of 2 MB.

XLA allocates the memory of a program at each call. In pages of 4 KB a training step asks the kernel
for tens of thousands of them, which took up to a sixth of the time on a CPU.
"""

import os
import sys
from pathlib import Path

# glibc then asks Linux for them, from version 2.35 on; others do not know the name.
_VARIABLE, _VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use() -> None:
    """Starts this program anew with huge pages, where Linux has them for who asks.

    glibc reads the variable before a program begins, so it cannot be set later; processes that this
    one starts get it too. The process stays the same one for whoever waits for it. Nothing happens
    if the user has set the variable, or if the program is not what the process was started with, as
    in a notebook.
    """
    if _VARIABLE in os.environ or not _is_own_process() or not _are_offered():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ[_VARIABLE] = _VALUE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_own_process() -> bool:
    module = sys.modules["__main__"].__spec__  # None for a file, `python -m` has one
    return (module.name if module else sys.argv[0]) in sys.orig_argv


def _are_offered() -> bool:
    try:
        return "[madvise]" in _MODE.read_text()
    except OSError:  # not Linux, or hidden from this process
        return False
