"""The schedulers, which step from noise to a picture, with a pipeline's noise schedule."""

from collections.abc import Mapping
from typing import Any

from diffusers import (
    FlaxDDIMScheduler,
    FlaxDPMSolverMultistepScheduler,
    FlaxPNDMScheduler,
)

from dream_jax.errors import UserError
from dream_jax.generator.few_steps import SPACINGS, Euler, LatentConsistency
from dream_jax.rules import above, one_of, whole

# Fields of a scheduler's configuration that describe the noise a UNet was trained with.
NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
# Fields that describe steps which a generator was trained for.
STEPS: Mapping[str, tuple[str, ...]] = {
    "euler": ("timestep_spacing", "steps_offset"),
    "lcm": ("original_inference_steps", "timestep_scaling"),
}
# Stable Diffusion's own settings: offset 1 and no Runge-Kutta start. Latents are not confined to
# [-1, 1], so they must not be clipped.
OWN = {"set_alpha_to_one": False, "steps_offset": 1}
SCHEDULERS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "plms": (FlaxPNDMScheduler, OWN | {"skip_prk_steps": True}),
    "ddim": (FlaxDDIMScheduler, OWN | {"clip_sample": False}),
    "dpmsolver++": (FlaxDPMSolverMultistepScheduler, {}),
    "euler": (Euler, {}),
    "lcm": (LatentConsistency, {}),
}


def make_scheduler(name: str, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns a scheduler and its state, which is float32.

    Args:
      name: one of `SCHEDULERS`.
      config: of the pipeline's own scheduler, for its noise schedule and, where the generator was
        trained to paint in a few steps, for those.

    References:
      PLMS: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", ICLR 2022.
      DDIM: Song et al., "Denoising Diffusion Implicit Models", ICLR 2021.
      DPM-Solver++: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion
        Probabilistic Models", 2022.
      The others: see `few_steps`.
    """
    kind, settings = SCHEDULERS[name]
    fields = (*NOISE, *STEPS.get(name, ()))
    scheduler = kind(**{field: config[field] for field in fields if field in config}, **settings)
    return scheduler, scheduler.create_state()


def check_steps(name: str, config: Mapping[str, Any], steps: int) -> None:
    """Checks that a scheduler steps from noise to a picture in a number of steps.

    PLMS and DDIM go through every n-th training step, n being a whole number: with one step or more
    than half as many as there are they would begin far from noise. DPM-Solver++ needs a different
    training step for each of its own, and so do the others.

    Args:
      name, config: see `make_scheduler`.

    Raises:
      UserError: it does not; names `decoding.steps`. Or the pipeline's own configuration has steps
        that no scheduler here can take.
    """
    trained = int(config.get("num_train_timesteps", 1000))
    _check_own_steps(name, config, trained)
    if name in STEPS:
        least, most = make_scheduler(name, config)[0].most_steps()
    else:
        least, most = (1, trained - 1) if name == "dpmsolver++" else (2, trained // 2)
    if not least <= steps <= most:
        raise UserError(
            f"config.decoding.steps is {steps}; with generator.scheduler = {name} and a generator "
            f"trained with {trained} steps it must be at least {least} and at most {most}"
        )


def _check_own_steps(name: str, config: Mapping[str, Any], trained: int) -> None:
    """Checks the fields of `STEPS` that a scheduler takes from the pipeline's configuration.

    Raises:
      UserError: names the field.
    """
    rules = {
        "timestep_spacing": one_of(SPACINGS),
        "steps_offset": whole(0, 1),
        "original_inference_steps": whole(1, trained),
        "timestep_scaling": above(0, 1e6),
    }
    for field in STEPS.get(name, ()):
        if field in config and not rules[field].holds(config[field]):
            raise UserError(
                f"generator.path: the scheduler's {field} is {config[field]!r}; with "
                f"generator.scheduler = {name} it must be {rules[field].allowed}"
            )
