"""GMM: the density of a mixture of Gaussians with one covariance, in the principal subspace."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dream_jax import rules
from dream_jax.detector.detectors.base import Detector, FitData
from dream_jax.detector.detectors.statistics import SMALLEST_VARIANCE, mean_feature
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options, whole
from dream_jax.errors import UserError
from dream_jax.rules import Option

ROUNDS, CLOSE = 100, 1e-3  # of expectation-maximisation; gain in mean log-likelihood that ends it
RIDGE = 1e-6  # added to the covariance, as a share of the mean variance
SAMPLE = 10_000  # rows by which the components start
TINY = 10 * np.finfo(np.float64).eps  # of a row, in a component that has none


class Mixture(NamedTuple):
    """A mixture of Gaussians.

    Attributes:
      weights: (k,), adding up to 1.
      means: (k, m).
      covariance: (m, m) of all components.
    """

    weights: np.ndarray
    means: np.ndarray
    covariance: np.ndarray


class Subspace(NamedTuple):
    """The principal subspace of features.

    Attributes:
      mean: (d,).
      basis: (d, m), orthonormal.
      variances: (m,) of the fitting data.
    """

    mean: np.ndarray
    basis: np.ndarray
    variances: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) @ self.basis


def check_components(options: Options, images: int) -> None:
    """Raises UserError if there are fewer training images than components."""
    if options["components"] > images:
        raise UserError(
            f"detector gmm: components is {options['components']}; it must be at most {images}, "
            f"the number of training images"
        )


def subspace(data: FitData, dimension: int) -> Subspace:
    """Returns the subspace of the largest variances, of at most `dimension` that are not 0.

    Raises:
      UserError: the features do not vary.
    """
    mean = mean_feature(data)
    centred = ((part.features - mean) for part in data.parts())
    covariance = sum(rows.T @ rows for rows in centred) / len(data.labels)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = min(dimension or len(values), int(np.sum(values > SMALLEST_VARIANCE * values[0])))
    if not count:
        raise UserError("detector gmm: the features of the training images do not vary")
    return Subspace(mean, vectors[:, :count], values[:count])


def start(data: FitData, space: Subspace, components: int) -> Mixture:
    """Returns the mixture of the clusters that k-means finds among some rows."""
    from sklearn.cluster import KMeans  # slow to import

    n = len(data.labels)
    rows = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
    x = space(np.asarray(data.features[rows], np.float64))
    found = KMeans(components, n_init=1, random_state=0).fit(x)
    counts = np.bincount(found.labels_, minlength=components) + TINY
    rest = x - found.cluster_centers_[found.labels_]
    covariance = rest.T @ rest / len(x)
    return Mixture(counts / counts.sum(), found.cluster_centers_, _with_ridge(covariance, space))


def _with_ridge(covariance: np.ndarray, space: Subspace) -> np.ndarray:
    return covariance + RIDGE * np.mean(space.variances) * np.eye(len(covariance))


def log_terms(x: Float[np.ndarray, "n m"], mixture: Mixture) -> Float[np.ndarray, "n k"]:
    """Returns the logarithms of weight times density, without what all have in common."""
    factor = np.linalg.inv(np.linalg.cholesky(mixture.covariance)).T
    white, centres = x @ factor, mixture.means @ factor
    squares = np.sum(white**2, 1)[:, None] - 2 * white @ centres.T + np.sum(centres**2, 1)
    return np.log(mixture.weights) - np.maximum(squares, 0) / 2


def improve(data: FitData, space: Subspace, mixture: Mixture) -> tuple[Mixture, float]:
    """One round of expectation-maximisation, in one pass over the data.

    Returns:
      The new mixture, and the mean log-likelihood of the old one, less a constant.
    """
    from scipy.special import logsumexp  # slow to import

    k, m = mixture.means.shape
    counts, sums, total = np.full(k, TINY), np.zeros((k, m)), 0.0
    for part in data.parts():
        x = space(part.features)
        terms = log_terms(x, mixture)
        whole_term = logsumexp(terms, axis=1)
        share = np.exp(terms - whole_term[:, None])
        counts += share.sum(0)
        sums += share.T @ x
        total += whole_term.sum()
    means, n = sums / counts[:, None], len(data.labels)
    # The second moments of all rows are known: the covariance is what the means leave of them.
    covariance = np.diag(space.variances) - (means.T * counts) @ means / n
    likelihood = total / n - np.linalg.slogdet(mixture.covariance)[1] / 2
    new = Mixture(counts / counts.sum(), means, _with_ridge(covariance, space))
    return new, likelihood


def fit_gmm(data: FitData, options: Options) -> dict[str, np.ndarray]:
    """Returns the mixture in a space in which its covariance is the identity.

    Raises:
      UserError: there are fewer images than components, or the features do not vary.
    """
    check_components(options, len(data.labels))
    space = subspace(data, options["dimension"])
    mixture, last = start(data, space, options["components"]), -np.inf
    for _ in range(ROUNDS):
        mixture, likelihood = improve(data, space, mixture)
        if likelihood - last < CLOSE:
            break
        last = likelihood
    factor = np.linalg.inv(np.linalg.cholesky(mixture.covariance)).T
    return {
        "mean": space.mean,
        "factor": space.basis @ factor,
        "centres": mixture.means @ factor,
        "log_weights": np.log(mixture.weights),
    }


def gmm_score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """The logarithm of the density, less a constant."""
    product = partial(jnp.matmul, precision="highest")
    white = product(inputs.features - state["mean"], state["factor"])
    to_centres = jnp.sum(state["centres"] ** 2, -1) - 2 * product(white, state["centres"].T)
    terms = state["log_weights"] - to_centres / 2
    return jax.nn.logsumexp(terms, axis=-1) - jnp.sum(white**2, axis=-1) / 2


GMM = Detector(
    name="gmm",
    title="GMM",
    paper="Yang et al., Full-Spectrum Out-of-Distribution Detection, IJCV 2023, by OpenOOD's form: "
    "its mixture of the last features alone",
    needs=frozenset({"features"}),
    fit=fit_gmm,
    score=gmm_score,
    # OpenOOD's for CIFAR. `dimension`: principal directions at most; 0 all in which features vary.
    options={"components": Option(50, rules.whole(1, 1000)), "dimension": whole(50, 0)},
    check=check_components,
)
