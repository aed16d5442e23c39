"""ViM: the energy, less a virtual logit of what lies outside the features' principal subspace."""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import SMALLEST_VARIANCE
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, whole
from dream_jax.detector.scores import energy_score
from dream_jax.errors import UserError


def fit_vim(data: FitData, options: Options) -> dict[str, np.ndarray]:
    """The origin, the residual subspace and the scale α.

    Two passes: the second moments around the origin, whose smallest eigenvectors span the residual
    subspace; then α, by which mean residual and mean largest logit agree on the fitting data.

    Raises:
      UserError: no residual subspace is left, or the features do not vary in it.
    """
    d = data.features.shape[1]
    dimension = options["dimension"] or d // 2
    if not dimension < d:
        raise UserError(
            f"detector vim: dimension is {dimension}; it must be below {d}, the number of features"
        )
    kernel = np.asarray(data.linear_head.kernel, np.float64)
    origin = -np.linalg.pinv(kernel.T) @ np.asarray(data.linear_head.bias, np.float64)
    moments = sum((p.features - origin).T @ (p.features - origin) for p in data.parts())
    values, vectors = np.linalg.eigh(moments)  # in ascending order
    if values[d - dimension - 1] <= SMALLEST_VARIANCE * values[-1]:
        raise UserError(
            f"detector vim: dimension is {dimension}; it must be lower, for the training images' "
            f"features vary in only {np.sum(values > SMALLEST_VARIANCE * values[-1])} directions"
        )
    residual = vectors[:, : d - dimension]
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
