"""The one place that knows about devices: replication, sharding with padding, mapped batches.

All device work of the project is pmapped along `AXIS`: training over the devices of all processes,
which work in step, and everything else over those of each process, which takes its share of the
rows. Sizes that do not divide by the number of devices are padded by repeating the first row, and a
mask tells which rows are real, so a result does not depend on how many devices or processes
computed it.
"""

import functools
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from dream_jax.training import batch_sizes, finite, hosts
from dream_jax.training.cpu_convolution import cpu_convolutions

AXIS = "devices"
ADDED = ("mask", "position")  # columns that batches have in addition to their table's


# On the CPU every core is a device, up to this many, as XLA divides few operations among threads:
# two devices of one core each trained a plain ResNet-34 1.2 times as fast as one device of two
# cores, and ran it forward 1.5 times as fast. More than two were not measured.
CPU_DEVICES = 4


def use_cores() -> None:
    """Makes JAX's CPU devices one per core; to be called before JAX makes its first array.

    What the user says by `JAX_NUM_CPU_DEVICES` or `XLA_FLAGS` goes first. Without effect on TPU
    and GPU.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in flags:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", min(cores or 1, CPU_DEVICES))


def pmap(function: Callable, *, all_processes: bool = False, **kwargs) -> Callable:
    """`jax.pmap` along `AXIS`: the one way in which the project's programs reach the devices.

    Args:
      all_processes: over the devices of all processes, which must then all call it, each with the
        rows of its own devices; otherwise over this process's devices alone.
    """

    @functools.wraps(function)
    def program(*args):
        with cpu_convolutions():
            return function(*args)

    if hosts.count() > 1 and not all_processes:
        kwargs["devices"] = jax.local_devices()
    return jax.pmap(program, axis_name=AXIS, **kwargs)


def replicate(tree: Any) -> Any:
    """Copies a pytree to every local device: each leaf (...) becomes (devices, ...).

    Nothing is compiled for it. A CPU device may share an array's memory: it must not be changed.
    """
    count = jax.local_device_count()
    return put(jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *np.shape(leaf))), tree))


def unreplicate(tree: Any) -> Any:
    """The first device's copy of a replicated pytree, as NumPy arrays."""

    def first(leaf: jax.Array) -> np.ndarray:
        # Not leaf[0], which compiles a program for each shape.
        return np.asarray(leaf.addressable_data(0)).reshape(leaf.shape[1:])

    return jax.tree.map(first, tree)


