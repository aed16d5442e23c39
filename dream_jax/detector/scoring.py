"""Fitting detectors to a classifier, and scoring images by all of them in one pass."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jaxtyping import Float

from dream_jax.data.images import Images
from dream_jax.detector.detectors import DETECTORS, Detector, FitData, base
from dream_jax.detector.inputs import Forward, Head, make_inputs, visible
from dream_jax.detector.options import Options, resolve
from dream_jax.errors import UserError
from dream_jax.programs import shared
from dream_jax.training.devices import Checked, MappedFunction
from dream_jax.training.finite import ANYTHING, Origin, check_arrays

# images (n, ...) → (logits (n, classes), {key: scores (n,)}), higher is more ID.
Scorer = Callable[[Images], tuple[Float[np.ndarray, "n classes"], dict[str, np.ndarray]]]


class Fitted(NamedTuple):
    """A detector that is ready to score.

    Attributes:
      detector: which.
      options: all its settings.
      state: the float32 arrays that it uses.
    """

    detector: Detector
    options: Options
    state: Any


def fit_detectors(
    chosen: Mapping[str, tuple[str, Options]], data: FitData | None
) -> dict[str, Fitted]:
    """Fits detectors to ID training data, on the host in float64, a part of the data at a time.

    Args:
      chosen: by any key, the name of a detector and the settings that differ from its defaults.
      data: may be None for detectors that have nothing to fit.

    Raises:
      UserError: there is no such detector, a setting is not allowed, for this data or at all, or a
        class is missing in it; names and settings are checked before any work. Or what is fitted is
        not finite.
    """
    options = {}
    for key, (name, given) in chosen.items():
        if name not in DETECTORS:
            raise UserError(
                f"there is no detector {name!r}; allowed: {', '.join(sorted(DETECTORS))}"
            )
        options[key] = resolve(f"detector {name}", DETECTORS[name].options, given)
    fitted = {}
    for key, own in options.items():
        detector = DETECTORS[chosen[key][0]]
        state = detector.fit(cast(FitData, data), own)  # None where nothing is fitted
        with np.errstate(over="ignore"):  # what is too large for float32 is refused
            state = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), state)
        leaves = {f"statistic {i}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
        advice = (
            "the features of the training images are too large or too small for it: train the "
            "classifier with a lower learning rate, or leave the detector out"
        )
        check_arrays(leaves, f"detector {detector.name}", advice)
        fitted[key] = Fitted(detector, own, state)
    return fitted


def fit_head(features: Float[np.ndarray, "n d"], logits: Float[np.ndarray, "n classes"]) -> Head:
    """Returns the linear layer whose logits are nearest to those given, by least squares.

    For detectors that change the features and need the logits of the result, where a classifier's
    own logits are no linear function of its features. Reads a part of the data at a time: the
    triangular factor of all rows is that of the parts' factors.
    """
    d = features.shape[1]
    triangle = np.empty((0, d + 1 + logits.shape[1]))
    for start in range(0, len(features), base.ROWS_AT_ONCE):
        part = slice(start, start + base.ROWS_AT_ONCE)
        ones = np.ones((len(features[part]), 1))
        columns = np.concatenate([features[part], ones, logits[part]], axis=1, dtype=np.float64)
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, columns]), mode="r"))
    solution = np.linalg.lstsq(triangle[:, : d + 1], triangle[:, d + 1 :])[0]
    return Head(solution[:-1], solution[-1])


def scoring_program(
    forward: Forward, fitted: Mapping[str, Fitted], image_scale: float
) -> Callable[[Any, Mapping[str, Any], jax.Array], dict[str, Any]]:
    """Returns the function that is traced for all scores of a classifier.

    Returns:
      (variables, {key: state}, images) → {"logits": (n, classes), "scores of": {key: (n,)}}.
    """

    def program(variables: Any, states: Mapping[str, Any], images: jax.Array) -> dict[str, Any]:
        inputs = make_inputs(forward, variables, images, image_scale)
        scores = {
            key: detector.score(states[key], visible(inputs, detector.needed(options)), options)
            for key, (detector, options, _) in fitted.items()
        }
        return {"logits": inputs.logits, "scores of": scores}

    return program


@shared
def _scores_of(
    forward: Forward, without_states: Mapping[str, Fitted], image_scale: float
) -> Checked:
    """Returns the program of the scores, which is given the detectors' states."""
    made = scoring_program(forward, without_states, image_scale)

    def program(variables: Any, batch: dict) -> dict[str, Any]:
        network, states = variables
        return made(network, states, batch["images"])

    return Checked(program)


def scorer(
    forward: Forward,
    variables: Any,
    fitted: Mapping[str, Fitted],
    batch_size: int,
    image_scale: float = 1.0,
    origin: Origin = ANYTHING,
) -> Scorer:
    """Returns one program, mapped over the devices in batches, for all scores of a classifier.

    All share one forward pass; a score that needs gradients adds its own.

    Args:
      fitted: by any key, see `fit_detectors`.
      batch_size: images per call over all devices.
      image_scale: units of the network's normalised input per unit of an image (`INPUT_SCALE`).
      origin: what messages say of the network.

    The scorer raises `NotFinite` where logits or a score are; it names the score and the image.
    """
    without_states = {key: own._replace(state=None) for key, own in fitted.items()}
    program = _scores_of(forward, without_states, image_scale)
    states = {key: own.state for key, own in fitted.items()}
    mapped = MappedFunction(program, (variables, states), batch_size, origin)

    def outputs(images: Images) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        found = mapped({"images": images})
        scores = {key: found["scores of"][key] for key in fitted}  # JAX sorts the keys of a dict
        return found["logits"], scores

    return outputs
