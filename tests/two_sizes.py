"""A benchmark whose contenders differ in memory: python -m tests.two_sizes FOLDER"""

import sys
from pathlib import Path

import numpy as np


def small():
    """Returns a contender for a process of its own."""
    return lambda: 0


if __name__ == "__main__":
    from benchmarks import paired
    from benchmarks.processes import InOwnProcess

    paired.RESULTS = Path(sys.argv[1])
    contenders = {
        "dream_jax": lambda: np.ones(2**22)[0],  # 32 MiB
        "large": lambda: np.ones(2**25)[0],  # 256 MiB
        "own process": InOwnProcess("tests.two_sizes:small"),
    }
    paired.compare("first", "First", {"a": lambda: 0, "b": lambda: np.ones(2**26)[0]}, 1, {})
    paired.compare("second", "Second", contenders, 1, {})