def put(tree: Any) -> Any:
    """Starts the transfer of host arrays (devices, ...) to where `pmap` takes them from."""
    mesh = Mesh(np.asarray(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def prefetch(prepare: Callable[[Any], Any], items: Iterable[Any], ahead: int = 2) -> Iterator[Any]:
    """Yields `prepare(item)` of one item after the other; a thread is up to `ahead` items ahead.

    What `prepare` raises is raised where its result would have been yielded.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting: deque = deque()
        for item in items:
            waiting.append(thread.submit(prepare, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def shard(arrays: dict[str, np.ndarray], rows: int | None = None) -> dict[str, np.ndarray]:
    """Splits arrays (n, ...) over this process's devices, adding `mask` and `position`.

    Args:
      arrays: equally long arrays, by names other than `ADDED`.
      rows: pad up to this many rows first (so that a last, smaller batch reuses the compiled
        program); the next multiple of the number of devices if None.

    Returns:
      A dict of arrays (devices, rows per device, ...). `mask` (float32) is 0 on padding;
      `position` (int32) is the row among the n, from which random keys may be folded.

    Raises:
      ValueError: see `check_names`.
    """
    check_names("a column of a batch", arrays)
    devices = jax.local_device_count()
    count = len(next(iter(arrays.values())))
    index, mask, position = _padded(count, rows or count, devices)
    split = {name: np.asarray(array)[index] for name, array in arrays.items()}
    split |= {"mask": mask, "position": position}
    return {name: a.reshape(devices, -1, *a.shape[1:]) for name, a in split.items()}


def check_names(what: str, names: Iterable[str], taken: Collection[str] = ADDED) -> None:
    """Raises ValueError where one of the names, which are those of `what`, is taken already."""
    if both := sorted(set(names) & set(taken)):
        raise ValueError(f"{what} is called {both[0]!r}; taken are {', '.join(taken)}")


class Layout(NamedTuple):
    """How a global batch is split: known to a process that has devices, told to its workers."""

    devices: int  # of all processes
    processes: int
    process: int


def layout() -> Layout:
    """The layout of this process's batches."""
    return Layout(jax.device_count(), hosts.count(), hosts.index())


def shard_rows(rows: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """A process's part of a global batch, given as row numbers (n,) of a table.

    Returns:
      `rows`, and `mask` and `position` as `shard` adds them, where the n rows are those of the
      batch of all processes: (devices, rows per device), of this process's devices.
    """
    index, mask, position = _padded(len(rows), len(rows), layout.devices)
    own = hosts.share_of(len(index), layout.processes, layout.process)
    split = {"rows": rows[index[own]], "mask": mask[own], "position": position[own]}
    return {name: a.reshape(layout.devices // layout.processes, -1) for name, a in split.items()}


def _padded(count: int, rows: int, devices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index, mask, position) of `count` rows, padded to at least `rows`, a multiple of `devices`.

    Padding has index 0, so that it holds a real row.
    """
    total = -(-rows // devices) * devices
    position = np.arange(total, dtype=np.int32)
    real = position < count
    return np.where(real, position, 0), real.astype(np.float32), position


def shapes(batch: dict[str, np.ndarray], each: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a sharded batch, with `each` rows on every device."""
    return {
        name: jax.ShapeDtypeStruct((len(a), each, *a.shape[2:]), a.dtype)
        for name, a in batch.items()
    }


def unshard(array: jax.Array, count: int) -> np.ndarray:
    """(devices, rows per device, ...) → (count, ...): the inverse of `shard`, padding dropped."""
    array = np.asarray(array)
    return array.reshape(-1, *array.shape[2:])[:count]


def fold_keys(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """One key per number: (n,) integers → (n,) keys."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """This device's share of the mean over the rows of all devices that `mask` keeps.

    The shares of all devices add up (`psum`) to the mean; without any kept row they are 0.
    """
    count = jax.lax.psum(jnp.sum(mask), AXIS)
    return jnp.sum(values * mask) / jnp.maximum(count, 1.0)


def gather_rows(tree: Any) -> Any:
    """All devices' rows of arrays (rows per device, ...), in the order of the global batch.

    Inside a pmapped program. `shard` gives each device a run of the batch, so that the rows that a
    mask keeps come in the same order whatever the number of devices.
    """
    return jax.lax.all_gather(tree, AXIS, tiled=True)


def share_out(count: int) -> tuple[jax.Array, jax.Array]:
    """This device's share of `count` things that the devices divide among themselves.

    Inside a pmapped program: their numbers (n,) int32, and a float32 mask (n,) that is 0 where a
    device has fewer than the others; there, the number is that of the last thing.
    """
    share = -(-count // jax.lax.axis_size(AXIS))
    numbers = jax.lax.axis_index(AXIS) * share + jnp.arange(share)
    return jnp.minimum(numbers, count - 1), (numbers < count).astype(jnp.float32)


class Checked:
    """A pmapped function of (variables, batch) that also tells of each row whether it is finite.

    Those who share one compile it once.

    Args:
      function: see `MappedFunction`.
      result: makes of the checked outputs what is returned; traced.
    """

    def __init__(self, function: Callable, result: Callable[[Any], Any] = lambda outputs: outputs):
        def program(variables: Any, batch: dict) -> tuple[Any, jax.Array]:
            outputs = function(variables, batch)
            return result(outputs), finite.finite_rows(outputs)

        self.run = pmap(program)


class MappedFunction:
    """A function of (variables, batch) pmapped over the devices and run batch by batch.

    With several processes each computes its share of the rows, and all get all outputs. The same
    program tells of every row whether its floats are finite, and what is not is never returned.

    Args:
      function: `function(variables, batch) -> pytree of arrays (rows, ...)`, pure; or what was made
        of it by `Checked`.
      variables: a pytree, replicated once.
      batch_size: rows per call over the devices of all processes; 0 as many as fit.
      origin: what messages say of the function.
      setting: that `batch_size` is the value of.
    """

    def __init__(
        self,
        function: Callable | Checked,
        variables: Any,
        batch_size: int,
        origin: finite.Origin = finite.ANYTHING,
        setting: str = "eval_batch_size",
    ):
        self._size = batch_sizes.BatchSize(batch_size, setting)
        self._variables = replicate(variables)
        self._origin = origin
        checked = function if isinstance(function, Checked) else Checked(function)
        self._function = checked.run

    def give(self, variables: Any) -> None:
        """Replaces the variables by others of the same shapes."""
        self._variables = replicate(variables)

    def batches(
        self, arrays: dict[str, Any], progress: str | None = None, done: int = 0
    ) -> Iterable[Any]:
        """Yields this process's outputs (NumPy, padding dropped) of one batch after the other.

        Args:
          arrays: equally long arrays, or anything else with a length that gives `array[slice]`.
          done: rows of this process's share that are left out.

        Raises:
          NotFinite: an output is NaN or infinite; names the first image. All batches before it
            were given.
        """
        share = hosts.share_of(len(next(iter(arrays.values()))))
        place = share.start + done
        while place < share.stop:
            self._size.fit(share.stop - place, functools.partial(self._needs, arrays))
            with batch_sizes.shrinking(self._size):
                for out, rows in self._from(arrays, range(place, share.stop), progress):
                    place += rows
                    yield out

    def _from(
        self, arrays: dict[str, Any], places: range, progress: str | None
    ) -> Iterator[tuple[Any, int]]:
        """Yields the outputs of some rows batch by batch, each with its number of rows."""
        starts = places[:: self._size.rows]

        def read(start: int) -> dict[str, np.ndarray]:
            stop = min(start + self._size.rows, places.stop)
            return {name: a[start:stop] for name, a in arrays.items()}

        # Columns may be read from files: in a thread, while the devices are at the last batch.
        parts = prefetch(read, starts, ahead=1)
        for start, part in zip(
            starts, tqdm(parts, progress, len(starts), disable=progress is None), strict=True
        ):
            rows = len(next(iter(part.values())))
            made = self._function(self._variables, shard(part, rows=self._size.rows))
            out, right = jax.tree.map(lambda leaf, rows=rows: unshard(leaf, rows), made)
            if (row := finite.first_fault(right)) is not None:
                fault = self._origin.fault(finite.names_of(out, row))
                raise finite.NotFinite(start + row, fault, _row_name(arrays, start + row))
            yield out, rows

    def _needs(self, arrays: dict[str, Any], each: int) -> float:
        """Returns the memory of a device that a batch of some rows on each takes."""
        first = shard({name: a[:1] for name, a in arrays.items()})
        return batch_sizes.needed(self._function, (self._variables,), (shapes(first, each),))

    def __call__(self, arrays: dict[str, Any], progress: str | None = None) -> Any:
        """All outputs, in all processes: a pytree of NumPy arrays (n, ...)."""
        count = len(next(iter(arrays.values())))
        share = hosts.share_of(count)
        room, whole, done = share.stop - share.start, None, 0
        for part in self.batches(arrays, progress):
            if whole is None:  # filled in place: joining the parts would take twice the memory
                make = lambda leaf: np.empty((room, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
                whole = jax.tree.map(make, part)
            for into, leaf in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
                into[done : done + len(leaf)] = leaf
            done += len(jax.tree.leaves(part)[0])
        if whole is None:  # more processes than rows: the shapes of a row, for the gathering
            first = {name: a[:1] for name, a in arrays.items()}
            out, _ = self._function(self._variables, shard(first, rows=self._size.rows))
            whole = jax.tree.map(lambda leaf: unshard(leaf, 0), out)
        return jax.tree.map(lambda leaf: hosts.gather(leaf, count), whole)


def _row_name(arrays: dict[str, Any], row: int) -> str:
    """Returns what a message calls a row: the name of its image, where that has one."""
    name = getattr(arrays.get("images"), "name", None)
    return f"image {row}" if name is None else name(row)
