"""All embeddings of a class: the rounds of a sampler, shared out among the devices."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from dream_jax.errors import UserError
from dream_jax.sampling.boundary import boundary_set, core_set
from dream_jax.sampling.own_noise import describe, own_round
from dream_jax.sampling.published import published_round
from dream_jax.sampling.settings import SamplerSettings
from dream_jax.sampling.shared_noise import shared_round
from dream_jax.training.devices import fold_keys, pmap, shard, unshard
from dream_jax.vectors import unit_on_host

# (drawn features, key of the round) → kept candidates, as `own_round` returns them.
Round = Callable[[Float[Array, "p d"], Key[Array, ""]], Float[Array, "p keep d"]]
# Rounds with shared noise by the values of `sampling.selection`.
SHARED_ROUNDS = {"paper": shared_round, "published": published_round}


def sample_embeddings(
    features: Float[np.ndarray, "n d"],
    key: Key[Array, ""],
    settings: SamplerSettings,
    pad_to: int | None = None,
) -> Float[np.ndarray, "embeddings d"]:
    """Samples all embeddings of one class as unit vectors.

    This is stage ② without its last step, the rescaling to |T(y)|. The rounds are shared out among
    the local devices. Random keys are folded from the number of the round, so the result does not
    depend on how many devices there are.

    Args:
      features: features of the class, of any length.
      key: random key of the class.
      settings: of the sampler.
      pad_to: pads the features to this number, at least n; the padding is infinitely far and never
        drawn. Classes of different sizes then share one compiled program; for inliers only if each
        has at least `per_round` features.

    Returns:
      rounds · p · keep float32 unit vectors: round by round, in it by drawn feature, the best
      first; p = min(`per_round`, number of features that may be drawn).

    Raises:
      UserError: features are not finite or zero, `k` or `boundary` is above their number, or
        `scale` is so large that candidates leave the range of float32.
      ValueError: `pad_to` is less than n.
    """
    features = _checked(features, settings)
    n, dimension = features.shape
    pad_to = n if pad_to is None else pad_to
    if pad_to < n:
        raise ValueError(f"pad_to is {pad_to}, less than the {n} features to be padded")
    per_round = min(settings.per_round, settings.boundary if settings.largest else n)
    run = _mapped_rounds(dataclasses.replace(settings, per_round=per_round))
    padded = np.pad(features, ((0, pad_to - n), (0, 0)))
    # `shard` adds each element's position, which is the number of the round here.
    batch = shard({"round": np.arange(settings.rounds)})
    made = run(padded, np.int32(n), key, batch)
    points, right = (unshard(array, settings.rounds) for array in made)
    if not right.all():
        raise UserError(
            f"{settings.field('scale')} is {settings.scale}; its candidates leave the range of "
            f"float32: lower it"
        )
    return points.reshape(-1, dimension)


@functools.lru_cache
def _mapped_rounds(settings: SamplerSettings) -> Callable[..., jax.Array]:
    """Compiles the rounds of one class; kept, so that classes of the same size share them."""

    def rounds(features, count, key, batch):
        eligible = _eligible(features, count, settings)
        one_round = _round_of(features, count, settings)

        def one(number):
            draw_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
            drawn = features[_draw(draw_key, eligible, settings.per_round)]
            points = one_round(drawn, noise_key)
            # A vector whose square overflows becomes 0 when it is divided by its length.
            return points, jnp.all(jnp.abs(jnp.linalg.norm(points, axis=-1) - 1) < 0.01)

        return jax.lax.map(one, batch["position"])

    return pmap(rounds, in_axes=(None, None, None, 0))


def _round_of(
    features: Float[Array, "n d"], count: Int[Array, ""], settings: SamplerSettings
) -> Round:
    """Returns the round that the settings name, of one class."""
    if settings.noise == "own":
        known = describe(features, count)
        return lambda drawn, key: own_round(known, drawn, key, settings)

    def one_round(drawn, key):
        noise = jax.random.normal(key, (settings.candidates, features.shape[1]))
        return SHARED_ROUNDS[settings.selection](features, drawn, noise, settings, count)

    return one_round


def _eligible(
    features: Float[Array, "n d"], count: Int[Array, ""], settings: SamplerSettings
) -> Bool[Array, " n"]:
    """Returns which may be drawn: the boundary set, or the core; for inliers all real ones."""
    if not settings.largest:
        return jnp.arange(len(features)) < count
    choose = core_set if settings.core else boundary_set
    chosen = choose(features, settings.k, settings.boundary, count)
    return jnp.zeros(len(features), bool).at[chosen].set(True)


def _draw(key: Key[Array, ""], eligible: Bool[Array, " n"], number: int) -> Int[Array, " number"]:
    """Draws indices of eligible features without replacement, the same whatever the padding."""
    keys = fold_keys(key, jnp.arange(len(eligible)))
    # A number for each feature from its own key; the largest win.
    lots = jnp.where(eligible, jax.vmap(jax.random.uniform)(keys), -1.0)
    return jax.lax.top_k(lots, number)[1]


def _checked(
    features: Float[np.ndarray, "n d"], settings: SamplerSettings
) -> Float[np.ndarray, "n d"]:
    """Returns features as float32 unit vectors, or raises why they cannot be sampled from."""
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not features.size:
        raise UserError(f"features of a class must be (n, d) and not empty, not {features.shape}")
    if not np.isfinite(features).all():
        raise UserError("features of a class must be finite: found NaN or infinity among them")
    if not features.any(axis=1).all():
        raise UserError("features of a class must not be zero: they have no direction to sample")
    n = len(features)
    for name in ("k", "boundary") if settings.largest else ("k",):
        value = getattr(settings, name)
        if value > n:
            raise UserError(
                f"{settings.field(name)} is {value}; it must be at most {n}, the number of "
                "features of a class"
            )
    return unit_on_host(features)
