"""The precision "auto" as the one that the devices are good at."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax

from dream_jax.settings import Settings
from dream_jax.training import hosts

AUTO = "auto"
FIELDS = ("model.precision", "generator.precision")
# Of AMD, which names the architecture where NVIDIA gives a compute capability.
AMD_BFLOAT16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")


class Hardware(NamedTuple):
    """What computes.

    Attributes:
      name: for messages.
      half: the precisions of 16 bits that it computes at least as fast as float32.
    """

    name: str
    half: tuple[str, ...]

    @property
    def best(self) -> dict[str, str]:
        """What "auto" means, by field.

        bfloat16 has the range of float32, and networks train in it as they are; float16, in which
        the published code decodes, is left to the generator.
        """
        model = "bfloat16" if "bfloat16" in self.half else "float32"
        generator = "float16" if self.half == ("float16",) else model
        return dict(zip(FIELDS, (model, generator), strict=True))


def hardware_of(platform: str, capability: str = "") -> Hardware:
    """Returns what a kind of device is good at.

    Args:
      platform: JAX's name of it.
      capability: of a GPU, "8.0" by NVIDIA or "gfx90a" by AMD.
    """
    if platform == "tpu":
        return Hardware("TPU", ("bfloat16",))
    if platform != "gpu":
        # Also one with avx512_bf16: XLA converts to float32 and back, and has no fast gradients of
        # convolutions in another precision (training/cpu_convolution.py).
        return Hardware(platform.upper(), ())
    name = f"GPU ({capability})"
    if capability.startswith("gfx"):
        both = capability.startswith(AMD_BFLOAT16)
        return Hardware(name, ("bfloat16", "float16") if both else ("float16",))
    try:
        version = float(capability)
    except ValueError:
        return Hardware(name, ())
    if version >= 8:
        return Hardware(name, ("bfloat16", "float16"))
    return Hardware(name, ("float16",) if version >= 7 else ())


def _own_hardware() -> tuple[str, str]:
    device = jax.local_devices()[0]
    return device.platform, str(getattr(device, "compute_capability", ""))


def resolve_precision(settings: Settings) -> Settings:
    """Returns the settings with "auto" replaced by what the devices of process 0 are good at.

    Results depend on the precision, so all that follows, records too, has the one that is used.
    Says in one line what "auto" means here, and in one that a precision is slow here. To be called
    when the processes are connected, as JAX then looks for its devices.
    """
    given = dict(zip(FIELDS, (settings.model.precision, settings.generator.precision), strict=True))
    if set(given.values()) == {"float32"}:
        return settings
    hardware = hardware_of(*hosts.from_main(_own_hardware))
    if chosen := [field for field, value in given.items() if value == AUTO]:
        means = ", ".join(f"config.{field} is {hardware.best[field]}" for field in chosen)
        print(f"precision auto on {hardware.name}: {means}", flush=True)
    slow = [
        f"config.{field} is {value}"
        for field, value in given.items()
        if value not in (AUTO, "float32", *hardware.half)
    ]
    if slow:
        print(
            f"{', '.join(slow)}: slow on {hardware.name}, which emulates it (a training step takes "
            f"up to 20 times as long); auto or float32 is faster",
            flush=True,
        )
    used: list[Any] = [
        hardware.best[field] if value == AUTO else value for field, value in given.items()
    ]
    return replace(
        settings,
        model=replace(settings.model, precision=used[0]),
        generator=replace(settings.generator, precision=used[1]),
    )
