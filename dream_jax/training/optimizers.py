"""Optimisers with their learning-rate schedules, from a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optax

from dream_jax.settings import OptimizerSettings

if TYPE_CHECKING:
    from dream_jax.miniature.settings import AdamWSettings


def sgd_rate(config: OptimizerSettings, steps: int) -> optax.Schedule:
    """Returns the learning rate of `sgd`: a cosine from `learning_rate` to `final_learning_rate`.

    It follows a linear warm-up over the first `warmup` (fraction) of the steps.
    """
    warmup = round(config.warmup * steps)
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / 10 if warmup else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, 1),
        end_value=config.final_learning_rate,
    )


def sgd(config: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Returns SGD with Nesterov momentum and L2 decay on every parameter, as in the original."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(sgd_rate(config, steps), momentum=config.momentum, nesterov=True),
    )


def adamw_rate(config: AdamWSettings, steps: int) -> optax.Schedule:
    """Returns the learning rate of `adamw`: warm-up, then a cosine to `final_learning_rate`."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=round(config.warmup * steps),
        decay_steps=max(steps, 1),
        end_value=config.final_learning_rate,
    )


def adamw(config: AdamWSettings, steps: int) -> optax.GradientTransformation:
    """Returns AdamW with clipped gradients."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(adamw_rate(config, steps), b2=config.b2, weight_decay=config.weight_decay),
    )
