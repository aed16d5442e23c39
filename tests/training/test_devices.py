"""Sharding, masked means and mapped batches; every test also runs on four virtual devices."""

import itertools
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_fixtures import environment

from dream_jax import memory
from dream_jax.training import devices

HERE = __file__


def test_everything_here_holds_on_four_devices():
    if jax.local_device_count() > 1:
        pytest.skip("this is the run on several devices")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE]
    process = subprocess.run(
        command, env=environment(4), capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stdout[-3000:]
    assert "1 skipped" in process.stdout  # this test: there were several devices


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
@pytest.mark.parametrize("rows", [None, 13])
def test_shard_and_unshard_are_inverse(count, rows):
    arrays = {
        "a": np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3),
        "b": np.arange(count),
    }
    sharded = devices.shard(arrays, rows)
    number = jax.local_device_count()
    per_device = -(-(rows or count) // number)
    assert sharded["a"].shape == (number, per_device, 2, 3)
    for name, array in arrays.items():
        assert np.array_equal(devices.unshard(sharded[name], count), array)
    flat = {name: a.reshape(number * per_device, *a.shape[2:]) for name, a in sharded.items()}
    padding = slice(count, None)
    assert np.array_equal(flat["mask"], [1.0] * count + [0.0] * (number * per_device - count))
    assert np.array_equal(flat["position"], np.arange(number * per_device))
    assert np.all(flat["a"][padding] == arrays["a"][0])  # real rows, so that nothing overflows


@pytest.mark.parametrize("name", ["mask", "position"])
def test_a_column_whose_name_is_taken_is_refused(name):
    with pytest.raises(ValueError, match=f"^a column of a batch is called '{name}'; taken are ma"):
        devices.shard({"images": np.ones((2, 3)), name: np.ones(2)})
    mapped = devices.MappedFunction(lambda _, batch: batch["images"], None, 2)
    with pytest.raises(ValueError, match=f"is called '{name}'"):
        mapped({"images": np.ones((2, 3)), name: np.ones(2)})


@pytest.mark.parametrize("count", [1, 6, 9])
def test_masked_mean_shares_add_up_to_the_mean(count):
    values = np.random.default_rng(count).normal(size=count).astype(np.float32)

    def total(batch):
        return jax.lax.psum(devices.masked_mean(batch["v"], batch["mask"]), devices.AXIS)

    batch = devices.shard({"v": values}, rows=16)
    means = devices.pmap(total)(batch)
    np.testing.assert_allclose(means, values.mean(), rtol=1e-6)


def test_masked_mean_of_no_rows_is_zero_with_a_finite_gradient():
    def share(values):
        return devices.masked_mean(values, jnp.zeros_like(values))

    values = devices.shard({"v": np.ones(4, np.float32)})["v"]
    value, gradient = devices.pmap(jax.value_and_grad(share))(values)
    assert np.all(np.asarray(value) == 0)
    assert np.all(np.asarray(gradient) == 0)


def test_keys_are_those_of_the_numbers():
    key = jax.random.key(3)
    folded = devices.fold_keys(key, jnp.array([5, 0]))
    for one, number in zip(folded, (5, 0), strict=True):
        expected = jax.random.key_data(jax.random.fold_in(key, number))
        assert np.array_equal(jax.random.key_data(one), expected)


def test_replicate_and_back():
    tree = {"a": np.arange(3.0, dtype=np.float32), "b": [np.int32(4)]}
    copies = devices.replicate(tree)
    assert copies["a"].shape == (jax.local_device_count(), 3)
    assert len(copies["a"].devices()) == jax.local_device_count()
    back = devices.unreplicate(copies)
    assert np.array_equal(back["a"], tree["a"]) and back["b"][0] == 4


def test_put_gives_each_device_its_own_and_pmap_takes_it_as_it_is():
    number = jax.local_device_count()
    tree = {"a": np.arange(number * 3).reshape(number, 3), "b": np.arange(number)}
    there = devices.put(tree)
    assert len(there["a"].sharding.device_set) == number
    double = devices.pmap(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree))
    for name, leaf in double(there).items():
        assert leaf.sharding == there[name].sharding
        assert np.array_equal(leaf, 2 * tree[name])


def test_prefetch_keeps_the_order_and_is_only_so_far_ahead():
    done = []

    def prepare(item):
        done.append(item)
        return 10 * item

    out = devices.prefetch(prepare, range(8), ahead=2)
    for item in range(8):
        assert next(out) == 10 * item
        assert max(done) <= item + 2
    assert next(out, None) is None
    assert done == list(range(8))


def test_prefetch_raises_what_the_thread_met_in_its_turn():
    def prepare(item):
        if item == 2:
            raise OSError("image 2 is damaged")
        return item

    out = devices.prefetch(prepare, range(5))
    assert [next(out), next(out)] == [0, 1]
    with pytest.raises(OSError, match="image 2"):
        next(out)


def test_prefetch_that_is_left_ends_its_thread():
    before = threading.active_count()
    out = devices.prefetch(lambda item: item, itertools.count())
    next(out)
    out.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (7, 3), (2, 5), (9, 9)])
def test_mapped_function_does_not_depend_on_the_batch_size(count, batch_size):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(count, 3)), rng.normal(size=(3, 2))
    x, w = x.astype(np.float32), w.astype(np.float32)

    def function(w, batch):
        return {"product": batch["x"] @ w, "position": batch["position"]}

    run = devices.MappedFunction(function, w, batch_size)
    out = run({"x": x})
    np.testing.assert_allclose(out["product"], x @ w, rtol=1e-5, atol=1e-6)
    assert np.array_equal(out["position"], np.arange(count) % batch_size)
    sizes = [len(part["product"]) for part in run.batches({"x": x})]
    assert sizes == [min(batch_size, count - start) for start in range(0, count, batch_size)]


def test_mapped_function_compiles_once_for_a_smaller_last_batch():
    traces = []

    def function(_, batch):
        traces.append(batch["x"].shape)
        return batch["x"]

    devices.MappedFunction(function, {}, 4)({"x": np.arange(10.0)})
    assert len(traces) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_mapped_function_holds_its_outputs_once():
    rows, width = 2**15, 2**9  # 64 MiB
    run = devices.MappedFunction(lambda _, batch: jnp.repeat(batch["x"], width, 1), {}, 2048)
    x = np.ones((rows, 1), np.float32)
    run({"x": x[:2048]})
    before = memory.forget_peak()
    assert before is not None and run({"x": x}).shape == (rows, width)
    assert memory.peak_mb() - before < 96
