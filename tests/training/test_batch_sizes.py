"""Sizes of batches that are found by the memory that the compiled programs need."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax.training import batch_sizes, devices

COUNT = jax.local_device_count()


@pytest.fixture(autouse=True)
def nothing_found_yet(monkeypatch):
    """Each test starts without sizes of another, and leaves none."""
    for name, empty in (("_last", {}), ("_chosen", {}), ("_said", set())):
        monkeypatch.setattr(batch_sizes, name, empty)


@pytest.mark.parametrize("shared", [0, 10, 1000])
@pytest.mark.parametrize("per_row", [1, 7, 300])
@pytest.mark.parametrize("room", [5, 1010, 2500, 100_000])
@pytest.mark.parametrize("most", [1, 8, 1024])
def test_the_largest_size_is_found_by_few_programs(shared, per_row, room, most):
    asked = []

    def needs(rows):
        asked.append(rows)
        return shared + per_row * rows

    found = batch_sizes.largest(needs, room, most)
    sizes = [2**n for n in range(11) if 2**n <= most]
    assert found == max((rows for rows in sizes if shared + per_row * rows <= room), default=1)
    assert len(asked) == len(set(asked)) <= 3
    if found > 1:  # a size that fits by half needs no other
        again = []
        batch_sizes.largest(lambda rows: again.append(rows) or needs(rows), room, most, found)
        assert len(again) <= 2


def test_a_need_that_is_no_line_and_a_program_that_cannot_be_compiled():
    assert batch_sizes.largest(lambda rows: rows**3, 1000, 1024) in (4, 8)
    assert batch_sizes.largest(lambda rows: rows**0.5, 8, 1024) in (32, 64)
    assert batch_sizes.largest(lambda rows: rows if rows < 64 else math.inf, 1000, 512) == 32
    assert batch_sizes.largest(lambda rows: math.inf, 1000, 512, start=8) == 1


class Device:
    """A device that says how much memory it has."""

    def __init__(self, limit, in_use):
        self._stats = {"bytes_limit": limit, "bytes_in_use": in_use, "peak_bytes_in_use": limit}

    def memory_stats(self):
        return self._stats


def test_the_room_is_what_the_fullest_device_has_left(monkeypatch):
    assert batch_sizes.room() == batch_sizes.UNSAID  # of CPUs
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(1000, 100), Device(1000, 500)])
    assert batch_sizes.room() == 500 * batch_sizes.USABLE


def rows_and_products(weights, batch):
    return jnp.tanh(batch["images"] @ weights) @ weights.T


def test_a_batch_takes_the_room_there_is_and_results_are_the_same(monkeypatch, capsys):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(300 * COUNT, 128)).astype(np.float32)
    weights = rng.normal(size=(128, 512)).astype(np.float32)
    room = 100_000
    monkeypatch.setattr(batch_sizes, "UNSAID", room)
    given = devices.MappedFunction(rows_and_products, weights, 10)
    found = devices.MappedFunction(rows_and_products, weights, 0)
    np.testing.assert_allclose(
        found({"images": images}), given({"images": images}), rtol=1e-5, atol=1e-4
    )
    sizes = [len(part) for part in found.batches({"images": images})]
    each = sizes[0] // COUNT
    assert sizes[0] == each * COUNT and each.bit_count() == 1 and each > 1

    def needs(rows):
        batch = devices.shard({"images": images[: rows * COUNT]})
        memory = devices.pmap(rows_and_products).lower(devices.replicate(weights), batch).compile()
        memory = memory.memory_analysis()
        own = 128 * 4 * rows
        return own + memory.output_size_in_bytes + memory.temp_size_in_bytes

    assert needs(each) <= room < needs(2 * each)
    assert batch_sizes.chosen() == {"eval_batch_size": [sizes[0]]}
    said = capsys.readouterr().out
    assert said.startswith(f"config.eval_batch_size is 0: {sizes[0]} images at once; on a device")
    assert said.count("\n") == 1


def test_no_more_rows_than_there_are_and_more_when_there_are_more():
    run = devices.MappedFunction(lambda _, batch: batch["x"] + 1, {}, 0, setting="some.size")
    few, many = np.arange(3.0 * COUNT), np.arange(2000.0 * COUNT)
    assert np.array_equal(run({"x": few}), few + 1)
    assert batch_sizes.chosen() == {"some.size": [4 * COUNT]}
    assert np.array_equal(run({"x": many}), many + 1)
    assert batch_sizes.chosen() == {"some.size": [4 * COUNT, batch_sizes.MOST_ROWS * COUNT]}
    assert np.array_equal(run({"x": few}), few + 1)  # by the program that is there
    batch_sizes.forget()
    assert batch_sizes.chosen() == {}


def test_the_next_program_starts_from_the_last_size(monkeypatch):
    monkeypatch.setattr(batch_sizes, "UNSAID", 100_000)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(300 * COUNT, 128)).astype(np.float32)
    weights = rng.normal(size=(128, 512)).astype(np.float32)
    traced = []

    def traces(weights, batch):
        traced.append(batch["images"].shape)
        return rows_and_products(weights, batch)

    devices.MappedFunction(traces, weights, 0)({"images": images})
    assert 2 <= len(traced) <= 3
    del traced[:]
    devices.MappedFunction(traces, weights, 0)({"images": images})
    assert len(traced) == 1  # to ask what it needs, and to run it


def too_much_from(rows: int, array: jax.Array) -> jax.Array:
    """Returns 0, and asks for terabytes where an array has at least some rows."""
    if len(array) < rows:
        return jnp.float32(0)
    numbers = jnp.arange(2.0**20) * array.ravel()[0]
    return 0 * jnp.cumsum(numbers[:, None] * numbers, axis=0)[0, 0]


@pytest.mark.parametrize("size", [0, 32 * COUNT])
def test_exhausted_memory_halves_a_size_that_was_found(monkeypatch, capsys, size):
    """By an allocation that no machine can make; the search is told of more room than there is."""
    monkeypatch.setattr(batch_sizes, "UNSAID", 2**60)
    images = np.arange(70.0 * COUNT, dtype=np.float32)[:, None]

    def function(_, batch):
        return batch["images"] + too_much_from(16, batch["images"])

    run = devices.MappedFunction(function, {}, size)
    if size:
        with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
            run({"images": images})
        return
    assert np.array_equal(run({"images": images}), images)
    out = capsys.readouterr().out
    assert f": {8 * COUNT} images at once; twice as many were too many (RESOURCE_EXH" in out
    assert batch_sizes.chosen()["eval_batch_size"][0] == 8 * COUNT
    assert [len(part) for part in run.batches({"images": images})][:2] == [8 * COUNT] * 2


def test_other_errors_are_raised():
    size = batch_sizes.BatchSize(0, "eval_batch_size")
    size.fit(64, lambda rows: 0)
    for error in (jax.errors.JaxRuntimeError("INTERNAL: no"), ValueError("RESOURCE_EXHAUSTED")):
        with pytest.raises(type(error)), batch_sizes.shrinking(size):
            raise error
    size.halve("")
    while size.rows > COUNT:
        assert size.halve("")
    with pytest.raises(jax.errors.JaxRuntimeError), batch_sizes.shrinking(size):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")  # one row does not fit
