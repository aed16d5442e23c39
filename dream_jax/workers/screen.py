"""What a user sees of workers: a bar for the run, and one for what each of them is at."""

import sys

from tqdm import tqdm


class Screen:
    """The bars of a number of workers, with the lines of each stage printed when it is done.

    Lines of several stages would be mixed otherwise. Only a terminal shows the workers' own bars.
    """

    def __init__(self, workers: int, stages: int):
        self._all = tqdm(total=stages, desc="stages", unit="stage")
        hidden = not sys.stderr.isatty()
        self._each = [
            tqdm(bar_format="   {desc}", position=number + 1, leave=False, disable=hidden)
            for number in range(workers)
        ]

    def show(self, worker: int, text: str) -> None:
        """Shows what a worker is at."""
        self._each[worker].set_description_str(text)

    def print(self, text: str) -> None:
        """Prints lines above the bars."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def warn(self, text: str) -> None:
        """Prints lines to standard error, above the bars."""
        tqdm.write(text, file=sys.stderr)

    def left(self, stages: int) -> None:
        """Shows how many stages are not over."""
        self._all.update(self._all.total - stages - self._all.n)

    def close(self) -> None:
        for bar in (*self._each, self._all):
            bar.close()


class Lines:
    """Takes a worker's standard error apart: progress bars, and lines that must be seen.

    A bar is drawn again and again after a carriage return, and ends with a bracket.
    """

    def __init__(self) -> None:
        self._rest = ""

    def add(self, text: str) -> tuple[list[str], str]:
        """Returns the whole lines that are no bars, and the newest state of a bar or ""."""
        *whole, self._rest = (self._rest + text).split("\n")
        states = [_last(line) for line in (*whole, self._rest) if "\r" in line]
        lines = [_last(line) for line in whole]
        lines = [line for line in lines if line.strip() and not line.endswith("]")]
        return lines, states[-1] if states else ""


def _last(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2].rstrip()
