"""VOS: virtual outliers of low likelihood in the feature space (Du et al., ICLR 2022).

The features of each class are taken as a Gaussian, all with one covariance. Outliers are its least
likely samples, and an uncertainty loss tells them from the batch by their weighted energies.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp

from dream_jax.detector import last_layer, queues
from dream_jax.detector.inputs import Outputs
from dream_jax.detector.methods.base import (
    Examples,
    Own,
    Shape,
    Training,
    classification_terms,
)
from dream_jax.detector.methods.dream_ood import init_phi, level_set_loss, phi
from dream_jax.detector.options import Options, choice, number, whole
from dream_jax.errors import UserError
from dream_jax.training.devices import gather_rows, share_out
from dream_jax.training.terms import Term

RIDGE = 1e-4  # added to the covariance's diagonal, as in the published code
SLOPES = ("free", "rising")  # of φ, see `uncertainty_branch`


def weighted_energy(logits: jax.Array, weights: jax.Array) -> jax.Array:
    """E(x) = log Σ_c max(w_c, 0) exp(f_c): (n, classes) and (classes,) → (n,).

    Section 3.2 of the paper, with the sign turned: higher is more ID.
    """
    return logsumexp(logits, axis=-1, b=jax.nn.relu(weights))


def uncertainty_branch(layers: dict, slope: str) -> dict:
    """The layers of φ as they are used: as trained if `slope` is "free".

    If it is "rising", weights count by their size alone, with signs such that φ's logit rises with
    the energy. Left free, φ may learn that outliers have the higher energies.
    """
    if slope == "free":
        return layers
    layers = {name: layer | {"kernel": jnp.abs(layer["kernel"])} for name, layer in layers.items()}
    last = f"layer{len(layers) - 1}"
    sign = jnp.array([-1.0, 1.0])
    return layers | {last: layers[last] | {"kernel": layers[last]["kernel"] * sign}}


def fit_gaussians(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Class means and the Cholesky factor L of the shared covariance L Lᵀ (section 3.1).

    Args:
      rows: (classes, n, d), the features of each class.

    Returns:
      (classes, d), and (d, d) lower triangular, with `RIDGE` on the covariance's diagonal.
    """
    classes, n, d = rows.shape
    means = jnp.mean(rows, axis=1)
    centred = (rows - means[:, None]).reshape(classes * n, d)
    covariance = jnp.matmul(centred.T, centred, precision="highest") / (classes * n)
    return means, jnp.linalg.cholesky(covariance + RIDGE * jnp.eye(d))


def virtual_outliers(
    key: jax.Array, mean: jax.Array, factor: jax.Array, candidates: int, keep: int
) -> jax.Array:
    """The `keep` least likely of `candidates` samples of a class's Gaussian, the least first.

    The log-likelihood of a sample mean + L z is a constant less |z|² / 2, so the least likely are
    those with the longest z: no density is evaluated.

    Args:
      mean: (d,).
      factor: (d, d), the Cholesky factor L of the covariance.

    Returns:
      (keep, d).
    """
    z = jax.random.normal(key, (candidates, len(mean)))
    longest = jax.lax.top_k(jnp.sum(z**2, axis=1), keep)[1]
    return mean + jnp.matmul(z[longest], factor.T, precision="highest")


def _check(options: Options, image: tuple[int, int, int], labels: np.ndarray, epochs: int) -> None:
    if options["keep"] > options["candidates"]:
        raise UserError(
            f"method vos: keep is {options['keep']}; it must be at most candidates = "
            f"{options['candidates']}, of which it keeps some"
        )
    queues.check_fill("vos", options["queue"], labels, epochs)


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
    phi_key, weight_key = jax.random.split(key)
    params = {
        "phi": init_phi(phi_key, options["phi_hidden"]),
        "weights": jax.random.uniform(weight_key, (shape.classes,)),
    }
    return Own(params, queues.empty(shape.classes, options["queue"], shape.features))


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], queues.Queues]:
    id_mask = shown.mask * shown.is_id
    gathered = gather_rows((jax.lax.stop_gradient(shown.features), shown.labels, id_mask))
    queue = queues.push(own.state, *gathered)
    begun = queues.all_full(queue) & (shown.progress >= options["start"])
    # Each device draws the outliers of its share of the classes.
    classes, real = share_out(len(queue.seen))

    def draw():
        means, factor = fit_gaussians(queue.rows)

        def of_class(number):
            key = jax.random.fold_in(shown.key, number)
            return virtual_outliers(
                key, means[number], factor, options["candidates"], options["keep"]
            )

        return jax.lax.map(of_class, classes)

    shape = (len(classes), options["keep"], shown.features.shape[1])
    outliers = jax.lax.cond(begun, draw, lambda: jnp.zeros(shape))
    logits = jnp.concatenate([shown.logits, shown.head(outliers.reshape(-1, shape[-1]))])
    is_id = jnp.concatenate([shown.is_id, jnp.zeros(shape[0] * shape[1])])
    mask = jnp.concatenate([id_mask, jnp.repeat(real, options["keep"])]) * begun
    energy = weighted_energy(logits, own.params["weights"])
    branch = uncertainty_branch(own.params["phi"], options["slope"])
    loss = level_set_loss(branch, energy, is_id)
    ce = classification_terms(shown.logits, shown.labels, id_mask)
    return ce | {"uncertainty": Term(loss, mask, options["weight"])}, queue


def _outputs(own: Own, outputs: Outputs, options: Options) -> Outputs:
    """Adds φ's logit of the weighted energy, as the paper scores images (section 3.3)."""
    energy = weighted_energy(outputs.logits, own.params["weights"])
    logits = phi(uncertainty_branch(own.params["phi"], options["slope"]), energy)
    return outputs._replace(certainty=logits[:, 1] - logits[:, 0])


TRAINING = Training(
    name="vos",
    title="VOS",
    paper="Du et al., VOS: Learning What You Don't Know by Virtual Outlier Synthesis, ICLR 2022",
    terms=_terms,
    detector="energy",  # as the published code has it
    options={  # defaults of the published code for CIFAR
        "weight": number(0.1, 0.0, 1e3),  # of the uncertainty loss
        "start": number(0.4, 0.0, 1.0),  # share of the training before it, epochs 40 of 100
        "queue": whole(1000, 1),  # features per class
        "candidates": whole(10000, 1),  # samples per class and step ...
        "keep": whole(1, 1),  # ... and how many are kept as outliers
        "phi_hidden": whole(0, 0),  # 0: φ is linear; the paper's object detectors: 512
        "slope": choice("free", SLOPES),
        **last_layer.OPTIONS,
    },
    init=_init,
    check=_check,
    outputs=_outputs,
)
