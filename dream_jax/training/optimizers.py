"""Optimisers with their learning-rate schedules, from a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optax

from dream_jax.settings import OptimizerSettings

if TYPE_CHECKING:
    from dream_jax.miniature.settings import AdamWSettings


def sgd(config: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Returns SGD with Nesterov momentum and L2 decay on every parameter, as in the original.

    The learning rate follows a cosine per step from `learning_rate` to `final_learning_rate`,
    after a linear warm-up over the first `warmup` (fraction) of the steps.
    """
    warmup = round(config.warmup * steps)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / 10 if warmup else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, 1),
        end_value=config.final_learning_rate,
    )
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(schedule, momentum=config.momentum, nesterov=True),
    )


def adamw(config: AdamWSettings, steps: int) -> optax.GradientTransformation:
    """AdamW with clipped gradients; warm-up, then a cosine to `final_learning_rate`."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=round(config.warmup * steps),
        decay_steps=max(steps, 1),
        end_value=config.final_learning_rate,
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b2=config.b2, weight_decay=config.weight_decay),
    )
