"""ViM: the energy, less a virtual logit of what lies outside the features' principal subspace."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import SMALLEST_VARIANCE
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, whole
from dream_jax.detector.scores import energy_score
from dream_jax.errors import UserError


def residual_space(
    data: FitData, options: Options, detector: str
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d r"]]:
    """Returns the origin, whose logits are 0, and the basis of the residual subspace.

    The second moments of the features around the origin have the smallest eigenvectors there.
    Directions in which the fitting data do not vary are among them: a unit that never fired in
    training and fires now makes a residual longer.

    Raises:
      UserError: no residual subspace is left, or the features do not vary in it.
    """
    d = data.features.shape[1]
    dimension = options["dimension"] or d // 2
    if not dimension < d:
        raise UserError(
            f"detector {detector}: dimension is {dimension}; it must be below {d}, the number of "
            f"features"
        )
    kernel = np.asarray(data.linear_head.kernel, np.float64)
    origin = -np.linalg.pinv(kernel.T) @ np.asarray(data.linear_head.bias, np.float64)
    moments = sum((p.features - origin).T @ (p.features - origin) for p in data.parts())
    values, vectors = np.linalg.eigh(moments)  # in ascending order
    if values[d - dimension - 1] <= SMALLEST_VARIANCE * values[-1]:
        raise UserError(
            f"detector {detector}: dimension is {dimension}; it must be lower, for the training "
            f"images' features vary in only {np.sum(values > SMALLEST_VARIANCE * values[-1])} "
            f"directions"
        )
    return origin, vectors[:, : d - dimension]


def fit_vim(data: FitData, options: Options) -> dict[str, np.ndarray]:
    """The origin, the residual subspace and the scale α.

    Two passes: that of `residual_space`, then α, by which mean residual and mean largest logit
    agree on the fitting data.

    Raises:
      UserError: see `residual_space`.
    """
    origin, residual = residual_space(data, options, "vim")
    largest, lengths = 0.0, 0.0
    for part in data.parts():
        largest += np.sum(np.max(part.logits, axis=-1))
        lengths += np.sum(np.linalg.norm((part.features - origin) @ residual, axis=-1))
    return {"origin": origin, "residual": residual * (largest / lengths)}


def vim_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """Energy less α times the length of the residual: it orders as minus the paper's softmax."""
    residual = jnp.matmul(inputs.features - state["origin"], state["residual"], precision="highest")
    return energy_score(inputs.logits) - jnp.linalg.norm(residual, axis=-1)


VIM = Detector(
    name="vim",
    title="ViM",
    paper="Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022",
    needs=frozenset({"features", "logits", "head"}),
    fit=fit_vim,
    score=vim_score,
    # Of the principal subspace; 0: half the features. The paper's: 1000 of 2048, 512 of 768.
    options={"dimension": whole(0, 0)},
)
