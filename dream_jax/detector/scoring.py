"""Fitting the scores of a classifier, and scoring images by all of them in one pass."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dream_jax.detector.detectors import DETECTORS, FitData, Head, Inputs
from dream_jax.detector.detectors.base import nothing_to_fit
from dream_jax.detector.detectors.neighbours import check_neighbours
from dream_jax.detector.inputs import NEEDS, visible
from dream_jax.detector.methods import Method
from dream_jax.detector.options import resolve
from dream_jax.errors import UserError
from dream_jax.training.devices import MappedFunction

# (variables, images (n, ...)) → (logits (n, classes), penultimate features (n, d)), in evaluation
# mode: each row of its own.
Forward = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


class Fitted(NamedTuple):
    """A score that is ready to be used.

    Attributes:
      score: (state, inputs, options) → (n,), higher is more ID; traced.
      needs: some of `inputs.NEEDS`: what of the inputs it sees.
      options: all its settings.
      state: the float32 arrays that it uses.
    """

    score: Callable[[Any, Inputs, Mapping[str, Any]], jax.Array]
    needs: frozenset[str]
    options: Mapping[str, Any]
    state: Any


def resolve_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A detector's settings: `given` ones in place of the defaults.

    Raises:
      UserError: there is no such detector or setting, or its value is not allowed.
    """
    if name not in DETECTORS:
        raise UserError(f"there is no detector {name!r}; allowed: {', '.join(sorted(DETECTORS))}")
    return resolve(f"detector {name}", DETECTORS[name].options, given)


def fit_detectors(
    chosen: Mapping[str, Mapping[str, Any]], data: FitData | None
) -> dict[str, Fitted]:
    """Fits detectors to ID training data, on the host in float64, a part of the data at a time.

    Args:
      chosen: by name the settings that differ from the defaults.
      data: may be None for detectors that have nothing to fit.

    Raises:
      UserError: a setting is not allowed, for this data or at all, or a class is missing in it;
        the settings are checked before any work.
    """
    options = {name: resolve_options(name, given) for name, given in chosen.items()}
    fitted = {}
    for name, own in options.items():
        detector = DETECTORS[name]
        fitted[name] = fitted_score(detector.score, detector.needs, own, detector.fit(data, own))
    return fitted


def fitted_score(score: Callable, needs: frozenset[str], options: Mapping, state: Any) -> Fitted:
    """A `Fitted` whose state is brought to float32."""
    return Fitted(score, needs, options, jax.tree.map(lambda a: np.asarray(a, np.float32), state))


def check_sizes(options: Mapping[str, Mapping[str, Any]], images: int) -> None:
    """Checks what can be known of the fitting before there is a classifier.

    Raises:
      UserError: a detector's k is above the number of training images.
    """
    for name, own in options.items():
        if "k" in own:
            check_neighbours(own["k"], images, name)


def extract_features(
    forward: Forward, variables: Any, images: Any, batch_size: int, progress: str | None = None
) -> np.ndarray:
    """Penultimate features (n, d) float32 of images, batch by batch over the devices."""

    def features(variables, batch):
        return forward(variables, batch["images"])[1]

    return MappedFunction(features, variables, batch_size)({"images": images}, progress)


def fit_to_images(
    chosen: Mapping[str, Mapping[str, Any]],
    forward: Forward,
    variables: Any,
    head: Head,
    images: Any,
    labels: np.ndarray,
    batch_size: int,
) -> dict[str, Fitted]:
    """`fit_detectors` to the features of images (n, ...) with their labels.

    The images are looked at only if a detector has something to fit.

    Raises:
      UserError: as `fit_detectors`.
    """
    if all(DETECTORS[name].fit is nothing_to_fit for name in chosen):
        return fit_detectors(chosen, None)
    features = extract_features(forward, variables, images, batch_size, "features")
    return fit_detectors(chosen, FitData(features, labels, head))


def fit_method(
    method: Method,
    options: Mapping[str, Any],
    forward: Forward,
    classifier: Any,
    images: Any,
    batch_size: int,
    image_scale: float = 1.0,
) -> Fitted:
    """The score of a training method, fitted to the ID training images if it has to be.

    Args:
      options: all settings of the method.
      classifier: its `Classifier`, which is what `forward` takes.
    """

    def evaluate(function: Callable[[Inputs], Any]) -> Any:
        def program(classifier, batch):
            return function(_inputs(forward, classifier, batch["images"], image_scale))

        mapped = MappedFunction(program, classifier, batch_size)
        return mapped({"images": images}, f"fitting {method.name}")

    state = method.fit(classifier.own, evaluate, options)
    return fitted_score(method.score, frozenset(NEEDS), options, state)


def _inputs(forward: Forward, variables: Any, images: jax.Array, image_scale: float) -> Inputs:
    logits, features = forward(variables, images)
    return Inputs(logits, features, images, lambda x: forward(variables, x), image_scale)


def scorer(
    forward: Forward,
    variables: Any,
    fitted: Mapping[str, Fitted],
    batch_size: int,
    image_scale: float = 1.0,
) -> Callable[[Any], tuple[np.ndarray, dict[str, np.ndarray]]]:
    """One program, mapped over the devices in batches, for all scores of a classifier.

    All share one forward pass; a score that needs gradients adds its own.

    Args:
      fitted: by name, see `fit_detectors`.
      batch_size: images per call over all devices.
      image_scale: units of the network's normalised input per unit of an image (`INPUT_SCALE`).

    Returns:
      images (n, ...) → (logits (n, classes), scores by name (n,), higher is more ID).
    """

    def program(variables, batch):
        network, states = variables
        inputs = _inputs(forward, network, batch["images"], image_scale)
        scores = {}
        for name, own in fitted.items():
            scores[name] = own.score(states[name], visible(inputs, own.needs), own.options)
        return inputs.logits, scores

    states = {name: own.state for name, own in fitted.items()}
    mapped = MappedFunction(program, (variables, states), batch_size)

    def outputs(images):
        logits, scores = mapped({"images": images})
        return logits, {name: scores[name] for name in fitted}  # JAX sorts the keys of a dict

    return outputs
