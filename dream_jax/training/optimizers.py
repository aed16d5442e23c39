"""Optimisers with their learning-rate schedules, from a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import optax
import optax.contrib

from dream_jax.settings import OptimizerSettings

if TYPE_CHECKING:
    from dream_jax.miniature.settings import AdamWSettings


def network_rate(config: OptimizerSettings, steps: int) -> optax.Schedule:
    """Returns a network's learning rate: from `learning_rate` a cosine to `final_learning_rate`.

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


def of_network(config: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Returns what moves a network: `sgd`, and if `muon` is above 0 that for its convolutions."""
    if not config.muon:
        return sgd(config, steps)
    return optax.multi_transform(
        {"convolutions": muon(config, steps), "others": sgd(config, steps)},
        lambda params: jax.tree.map(
            lambda leaf: "convolutions" if _is_kernel(leaf) else "others", params
        ),
    )


def sgd(config: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Returns SGD with Nesterov momentum and L2 decay on every parameter, as in the original."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(network_rate(config, steps), momentum=config.momentum, nesterov=True),
    )


def muon(config: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Returns Muon for convolutions' kernels (height, width, inputs, outputs), as matrices of
    height · width · inputs rows.

    A step moves a kernel by the momentum with all singular values near 1, times the rate (Jordan et
    al., "Muon", 2024). Batch norm follows a convolution, so that the scale of its kernel changes
    nothing but how far a step turns it; there is no weight decay.
    """
    rate = network_rate(config, steps)
    return optax.chain(
        optax.contrib.scale_by_muon(
            beta=config.momentum,
            weight_dimension_numbers=lambda kernels: jax.tree.map(lambda _: _AS_MATRIX, kernels),
        ),
        optax.scale_by_learning_rate(lambda step: config.muon * rate(step)),
    )


_AS_MATRIX = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)


def _is_kernel(leaf: jax.Array) -> bool:
    """Returns whether a parameter is a convolution's kernel: those alone have four axes."""
    return leaf.ndim == 4


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
