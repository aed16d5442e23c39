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


def test_gpus_are_shared(monkeypatch):
    """As JAX numbers them on the machine: a process may have been given some alone."""

    class Gpu:
        platform = "gpu"

        def __init__(self, number: int):
            self.local_hardware_id = number

    monkeypatch.setattr(jax, "local_devices", lambda: [Gpu(n) for n in (0, 1, 4, 5)])
    found = [part.variables["JAX_CUDA_VISIBLE_DEVICES"] for part in parts.split(2)]
    assert found == ["0,1", "4,5"]


@pytest.mark.parametrize(
    ("workers", "processes", "platform", "devices", "line"),
    [
        (2, 2, "cpu", 1, r"--workers is 2 and --processes 2; use one of the two"),
        (2, 1, "tpu", 8, r"--workers is 2; TPUs train one classifier after the other"),
        (3, 1, "gpu", 8, r"--workers is 3; 8 GPUs cannot be shared equally: use a divisor of 8"),
    ],
)
def test_what_cannot_be_shared(workers, processes, platform, devices, line):
    with pytest.raises(UserError, match=line):
        parts.check_sharing(workers, processes, platform, devices)


def test_what_can_be_shared():
    parts.check_sharing(2, 1, "gpu", 8)
    parts.check_sharing(3, 1, "cpu", 2)
    with pytest.raises(UserError, match="--workers is 0; allowed: 1 or more"):
        parts.check_workers(0)
