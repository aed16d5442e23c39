"""Schedulers of generators that were trained to paint in a few steps: LCM's, and Euler for Turbo.

They have the interface of diffusers' Flax schedulers, which offer neither.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from diffusers import FlaxDDIMScheduler
from diffusers.schedulers.scheduling_utils_flax import CommonSchedulerState
from flax.struct import PyTreeNode
from jaxtyping import Array, Float, Int

Latents = Float[Array, "n channels height width"]
SPACINGS = ("trailing", "leading", "linspace")


class State(PyTreeNode):
    """A noise schedule and the steps taken along it.

    Attributes:
      common: has the share of the picture at each training step, `alphas_cumprod`.
      timesteps: from noise to picture; None before `set_timesteps`.
      init_noise_sigma: scale of the noise that is begun with.
    """

    common: CommonSchedulerState
    timesteps: Any = None  # (steps,) int32
    init_noise_sigma: Any = None  # () float32

    def share(self, timestep: Int[Array, ""]) -> Float[Array, ""]:
        """Returns the picture's share of the variance at a training step."""
        return self.common.alphas_cumprod[timestep]

    def after(self, timestep: Int[Array, ""]) -> tuple[Int[Array, ""], jax.Array]:
        """Returns the step that follows one, and whether it is the last and none follows."""
        index, end = jnp.argmax(self.timesteps == timestep), len(self.timesteps) - 1
        return self.timesteps[jnp.minimum(index + 1, end)], index == end


class Stepped(NamedTuple):
    """What a step leads to; diffusers' schedulers return an object with the same method."""

    prev_sample: Latents
    state: State

    def to_tuple(self) -> tuple[Latents, State]:
        """Returns the latents and the state."""
        return self.prev_sample, self.state


@dataclass(frozen=True)
class FewSteps:
    """What the two have in common; the fields are those of a scheduler's stored configuration."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    prediction_type: str = "epsilon"
    draws: ClassVar[bool] = False  # whether a step adds new noise

    def create_state(self) -> State:
        """Returns the noise schedule, float32."""
        noise: Any = FlaxDDIMScheduler(
            num_train_timesteps=self.num_train_timesteps,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            beta_schedule=self.beta_schedule,
        )
        return State(noise.create_state().common)

    def steps_of(self, count: int) -> Int[np.ndarray, " count"]:
        """Returns the training steps at which the UNet is evaluated, from noise to picture."""
        raise NotImplementedError

    def most_steps(self) -> tuple[int, int]:
        """Returns how few and how many steps there can be."""
        raise NotImplementedError

    def set_timesteps(self, state: State, num_inference_steps: int, shape: Any = ()) -> State:
        """Returns the state with the steps chosen; `shape`, of the latents, is not looked at."""
        timesteps = jnp.asarray(self.steps_of(num_inference_steps), jnp.int32)
        return state.replace(timesteps=timesteps, init_noise_sigma=jnp.float32(1))

    def scale_model_input(self, state: State, sample: Latents, timestep: Int[Array, ""]) -> Latents:
        """Returns latents as the UNet takes them, whose variance is 1."""
        return sample

    def picture_of(
        self, output: Latents, sample: Latents, share: Float[Array, ""]
    ) -> Float[Array, "n channels height width"]:
        """Returns the noiseless latents that the UNet's output stands for.

        Args:
          sample: of variance 1.
          share: the picture's, see `State.share`.
        """
        signal, noise = jnp.sqrt(share), jnp.sqrt(1 - share)
        if self.prediction_type == "v_prediction":
            return signal * sample - noise * output
        return (sample - noise * output) / signal


@dataclass(frozen=True)
class Euler(FewSteps):
    """Euler's method in the scale of the noise, with the pipeline's spacing of the steps.

    Its latents are picture + σ · noise. A Turbo generator's folder asks for "trailing", whose first
    step is the last of training; that is also taken where a folder does not say.

    References:
      Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
      algorithm 1 without the second-order correction. Sauer et al., "Adversarial Diffusion
      Distillation", 2023. Spacings: Lin et al., "Common Diffusion Noise Schedules and Sample Steps
      Are Flawed", WACV 2024, table 2.
    """

    timestep_spacing: str = "trailing"
    steps_offset: int = 0

    def most_steps(self) -> tuple[int, int]:
        trained = self.num_train_timesteps
        return {"trailing": (1, trained), "linspace": (2, trained), "leading": (2, trained // 2)}[
            self.timestep_spacing
        ]

    def steps_of(self, count: int) -> Int[np.ndarray, " count"]:
        trained = self.num_train_timesteps
        if self.timestep_spacing == "trailing":
            return np.round(np.arange(trained, 0, -trained / count))[:count].astype(int) - 1
        if self.timestep_spacing == "linspace":
            return np.round(np.linspace(0, trained - 1, count))[::-1].astype(int)
        return np.arange(count)[::-1] * (trained // count) + self.steps_offset

    def set_timesteps(self, state: State, num_inference_steps: int, shape: Any = ()) -> State:
        """Returns the state with the steps chosen; `shape`, of the latents, is not looked at."""
        state = super().set_timesteps(state, num_inference_steps)
        scale = _scale(state.share(state.timesteps[0]))
        # The noise that is begun with has the variance of noise alone, or of noise and picture.
        start = jnp.sqrt(scale**2 + 1) if self.timestep_spacing == "leading" else scale
        return state.replace(init_noise_sigma=start)

    def scale_model_input(self, state: State, sample: Latents, timestep: Int[Array, ""]) -> Latents:
        """Returns latents as the UNet takes them, whose variance is 1."""
        return sample / jnp.sqrt(_scale(state.share(timestep)) ** 2 + 1)

    def step(
        self, state: State, output: Latents, timestep: Int[Array, ""], sample: Latents
    ) -> Stepped:
        """Goes on to the scale of the next step's noise; after the last step there is none."""
        scale = _scale(state.share(timestep))
        own = self.scale_model_input(state, sample, timestep)
        picture = self.picture_of(output, own, state.share(timestep))
        following, last = state.after(timestep)
        target = jnp.where(last, 0.0, _scale(state.share(following)))
        moved = sample + (sample - picture) / scale * (target - scale)
        return Stepped(moved, state)


