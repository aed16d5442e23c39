"""The schedulers, which step from noise to a picture, with a pipeline's noise schedule."""

from collections.abc import Mapping
from typing import Any

from diffusers import (
    FlaxDDIMScheduler,
    FlaxDPMSolverMultistepScheduler,
    FlaxPNDMScheduler,
)

from dream_jax.errors import UserError

# Fields of a scheduler's configuration that describe the noise a UNet was trained with.
NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
# Stable Diffusion's own settings: offset 1 and no Runge-Kutta start. Latents are not confined to
# [-1, 1], so they must not be clipped.
OWN = {"set_alpha_to_one": False, "steps_offset": 1}
SCHEDULERS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "plms": (FlaxPNDMScheduler, OWN | {"skip_prk_steps": True}),
    "ddim": (FlaxDDIMScheduler, OWN | {"clip_sample": False}),
    "dpmsolver++": (FlaxDPMSolverMultistepScheduler, {}),
}


def make_scheduler(name: str, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns a scheduler and its state, which is float32.

    Args:
      name: one of `SCHEDULERS`.
      config: of the pipeline's own scheduler, for its noise schedule.

    References:
      PLMS: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", ICLR 2022.
      DDIM: Song et al., "Denoising Diffusion Implicit Models", ICLR 2021.
      DPM-Solver++: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion
        Probabilistic Models", 2022.
    """
    kind, settings = SCHEDULERS[name]
    scheduler = kind(**{field: config[field] for field in NOISE if field in config}, **settings)
    return scheduler, scheduler.create_state()


def check_steps(name: str, config: Mapping[str, Any], steps: int) -> None:
    """Checks that a scheduler steps from noise to a picture in a number of steps.

    PLMS and DDIM go through every n-th training step, n being a whole number: with one step or more
    than half as many as there are they would begin far from noise. DPM-Solver++ needs a different
    training step for each of its own.

    Args:
      name, config: see `make_scheduler`.

    Raises:
      UserError: it does not; names `decoding.steps`.
    """
    trained = int(config.get("num_train_timesteps", 1000))
    least, most = (1, trained - 1) if name == "dpmsolver++" else (2, trained // 2)
    if not least <= steps <= most:
        raise UserError(
            f"config.decoding.steps is {steps}; with generator.scheduler = {name} and a generator "
            f"trained with {trained} steps it must be at least {least} and at most {most}"
        )
