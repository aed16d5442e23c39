"""How much memory this process has resident: now, and at most since some moment."""

import resource
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MIB = 2**20


def forget_peak() -> float | None:
    """Makes `peak_mb` count from now on; returns what is resident now, in MB.

    Returns None where the system cannot do that, such as macOS, or a container that forbids it:
    there `peak_mb` goes on counting from the start of the process.
    """
    try:
        _CLEAR.write_text("5")  # proc(5): sets the peak, VmHWM, to what is resident
        return _of_status("VmRSS")
    except OSError:
        return None


def peak_mb() -> float:
    """Returns the largest resident size of this process, in MB, since `forget_peak`."""
    if _STATUS.exists():
        return _of_status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return peak / (_MIB if sys.platform == "darwin" else 1024)


def _of_status(name: str) -> float:
    """Returns an entry of /proc/self/status, which counts in KiB, in MB."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{_STATUS} has no {name}")
