"""A trained classifier: its logits of images, and the scores of detectors fitted to it."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images
from dream_jax.detector.detectors import DETECTORS, FitData, base
from dream_jax.detector.detectors.base import Evaluate, nothing_to_fit
from dream_jax.detector.inputs import Forward, Head, Inputs, Outputs, make_inputs
from dream_jax.detector.last_layer import feature_dimension
from dream_jax.detector.methods import Training
from dream_jax.detector.methods.base import NOTHING, Own, network_of
from dream_jax.detector.options import Options
from dream_jax.detector.scoring import Fitted, Scorer, fit_detectors, fit_head, scorer
from dream_jax.models.resnet import INPUT_SCALE, ResNet, build_model
from dream_jax.programs import shared
from dream_jax.settings import ModelSettings
from dream_jax.training.devices import Checked, MappedFunction
from dream_jax.training.finite import Origin


class Variables(NamedTuple):
    """The network's {"params", "batch_stats"}, and what the training has of its own."""

    network: dict
    own: Own = NOTHING


@shared
def _forward(network: ResNet, training: Training, options: Options) -> Forward:
    """Returns the classifier as a function of its variables, the same for all seeds."""

    def forward(
        variables: Variables,
        images: Float[Array, "n H W C"],
        added: Mapping[str, jax.Array] | None = None,
    ) -> Outputs:
        trained = network_of(network, variables.network, network.maps, added)
        return training.evaluate(trained, variables.own, images, options)

    return forward


@shared
def _logits_of(forward: Forward) -> Checked:
    return Checked(lambda own, batch: {"logits": forward(own, batch["images"])[0]})


@shared
def _features_of(forward: Forward, with_logits: bool) -> Checked:
    def outputs(variables: Variables, batch: dict) -> dict[str, jax.Array]:
        made = forward(variables, batch["images"])
        return {"features": made.features} | ({"logits": made.logits} if with_logits else {})

    return Checked(outputs)


class Classifier:
    """A trained classifier, which runs batch by batch on all devices, in evaluation mode.

    Args:
      model: of the network.
      training: by which it was trained.
      options: all settings of the training.
      variables: what was trained.
      classes: how many there are.
      batch_size: images at once over the devices of all processes.
    """

    def __init__(
        self,
        model: ModelSettings,
        training: Training,
        options: Options,
        variables: Variables,
        classes: int,
        batch_size: int,
    ):
        self.training, self.variables, self.batch_size = training, variables, batch_size
        network = build_model(model, classes, feature_dimension(options))
        self.forward = _forward(network, training, options)
        self.origin = Origin(f"classifier {training.name}", "model.precision", model.precision)
        self._logits = self._mapped(_logits_of(self.forward))

    def _mapped(self, program: Callable[[Variables, dict], Any] | Checked) -> MappedFunction:
        return MappedFunction(program, self.variables, self.batch_size, self.origin)

    def logits(self, images: Images) -> Float[np.ndarray, "n classes"]:
        """Returns the logits of images.

        Raises:
          NotFinite: one is NaN or infinite; names the first image.
        """
        return self._logits({"images": images})["logits"]

    def fit(self, detectors: Mapping[str, tuple[str, Options]], train: ImageSet) -> Scorer:
        """Fits detectors to this classifier, and returns the scores of all in one pass.

        Args:
          detectors: by any key, the name of a detector and all its settings.
          train: ID training images. They are looked at only if a detector has something to fit.

        Raises:
          UserError: see `fit_detectors`.
          NotFinite: see `logits`.
        """
        fitted = self.fitted(detectors, train)
        own = (self.forward, self.variables, fitted, self.batch_size, INPUT_SCALE)
        return scorer(*own, self.origin)

    def fitted(
        self, detectors: Mapping[str, tuple[str, Options]], train: ImageSet
    ) -> dict[str, Fitted]:
        """Returns detectors that are fitted to this classifier; see `fit`."""
        used = [DETECTORS[name] for name, _ in detectors.values()]
        data = None
        if any(detector.fit is not nothing_to_fit for detector in used):
            needed = (DETECTORS[name].needed(own) for name, own in detectors.values())
            data = self.fit_data(train, any("head" in needs for needs in needed))
        return fit_detectors(detectors, data)

    def fit_data(self, train: ImageSet, head: bool = True) -> FitData:
        """Returns what detectors are fitted to, from one pass over the images.

        The head is the network's own; or, where the training's logits are no linear function of the
        features, the linear one whose logits are nearest to them.

        Args:
          train: ID training images.
          head: whether a detector needs the head; where it must be fitted, that takes a while.
        """
        program = _features_of(self.forward, not self.training.linear)
        made = self._mapped(program)({"images": train.images}, "features")
        features, logits = made["features"], made.get("logits")
        found = self.head
        if logits is not None:
            found = fit_head(features, logits) if head else None
        return FitData(features, train.labels, found, logits, self._evaluate(train))

    @property
    def head(self) -> Head:
        """The network's last layer."""
        return Head(**self.variables.network["params"]["head"])

    def _evaluate(self, train: ImageSet) -> Evaluate:
        def program(function: Callable[[Inputs], Any], variables: Variables, batch: dict) -> Any:
            return function(make_inputs(self.forward, variables, batch["images"], INPUT_SCALE))

        @cache  # a second pass by the same function compiles nothing
        def mapped(function: Callable[[Inputs], Any]) -> MappedFunction:
            return self._mapped(partial(program, function))

        def evaluate(
            function: Callable[[Inputs], Any], rows: np.ndarray | None = None
        ) -> Iterator[Any]:
            run = mapped(function)
            images = train.images if rows is None else train.images.take(rows)
            starts = range(0, len(images), base.ROWS_AT_ONCE)
            for start in tqdm(starts, "fitting a detector", disable=len(starts) < 5):
                yield run({"images": images.take(slice(start, start + base.ROWS_AT_ONCE))})

        return evaluate
