"""All embeddings of a class: rounds of a sampler, shared out among the devices."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dream_jax.errors import UserError
from dream_jax.sampling.boundary import boundary_set, sample_round
from dream_jax.sampling.published import published_round
from dream_jax.settings import InlierSettings, SamplingSettings
from dream_jax.training.devices import fold_keys, pmap, shard, unshard

# By the names of `sampling.selection`.
ROUNDS = {"paper": sample_round, "published": published_round}
SELECTIONS = tuple(ROUNDS)


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
    """Settings of the sampler, checked when made.

    Attributes:
      k: the neighbour whose distance is d_k; a feature of the class counts itself first.
      boundary: size m of the boundary set, the features with the largest d_k; unused for inliers.
      per_round: features drawn in a round; all that are eligible, if they are fewer.
      candidates: noise vectors L in a round, shared by its features.
      scale: s, the standard deviation of the noise in each dimension (features are unit vectors).
      keep: candidates kept for each drawn feature.
      rounds: number of rounds.
      largest: True for outliers, which keep the largest d_k around the boundary set; False for
        inliers, which keep the smallest around any feature.
      selection: "paper" keeps for each drawn feature its own best candidates; "published" is the
        choice of the published code, see `published_round`.

    Raises:
      UserError: if a value is out of range; the message names it as `sampling.<attribute>`.
    """

    k: int = 300
    boundary: int = 50
    per_round: int = 50
    candidates: int = 1500
    scale: float = 0.07
    keep: int = 2
    rounds: int = 100
    largest: bool = True
    selection: str = "paper"

    def __post_init__(self):
        for name in ("k", "boundary", "per_round", "candidates", "keep", "rounds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(
                    f"sampling.{name} must be a whole number of at least 1, not {value}"
                )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UserError(f"sampling.scale must be positive and finite, not {self.scale}")
        if self.selection not in SELECTIONS:
            raise UserError(
                f"sampling.selection is {self.selection!r}; allowed: {', '.join(SELECTIONS)}"
            )
        if self.keep > self.candidates:
            raise UserError(
                f"sampling.keep is {self.keep}, more than the {self.candidates} of "
                "sampling.candidates that it chooses from"
            )

    @classmethod
    def of_outliers(cls, sampling: SamplingSettings) -> "SamplerSettings":
        """Returns the settings of outlier embeddings."""
        return cls(
            k=sampling.k,
            boundary=sampling.boundary,
            per_round=sampling.per_round,
            candidates=sampling.candidates,
            scale=sampling.scale,
            keep=sampling.keep,
            rounds=sampling.rounds,
            selection=sampling.selection,
        )

    @classmethod
    def of_inliers(cls, inliers: InlierSettings, selection: str) -> "SamplerSettings":
        """Returns the settings of inlier embeddings, which have no boundary set."""
        return cls(
            k=inliers.k,
            per_round=inliers.per_round,
            candidates=inliers.candidates,
            scale=inliers.scale,
            keep=inliers.keep,
            rounds=inliers.rounds,
            largest=False,
            selection=selection,
        )


@functools.lru_cache
def _mapped_rounds(settings: SamplerSettings) -> Callable:
    """The compiled rounds of one class, kept so that classes of the same size share them."""
    one_round = ROUNDS[settings.selection]

    def draw(keys, eligible):
        # A number per feature from its own key, the largest win: equal whatever the padding.
        lots = jnp.where(eligible, jax.vmap(jax.random.uniform)(keys), -1.0)
        return jax.lax.top_k(lots, settings.per_round)[1]

    def rounds(features, count, key, batch):
        index = jnp.arange(len(features))
        if settings.largest:
            chosen = boundary_set(features, settings.k, settings.boundary, count)
            eligible = jnp.zeros(len(features), bool).at[chosen].set(True)
        else:
            eligible = index < count

        def one(number):
            draw_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
            drawn = features[draw(fold_keys(draw_key, index), eligible)]
            noise = jax.random.normal(noise_key, (settings.candidates, features.shape[1]))
            return one_round(
                features,
                drawn,
                noise,
                settings.k,
                settings.scale,
                settings.keep,
                settings.largest,
                count,
            )

        return jax.lax.map(one, batch["position"])

    return pmap(rounds, in_axes=(None, None, None, 0))


def _checked_features(
    features: Float[np.ndarray, "n d"], settings: SamplerSettings
) -> Float[np.ndarray, "n d"]:
    """Returns features as float32 unit vectors, or raises why they cannot be sampled from."""
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not features.size:
        raise UserError(f"features of a class must be (n, d) and not empty, not {features.shape}")
    n = len(features)
    if not np.isfinite(features).all():
        raise UserError("features of a class must be finite: found NaN or infinity among them")
    # Scaled by the largest entry first, lest the squares overflow or vanish.
    largest = np.abs(features).max(axis=1, keepdims=True)
    if not largest.all():
        raise UserError("features of a class must not be zero: they have no direction to sample")
    if settings.k > n:
        raise UserError(f"sampling.k is {settings.k}, more than the {n} features of a class")
    if settings.largest and settings.boundary > n:
        raise UserError(
            f"sampling.boundary is {settings.boundary}, more than the {n} features of a class"
        )
    scaled = features / largest
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def sample_embeddings(
    features: Float[np.ndarray, "n d"],
    key: jax.Array,
    settings: SamplerSettings,
    rows: int | None = None,
) -> Float[np.ndarray, "embeddings d"]:
    """Samples all embeddings of one class: stage ② without its last step, the rescaling to |T(y)|.

    The rounds are shared out among the local devices. Random numbers are folded from the index of
    the round, so the result does not depend on how many devices there are.

    Args:
      features: (n, d) features of the class, of any length.
      key: random key of the class.
      settings: see `SamplerSettings`.
      rows: pad the features up to this many rows, at least n, with rows that are infinitely far
        and never drawn. Classes of different sizes then share one compiled program; for inliers
        only if each has at least `per_round` features.

    Returns:
      (rounds · p · keep, d) float32 unit vectors by round, then drawn feature, then best first;
      p = min(`per_round`, number of eligible features).

    Raises:
      UserError: if the features are not finite or zero, or `k` or `boundary` exceed their number.
      ValueError: if `rows` is less than n.
    """
    features = _checked_features(features, settings)
    n, dimension = features.shape
    rows = n if rows is None else rows
    if rows < n:
        raise ValueError(f"rows is {rows}, less than the {n} features to be padded")
    per_round = min(settings.per_round, settings.boundary if settings.largest else n)
    run = _mapped_rounds(dataclasses.replace(settings, per_round=per_round))
    padded = np.pad(features, ((0, rows - n), (0, 0)))
    # The position of a row, which `shard` adds, is here the number of a round.
    batch = shard({"round": np.arange(settings.rounds)})
    points = unshard(run(padded, np.int32(n), key, batch), settings.rounds)
    return points.reshape(-1, dimension)