@dataclass(frozen=True)
class LatentConsistency(FewSteps):
    """Steps of a latent consistency model: to the picture, and back to less noise, drawn anew.

    References:
      Luo et al., "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step
      Inference", 2023: equation 9 with σ_data = 0.5 and algorithm 3. The steps are evenly spaced
      among the `original_inference_steps` of the distillation, as in diffusers' LCMScheduler, which
      also multiplies the time by `timestep_scaling`.
    """

    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    draws: ClassVar[bool] = True
    data_scale: ClassVar[float] = 0.5

    def most_steps(self) -> tuple[int, int]:
        return 1, self._distilled()

    def _distilled(self) -> int:
        return min(self.original_inference_steps, self.num_train_timesteps)

    def steps_of(self, count: int) -> Int[np.ndarray, " count"]:
        original = self._distilled()
        skipped = self.num_train_timesteps // original
        distilled = np.arange(original, 0, -1) * skipped - 1
        return distilled[np.arange(count) * original // count]

    def step(
        self,
        state: State,
        output: Latents,
        timestep: Int[Array, ""],
        sample: Latents,
        noise: Latents,
    ) -> Stepped:
        """Goes to the picture, and unless this is the last step, back to the noise of the next.

        Args:
          noise: standard normal, new at each step.
        """
        share = state.share(timestep)
        time = self.timestep_scaling * timestep
        length = jnp.sqrt(time**2 + self.data_scale**2)
        picture = self.picture_of(output, sample, share) * (time / length)
        picture = picture + sample * (self.data_scale / length) ** 2
        following, last = state.after(timestep)
        share = state.share(following)
        noisy = jnp.sqrt(share) * picture + jnp.sqrt(1 - share) * noise
        return Stepped(jnp.where(last, picture, noisy), state)


def _scale(share: Float[Array, ""]) -> Float[Array, ""]:
    """Returns σ: the noise's scale next to a picture of scale 1."""
    return jnp.sqrt((1 - share) / share)
