"""RankFeat: the energy of a network whose last maps lack the part of rank 1 that weighs most."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, choice, number

SQUARINGS = 12  # of the Gram matrix: its 4096th power is of rank 1 but for nearly equal values


def leading_part(maps: Float[Array, "n H W C"]) -> Float[Array, "n H W C"]:
    """Returns s u vᵀ of each image, of the largest singular value s of its (H W, C) matrix.

    By squaring the smaller Gram matrix again and again, which needs products alone and no random
    start. Of equal largest singular values it is a mean of their parts.
    """
    n, height, width, channels = maps.shape
    matrix = maps.reshape(n, height * width, channels).astype(jnp.float32)
    largest = jnp.max(jnp.abs(matrix), axis=(1, 2), keepdims=True)
    scaled = matrix / jnp.where(largest > 0, largest, 1.0)
    wide = channels >= height * width
    sides = "nsc,ntc->nst" if wide else "nsc,nsd->ncd"
    projector = jnp.einsum(sides, scaled, scaled, precision="highest")
    for _ in range(SQUARINGS):
        trace = jnp.trace(projector, axis1=1, axis2=2)[:, None, None]
        projector = projector / jnp.where(trace > 0, trace, 1.0)
        projector = jnp.matmul(projector, projector, precision="highest")
    trace = jnp.trace(projector, axis1=1, axis2=2)[:, None, None]
    projector = projector / jnp.where(trace > 0, trace, 1.0)
    first, second = (projector, matrix) if wide else (matrix, projector)
    return jnp.matmul(first, second, precision="highest").reshape(maps.shape)


def fit_rankfeat(data: FitData, options: Options) -> dict:
    return {"head": data.linear_head} if options["blocks"] == "last" else {}


def _more(options: Options) -> frozenset[str]:
    return frozenset({"rerun"} if options["blocks"] == "both" else {"features", "head"})


def rankfeat_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """The energy of the mean of the logits without the part, in the last layer and in that before.

    Of the last layer alone, its mean over the positions takes the place of the features.
    """
    maps, temperature = inputs.layers, options["temperature"]
    if options["blocks"] == "both":
        changed = [inputs.rerun({name: -leading_part(maps[name])}) for name in [*maps][-2:]]
        logits = sum(outputs.logits for outputs in changed) / len(changed)
    else:
        last = maps[[*maps][-1]].astype(jnp.float32)
        logits = state["head"](jnp.mean(last - leading_part(last), axis=(1, 2)))
    return temperature * jax.nn.logsumexp(logits / temperature, axis=-1)


RANKFEAT = Detector(
    name="rankfeat",
    title="RankFeat",
    paper="Song et al., RankFeat: Rank-1 Feature Removal for Out-of-distribution Detection, "
    "NeurIPS 2022",
    needs=frozenset({"layers"}),
    fit=fit_rankfeat,
    score=rankfeat_score,
    options={
        "blocks": choice("both", ("both", "last")),
        "temperature": number(1.0, 1e-3, 1e6),
    },
    more=_more,
)
