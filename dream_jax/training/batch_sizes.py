"""How many rows a program takes at once where a setting leaves that open: as many as fit.

A compiled program says what it needs on a device: its arguments, results and temporaries. What is
free there, the device says; one that does not, such as a CPU, is given `UNSAID`. Sizes are powers
of two on each device. What a program computes of a row does not depend on the others.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from tqdm import tqdm

from dream_jax.system import says_memory
from dream_jax.training import hosts

FOUND = 0  # the setting that leaves the size open
UNSAID = 2**28  # bytes of a device that does not say how much memory it has
USABLE = 0.9  # of the free memory: it has gaps, and results lie there until they are fetched
MOST_ROWS = 1024  # on a device: the host holds batches as well
# Rows on each device → bytes that a program needs there, in addition to what lies there already.
Needs = Callable[[int], float]

_last: dict[str, int] = {}  # setting → rows on each device, from which the next search starts
_chosen: dict[str, set[int]] = {}  # setting → sizes over the devices of all processes
_said: set[tuple[str, int]] = set()


def forget() -> None:
    """Makes `chosen` tell of what comes from now on."""
    _chosen.clear()


def chosen() -> dict[str, list[int]]:
    """Returns the sizes that were found since `forget`, over all devices, by their setting."""
    return {setting: sorted(sizes) for setting, sizes in _chosen.items()}


def room() -> int:
    """Returns the bytes on each device of this process that a program may need."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if any("bytes_limit" not in found for found in stats):
        return UNSAID
    return int(USABLE * min(found["bytes_limit"] - found["bytes_in_use"] for found in stats))


def needed(program: Any, held: tuple, given: tuple) -> float:
    """Returns the bytes that a mapped program needs on each device, in addition to `held`.

    Args:
      program: made by `devices.pmap`; compiled here, which its later calls make use of.
      held: its first arguments, which lie on the devices.
      given: the shapes of the others, (devices, ...).
    """
    try:
        memory = program.lower(*held, *given).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if not is_exhausted(error):  # by the compiler's own trials on the device
            raise
        return math.inf
    inputs = [math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in jax.tree.leaves(given)]
    if memory is None:  # this device's compiler does not say: then only a trial shows it
        return sum(inputs)
    made = memory.output_size_in_bytes + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return sum(inputs) + made


def largest(needs: Needs, room: float, most: int, start: int = 1) -> int:
    """Returns the largest power of two up to `most` whose need has room; 1 if none has.

    Asks for few sizes, as each is compiled: the need grows in proportion to the rows, but for a
    part that they share, so that two sizes tell what others need. Where it grows otherwise, the
    size may be smaller than the largest.

    Args:
      most, start: powers of two; with a `start` above 1, its need alone may tell that twice as many
        do not fit.
    """
    known: dict[int, float] = {0: 0.0}
    fits, rows = 0, min(start, most)
    while rows not in known:
        known[rows] = needs(rows)
        fits = max(tried for tried, need in known.items() if need <= room)
        beyond = min((tried for tried, need in known.items() if need > room), default=2 * most)
        expected = _power_below(_expected(known, room))
        if rows == start == 1:
            expected = max(expected, 2)
        if rows == beyond and expected <= fits:  # the last guess was wrong
            expected = _power_below(math.sqrt(fits * beyond))
        rows = max(1, fits, min(expected, beyond // 2))
    return max(1, fits)


def _expected(known: dict[int, float], room: float) -> float:
    """Returns how many rows would fill the room: by the sizes next to that, or the two largest."""
    finite = sorted(point for point in known.items() if point[1] < math.inf)
    after = [point for point in finite if point[1] > room][:1]
    before = [point for point in finite if point[1] <= room]
    if len(before + after) < 2:
        return 1
    (fewer, less), (more, need) = [*before, *after][-2:]
    slope = (need - less) / (more - fewer)
    return fewer + (room - less) / slope if slope > 0 else math.inf


def _power_below(value: float) -> int:
    """Returns the largest power of two up to a value; 0 below 1."""
    return 2 ** (int(min(value, 2.0**62)).bit_length() - 1) if value >= 1 else 0


def _power_above(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()


def is_exhausted(error: BaseException) -> bool:
    """Returns whether an error of JAX says that a device has no memory left.

    One that comes when the result is fetched has INTERNAL for RESOURCE_EXHAUSTED, on CPUs at least.
    """
    return isinstance(error, jax.errors.JaxRuntimeError) and says_memory(str(error))


class BatchSize:
    """The rows of a program at once on this process's devices: as given, or found.

    Args:
      given: over the devices of all processes; 0 leaves it open.
      setting: the field of the configuration that says so.

    Attributes:
      rows: at once on this process's devices; 0 until `fit` has found how many.
    """

    def __init__(self, given: int, setting: str):
        self.rows = hosts.share_size(given)
        self.is_found = given == FOUND
        self._setting, self._most, self._wanted = setting, MOST_ROWS, 0

    def fit(self, count: int, needs: Needs) -> None:
        """Finds `rows`, once; again only where earlier calls had too few rows to need as many.

        Args:
          count: rows of this call: no more are taken at once, but for the next power of two.
          needs: of the program.
        """
        each = -(-count // jax.local_device_count())
        wanted = min(self._most, _power_above(each))
        if not self.is_found or self._each < self._wanted or wanted <= self._wanted:
            return
        self._wanted, free, asked = wanted, room(), {}

        def noted(rows: int) -> float:
            asked[rows] = needs(rows)
            return asked[rows]

        each = largest(noted, free, wanted, _last.get(self._setting, 1))
        total = self._choose(each)
        if (self._setting, total) not in _said:
            _said.add((self._setting, total))
            self._say(f"on a device they take {asked[each] / 1e9:.3g} of {free / 1e9:.3g} GB")

    @property
    def _each(self) -> int:
        return self.rows // jax.local_device_count()

    def _choose(self, each: int) -> int:
        self.rows = each * jax.local_device_count()
        _last[self._setting] = each
        total = each * jax.device_count()
        _chosen.setdefault(self._setting, set()).add(total)
        return total

    def _say(self, why: str) -> None:
        if hosts.is_main():
            total = self._each * jax.device_count()
            tqdm.write(f"config.{self._setting} is 0: {total} images at once; {why}")

    def halve(self, reason: str) -> bool:
        """Halves `rows`, if they were found and can be; returns whether it did."""
        if not self.is_found or self._each < 2:
            return False
        self._most = self._wanted = self._each // 2
        self._choose(self._most)
        self._say(f"twice as many were too many ({reason})")
        return True


@contextmanager
def shrinking(*sizes: BatchSize) -> Iterator[None]:
    """Goes on after its block where a device has no memory left, with sizes halved.

    Raises:
      jax.errors.JaxRuntimeError: no size can be halved.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_exhausted(error):
            raise
        reason = " ".join(str(error).split())[:100]
        halved = [size.halve(reason) for size in sizes]
        if not any(halved):
            raise
