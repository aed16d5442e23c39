"""The parts of a machine that workers compute on."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax

from dream_jax.errors import UserError
from dream_jax.training import hosts

# The variables by which JAX is told which of a machine's GPUs a process may use.
GPU_VARIABLES = ("JAX_CUDA_VISIBLE_DEVICES", "JAX_ROCM_VISIBLE_DEVICES")
# Those that tell how much of a GPU's memory it takes, the older name last; JAX refuses both.
MEMORY_VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
MEMORY = 0.75  # of a GPU, what JAX takes where neither is set


class Part(NamedTuple):
    """What one worker computes on.

    Attributes:
      cores: of the CPU; empty where the system assigns none.
      gpus: as JAX numbers those of the machine; empty for all devices.
      users: workers on each of these GPUs, among which its memory is divided.
    """

    cores: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    users: int = 1

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that tell JAX of these devices and their memory."""
        variables = dict.fromkeys(GPU_VARIABLES, ",".join(map(str, self.gpus))) if self.gpus else {}
        if self.users > 1:
            name = next((n for n in MEMORY_VARIABLES if os.environ.get(n)), MEMORY_VARIABLES[0])
            variables[name] = str(float(os.environ.get(name) or MEMORY) / self.users)
        return variables


def check_workers(count: int) -> None:
    """Raises UserError if the devices of this process cannot be shared by `count` workers."""
    if count < 1:
        raise UserError(f"--workers is {count}; allowed: 1 or more")
    if count > 1:
        check_sharing(
            count, hosts.count(), jax.local_devices()[0].platform, len(jax.local_devices())
        )


def check_sharing(count: int, processes: int, platform: str, devices: int) -> None:
    """Raises UserError if some devices cannot be shared by several workers.

    Args:
      processes: of the run, as `--processes` counts them.
      devices: of this machine, of the kind that JAX calls `platform`.
    """
    if processes > 1:
        raise UserError(f"--workers is {count} and --processes {processes}; use one of the two")
    if platform not in ("cpu", "gpu"):
        raise UserError(
            f"--workers is {count}; {platform.upper()}s train one classifier after the other, "
            f"together: leave it out"
        )
    if platform == "gpu" and devices % count and count % devices:
        raise UserError(
            f"--workers is {count}; {devices} GPUs cannot be shared equally: use a divisor or a "
            f"multiple of {devices}"
        )


def split(count: int) -> list[Part]:
    """Divides this machine's GPUs, or its cores, among `count` workers."""
    devices = jax.local_devices()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if devices[0].platform == "gpu":
        gpus = [device.local_hardware_id for device in devices]
        users = max(1, count // len(gpus))
        return [Part(gpus=_share(gpus, n, count), users=users) for n in range(count)]
    return [Part(_share(cores, number, count)) for number in range(count)]


def _share(things: Sequence[int], number: int, count: int) -> tuple[int, ...]:
    """Returns a worker's share; where there are fewer things than workers, some have the same."""
    if len(things) < count:
        return tuple(things[number % len(things) :][:1]) if things else ()
    begin, end = (len(things) * n // count for n in (number, number + 1))
    return tuple(things[begin:end])
