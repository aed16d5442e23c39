"""The devices that each worker gets."""

import os

import jax
import pytest

from dream_jax.errors import UserError
from dream_jax.workers import parts


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [
        ({0, 1, 2, 3}, 2, [(0, 1), (2, 3)]),
        ({1, 3, 4, 6, 8}, 2, [(1, 3), (4, 6, 8)]),
        ({5}, 3, [(5,), (5,), (5,)]),
    ],
)
def test_cores_are_shared(monkeypatch, cores, workers, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    assert [part.cores for part in parts.split(workers)] == expected
    assert all(not part.variables for part in parts.split(workers))


class Gpu:
    platform = "gpu"

    def __init__(self, number: int):
        self.local_hardware_id = number


def test_gpus_are_shared(monkeypatch):
    """As JAX numbers them on the machine: a process may have been given some alone."""
    monkeypatch.setattr(jax, "local_devices", lambda: [Gpu(n) for n in (0, 1, 4, 5)])
    found = [part.variables for part in parts.split(2)]
    assert found == [dict.fromkeys(parts.GPU_VARIABLES, gpus) for gpus in ("0,1", "4,5")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"XLA_CLIENT_MEM_FRACTION": "0.25"}),
        ({"XLA_CLIENT_MEM_FRACTION": "0.9"}, {"XLA_CLIENT_MEM_FRACTION": "0.3"}),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.6"}, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2"}),
    ],
)
def test_workers_of_a_gpu_share_its_memory(monkeypatch, given, expected):
    for name in parts.MEMORY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax, "local_devices", lambda: [Gpu(n) for n in (2, 5)])
    found = [part.variables for part in parts.split(6)]
    assert [v["JAX_CUDA_VISIBLE_DEVICES"] for v in found] == ["2", "5"] * 3
    for variables in found:
        memory = {n: v for n, v in variables.items() if n not in parts.GPU_VARIABLES}
        assert {n: round(float(v), 6) for n, v in memory.items()} == {
            n: float(v) for n, v in expected.items()
        }


@pytest.mark.parametrize(
    ("workers", "processes", "platform", "devices", "line"),
    [
        (2, 2, "cpu", 1, r"--workers is 2 and --processes 2; use one of the two"),
        (2, 1, "tpu", 8, r"--workers is 2; TPUs train one classifier after the other"),
        (3, 1, "gpu", 8, "3; 8 GPUs cannot be shared equally: use a divisor or a multiple of 8"),
    ],
)
def test_what_cannot_be_shared(workers, processes, platform, devices, line):
    with pytest.raises(UserError, match=line):
        parts.check_sharing(workers, processes, platform, devices)


def test_what_can_be_shared():
    parts.check_sharing(2, 1, "gpu", 8)
    parts.check_sharing(16, 1, "gpu", 8)
    parts.check_sharing(3, 1, "cpu", 2)
    with pytest.raises(UserError, match="--workers is 0; allowed: 1 or more"):
        parts.check_workers(0)
