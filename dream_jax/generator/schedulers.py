"""The schedulers, which step from noise to a picture, with a pipeline's noise schedule."""

from collections.abc import Mapping
from typing import Any

from diffusers import (
    FlaxDDIMScheduler,
    FlaxDPMSolverMultistepScheduler,
    FlaxPNDMScheduler,
)

NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")


def make_scheduler(name: str, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns a scheduler and its state, which is float32.

    Args:
      name: "plms", "ddim" or "dpmsolver++".
      config: of the pipeline's own scheduler, for its noise schedule.
    """
    noise = {field: config[field] for field in NOISE if field in config}
    # Latents are not confined to [-1, 1], so they must not be clipped; offset 1 and no Runge-Kutta
    # start are Stable Diffusion's own settings.
    own = {"set_alpha_to_one": False, "steps_offset": 1}
    if name == "ddim":
        scheduler = FlaxDDIMScheduler(**noise, **own, clip_sample=False)
    elif name == "plms":
        scheduler = FlaxPNDMScheduler(**noise, **own, skip_prk_steps=True)
    else:
        scheduler = FlaxDPMSolverMultistepScheduler(**noise)
    return scheduler, scheduler.create_state()
