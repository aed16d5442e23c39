"""BOOD's sampler: features that are nearest to leaving their class walk across its boundary.

Liao et al., "BOOD: Boundary-based Out-Of-Distribution Data Generation", ICML 2025 (arXiv
2508.00350), in the latent space of Dream-OOD, whose classifier gives a feature z the class with the
largest cosine of z and T(y).

From the paper: a feature climbs the gradient of its classification loss until the classifier gives
it to another class; the features of a class that need the fewest steps are kept, and walk on by a
few steps; they are decoded, and trained with, as Dream-OOD's embeddings. From public code of the
method: the loss is the cross-entropy of the cosines over t = 0.1; a step adds α times the sign of
the gradient to what began as a unit vector and is not scaled in between; a class keeps the rounded
share r of its features. The text of the paper was not at hand when this was written.

Our reading:
- Of features that need equally many steps, those that begin nearest to the boundary are kept: with
  α = 0.015 in 768 dimensions a step is 0.42 long, and most features need the same few.
- A feature that the classifier gives to another class from the beginning crosses nothing. The code
  counts 0 steps and keeps it first, however deep in the other class it is; here it comes last, and
  serves where too few features cross.
- An embedding is a unit vector before it gets the length of its anchor, as in Dream-OOD. The code
  leaves it the length that it has after the steps.
- Classes of unequal size give equally many embeddings, by the mean number of their features.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from dream_jax.errors import UserError
from dream_jax.sampling.settings import BoodSampler
from dream_jax.training.devices import pmap, shard, unshard
from dream_jax.vectors import cosine_logits, unit, unit_on_host

# Features that walk together, whatever the size of the class and the number of devices: this bounds
# the memory, and a sum that is rounded in another order could turn the sign of a gradient.
WALKERS = 64
NEVER = -1  # steps of a feature that does not come to lie behind the boundary


class Walks(NamedTuple):
    """The walks of the features of a class.

    Attributes:
      steps: steps to the first point that is given to another class: 0 where the feature itself is,
        `NEVER` where none of the first `most_steps` is, or the walk has come back at its end.
      margins: cosine of the feature and its anchor, less that of the nearest other anchor: above 0
        inside the class.
      ends: the unit vectors that lie `beyond` steps after that point; zeros where there is none.
    """

    steps: Int[np.ndarray, " n"]
    margins: Float[np.ndarray, " n"]
    ends: Float[np.ndarray, "n d"]


def embeddings_per_class(labels: Int[np.ndarray, " n"], classes: int, share: float) -> int:
    """Returns how many embeddings each class gets: a share of its features, in the mean."""
    return max(1, round(share * len(labels) / classes))


def cross_boundary(
    features: Float[np.ndarray, "n d"],
    label: int,
    anchors: Float[np.ndarray, "classes d"],
    settings: BoodSampler,
    count: int,
    pad_to: int | None = None,
) -> Float[np.ndarray, "count d"]:
    """Returns BOOD's embeddings of one class as unit vectors, from the nearest to the farthest.

    They do not depend on chance, nor on the number of devices.

    Args:
      features: features of the class, of any length above 0.
      label: of the class.
      anchors: T(y) of all classes, of any length; two or more.
      settings: of the walks.
      count: number of embeddings. Where fewer features come to lie behind the boundary, their
        embeddings are repeated in turn.
      pad_to: see `walk`.

    Raises:
      UserError: no feature comes to lie behind the boundary.
    """
    walks = walk(features, label, anchors, settings, pad_to)
    chosen = choose(walks, count)
    if not len(chosen):
        raise UserError(
            f"config.bood.most_steps is {settings.most_steps}; of the {len(features)} features of "
            f"class number {label} none leaves its class in as many steps of config.bood.step = "
            f"{settings.step}: raise one of them"
        )
    if lacking := count - int(np.sum(walks.steps[chosen] > 0)):
        tqdm.write(
            f"   BOOD, class number {label}: for lack of features that cross its boundary, "
            f"{lacking} of {count} embeddings begin behind it or are repeated"
        )
    return walks.ends[np.resize(chosen, count)]


def choose(walks: Walks, count: int) -> Int[np.ndarray, " chosen"]:
    """Chooses the features that are nearest to leaving their class.

    Args:
      walks: of all features of the class.
      count: how many to choose at most.

    Returns:
      Their numbers: first those that cross the boundary, by steps and then by margin; then those
      that begin behind it, the nearest first. The others are never chosen.
    """
    steps, margins = walks.steps, np.abs(walks.margins)
    order = np.lexsort((margins, steps, steps == 0, steps == NEVER))
    return order[: min(count, int(np.sum(steps != NEVER)))]


def walk(
    features: Float[np.ndarray, "n d"],
    label: int,
    anchors: Float[np.ndarray, "classes d"],
    settings: BoodSampler,
    pad_to: int | None = None,
) -> Walks:
    """Lets all features of a class walk across its boundary; see `cross_boundary`.

    Args:
      pad_to: pads the features to this number, at least n, so that classes of different sizes
        share one compiled program. The padding changes nothing.
    """
    n, dimension = features.shape
    groups = -(-max(n, pad_to or n) // WALKERS)
    padded = np.zeros((groups * WALKERS, dimension), np.float32)
    padded[:n] = unit_on_host(np.asarray(features, np.float32))
    batch = shard(
        {
            "features": padded.reshape(groups, WALKERS, dimension),
            "real": (np.arange(len(padded)) < n).reshape(groups, WALKERS),
        }
    )
    centres = unit_on_host(np.asarray(anchors, np.float32))
    made = _mapped_walks()(np.int32(label), centres, dataclasses.asdict(settings), batch)
    found = [unshard(array, groups) for array in made]
    return Walks(*(array.reshape(-1, *array.shape[2:])[:n] for array in found))


@functools.cache
def _mapped_walks() -> Callable[..., tuple[jax.Array, ...]]:
    """Returns the program of the walks of a class, which all classes and settings share."""

    def walks(label, centres, settings, batch):
        def one(group):
            own = BoodSampler(**settings)
            return _walk_group(group["features"], group["real"], label, centres, own)

        return jax.lax.map(one, {name: batch[name] for name in ("features", "real")})

    return pmap(walks, in_axes=(None, None, None, 0))


def _walk_group(
    features: Float[Array, "walkers d"],
    real: Bool[Array, " walkers"],
    label: Int[Array, ""],
    centres: Float[Array, "classes d"],
    settings: BoodSampler,
) -> tuple[Array, Array, Array]:
    """Returns `steps`, `margins` and `ends` of a group of features; see `Walks`. Traced."""
    own = jnp.arange(len(centres)) == label
    last = settings.most_steps + settings.beyond

    def under_way(state):
        number, _, steps, _ = state
        left_out = (steps == NEVER) & (number > settings.most_steps)
        arrived = (steps != NEVER) & (number > steps + settings.beyond)
        return (number <= last) & jnp.any(real & ~left_out & ~arrived)

    def take_step(state):
        number, z, steps, ends = state
        point = unit(z)
        logits = cosine_logits(point, centres, settings.temperature)
        behind = jnp.argmax(logits, axis=1) != label
        leaves = behind & (steps == NEVER) & (number <= settings.most_steps)
        steps = jnp.where(leaves, number, steps)
        arrives = behind & (steps != NEVER) & (number == steps + settings.beyond)
        ends = jnp.where(arrives[:, None], point, ends)
        z = z + settings.step * jnp.sign(ascent(point, logits, own, centres))
        return number + 1, z, steps, ends

    never = jnp.full(len(features), NEVER, jnp.int32)
    start = jnp.int32(0), features, never, jnp.zeros_like(features)
    _, _, steps, ends = jax.lax.while_loop(under_way, take_step, start)
    steps = jnp.where(jnp.any(ends != 0, axis=1), steps, NEVER)
    cosines = cosine_logits(features, centres, 1.0)
    margins = cosines[:, label] - jnp.max(jnp.where(own, -jnp.inf, cosines), axis=1)
    return steps, margins, ends


def ascent(
    points: Float[Array, "n d"],
    logits: Float[Array, "n classes"],
    own: Bool[Array, " classes"],
    centres: Float[Array, "classes d"],
) -> Float[Array, "n d"]:
    """Computes the direction of the gradient of the classification loss by the features.

    With p the softmax of the cosines over t, and q that over the classes other than y, the gradient
    of -log p_y by z is (1 - p_y) / (t |z|) times the part of Σ q_j T_j - T_y at a right angle to z.
    The factor is left out: it does not change the sign, and deep inside a class p_y rounds to 1.

    Args:
      points: unit vectors z / |z|.
      logits: their cosines to the centres over t.
      own: True for the class y of the points.
      centres: unit vectors T_j.
    """
    others = jax.nn.softmax(jnp.where(own, -jnp.inf, logits), axis=1)
    product = functools.partial(jnp.matmul, precision="highest")
    pull = product(others - own, centres)
    return pull - jnp.sum(pull * points, axis=1, keepdims=True) * points
