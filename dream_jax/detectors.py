"""Post-hoc detectors for the features and logits of any network, whatever made them.

Each detector of the project that needs no more than these is a function here, by its name in
configurations; its arguments are its settings, with the paper's defaults:

    from dream_jax import detectors, ood_metrics

    knn = detectors.knn(k=50).fit(features, labels)
    id_scores, ood_scores = knn.score(features=test), knn.score(features=other)
    print(ood_metrics(id_scores, ood_scores))

Arrays are whatever NumPy converts, such as PyTorch tensors on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from inspect import Parameter, Signature
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from dream_jax.detector import scoring
from dream_jax.detector.detectors import DETECTORS, Detector, FitData, base
from dream_jax.detector.detectors.base import nothing_to_fit
from dream_jax.detector.inputs import Head, Inputs, visible
from dream_jax.detector.options import Options, resolve
from dream_jax.errors import UserError
from dream_jax.training.devices import MappedFunction
from dream_jax.training.finite import Origin, is_finite

ROWS_AT_ONCE = 1024
# What a detector may need that features, logits, layers and a head cannot give.
BEYOND = frozenset({"gradients", "rerun"})
LAYER = "layer "  # begins the names of layers among those of arrays
NAMES = tuple(name for name, one in DETECTORS.items() if not one.needs & BEYOND)


@dataclass(frozen=True, eq=False)
class PostHoc:
    """A detector with its settings; once fitted, it scores.

    Attributes:
      detector: its declaration.
      options: all its settings.
      head: the last layer of the network, where it was given.
      state: what was fitted; None before.
      widths: of the features, the logits and the layers' channels, once `fit` was given any.
    """

    detector: Detector
    options: Options
    head: Head | None = None
    state: Any = None
    widths: Mapping[str, int] = field(default_factory=dict)

    def fit(
        self,
        features: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        head: Any = None,
        logits: ArrayLike | None = None,
        layers: Mapping[str, ArrayLike] | None = None,
    ) -> PostHoc:
        """Returns the detector fitted to ID training data; this one stays as it is.

        Args:
          features: (n, d), of the layer before the last.
          labels: (n,) class numbers from 0.
          head: the last layer: (kernel (d, classes), bias (classes,)), or an object with a
            `weight` (classes, d) and a `bias`, such as PyTorch's `Linear`.
          logits: (n, classes); by default those that the head makes of the features.
          layers: activations of inner layers, (n, height, width, channels) by their names, from the
            first to the last.

        Raises:
          UserError: something is missing that the detector needs, shapes do not fit together, a
            number is not finite, or a setting does not fit the data.
        """
        name, needs = self.detector.name, self._needs
        layer, fits = _head(name, head), self.detector.fit is not nothing_to_fit
        given = {"features": features, "labels": labels, "head": head, "logits": logits}
        given["layers"] = layers
        if head is not None:
            given["logits"] = logits if logits is not None else head  # which makes them
        self._refuse_missing("fit", needs if fits else frozenset(), given)
        rows = {
            key: _matrix(f"{name}: fit", key, given)
            for key, given in (("features", features), ("logits", logits))
            if given is not None
        }
        maps = _maps(f"{name}: fit", layers if "layers" in needs else None)
        widths = {}
        if layer is not None:
            widths = dict(zip(("features", "logits"), layer.kernel.shape, strict=True))
        if not rows and not fits:
            return replace(self, head=layer, state={}, widths=widths)
        if not rows:
            raise UserError(f"{name}: fit needs the features or the logits of ID training images")
        # What a detector does not declare as needed it does not look at.
        x = rows.get("features", rows.get("logits"))
        assert x is not None
        _same_rows(f"{name}: fit", {"images": x} | maps)
        classes = _labels(name, labels, len(x))
        outputs = rows.get("logits")
        if layer is None and outputs is None:
            outputs = _one_hot(name, classes)
        try:
            known = layer if "features" in rows else None
            run = partial(self._evaluate, rows | maps, known)
            data = FitData(x, classes, known, outputs, run)
        except ValueError as error:
            raise UserError(f"{name}: {error}") from error
        self.detector.check(self.options, len(x))
        fitted = scoring.fit_detectors({name: (name, self.options)}, data)[name]
        widths |= {key: array.shape[-1] for key, array in (rows | maps).items()}
        return replace(self, head=layer, state=fitted.state, widths=widths)

    def score(
        self,
        features: ArrayLike | None = None,
        logits: ArrayLike | None = None,
        layers: Mapping[str, ArrayLike] | None = None,
    ) -> Float[np.ndarray, " n"]:
        """Returns a score for each image, higher is more ID.

        Args:
          features: (n, d), of the layer before the last.
          logits: (n, classes); by default those that the head, if `fit` was given one, makes of the
            features.
          layers: activations of inner layers, by the names and in the order of `fit`.

        Raises:
          UserError: the detector is not fitted, something is missing that it needs, shapes are not
            those of the fitting data, or a number is not finite.
        """
        needs = self._needs - {"labels", "head"}
        if self.state is None and self.detector.fit is not nothing_to_fit:
            raise UserError(f"{self.detector.name}: is not fitted; call fit first")
        if "certainty" in needs or "numerators" in needs:
            needs |= {"logits"}
        place = f"{self.detector.name}: score"
        arrays = {}
        if "features" in needs or (logits is None and self.head is not None):
            self._refuse_missing("score", frozenset({"features"}), {"features": features})
            arrays["features"] = _matrix(place, "features", features)
        if "logits" in needs and (logits is not None or self.head is None):
            self._refuse_missing("score", frozenset({"logits"}), {"logits": logits})
            arrays["logits"] = _matrix(place, "logits", logits)
        if "layers" in needs:
            self._refuse_missing("score", frozenset({"layers"}), {"layers": layers})
            arrays |= _maps(place, layers)
            known, own = (
                ", ".join(repr(key.split(" ", 2)[2]) for key in of if key.startswith(LAYER))
                for of in (self.widths, arrays)
            )
            if known and known != own:
                raise UserError(
                    f"{place}: layers are {own}; those that the detector was fitted to are {known}"
                )
        _same_rows(place, arrays)
        for key, array in arrays.items():  # one column would be broadcast
            if array.shape[-1] != self.widths.get(key, array.shape[-1]):
                raise UserError(
                    f"{place}: {_shown(key)} have {array.shape[-1]} columns; those that the "
                    f"detector was fitted to have {self.widths[key]}"
                )
        return self._program(arrays)["score"]

    @property
    def _needs(self) -> frozenset[str]:
        """What it needs with its settings.

        Raises:
          UserError: it needs the network itself.
        """
        needs = self.detector.needed(self.options)
        if needs & BEYOND:
            raise UserError(
                f"{self.detector.name}: with the settings {self.options} it needs the network "
                f"itself, not its outputs alone; use it in a run, or change them"
            )
        return needs

    @cached_property
    def _program(self) -> MappedFunction:
        detector, options = self.detector, self.options
        state = {} if self.state is None else self.state

        def program(variables: Any, batch: dict) -> dict[str, Any]:
            head, state = variables
            inputs = visible(_inputs(batch, head), detector.needed(options))
            return {"score": detector.score(state, inputs, options)}

        origin = Origin(f"detector {detector.name}")
        return MappedFunction(program, (self.head, state), ROWS_AT_ONCE, origin)

    def _evaluate(
        self,
        arrays: Mapping[str, np.ndarray],
        head: Head | None,
        function: Callable[[Inputs], Any],
        rows: np.ndarray | None = None,
    ) -> Iterator[Any]:
        """Runs a function over given arrays; see `base.Evaluate`."""
        origin = Origin(f"detector {self.detector.name}")
        run = MappedFunction(
            lambda h, batch: function(_inputs(batch, h)), head, ROWS_AT_ONCE, origin
        )
        count = len(next(iter(arrays.values())) if rows is None else rows)
        for start in range(0, count, base.ROWS_AT_ONCE):
            part: Any = slice(start, start + base.ROWS_AT_ONCE)
            part = part if rows is None else rows[part]
            yield run({key: array[part] for key, array in arrays.items()})

    def _refuse_missing(self, call: str, needs: frozenset[str], given: dict[str, Any]) -> None:
        missing = [key for key in given if key in needs and given[key] is None]
        if missing:
            raise UserError(f"{self.detector.name}: {call} needs {' and '.join(missing)}")


def fit_head(features: ArrayLike, logits: ArrayLike) -> Head:
    """Returns the linear layer whose logits of (n, d) features are nearest to (n, classes) given.

    By least squares: for detectors that need a head, where the network's is no linear layer or is
    not at hand.

    Raises:
      UserError: the arrays are not matrices of as many finite rows.
    """
    x, outputs = _matrix("fit_head", "features", features), _matrix("fit_head", "logits", logits)
    if len(x) != len(outputs):
        raise UserError(f"fit_head got {len(x)} features and {len(outputs)} logits")
    return scoring.fit_head(x, outputs)


def _inputs(batch: Mapping[str, Any], head: Head | None) -> Inputs:
    """Returns what a detector sees of a batch of arrays; traced."""
    import jax

    x, logits = batch.get("features"), batch.get("logits")
    if logits is None and head is not None and x is not None:
        logits = head(x)
    energy = None if logits is None else jax.nn.logsumexp(logits, axis=-1)
    layers = {key.removeprefix(LAYER): a for key, a in batch.items() if key.startswith(LAYER)}
    layers = {name.partition(" ")[2]: layers[name] for name in sorted(layers)}
    return Inputs(logits, x, logits, energy, None, None, layers=layers)


def _maps(place: str, given: Mapping[str, ArrayLike] | None) -> dict[str, np.ndarray]:
    """Returns the activations of layers; their names begin so that they keep their order."""
    if given is not None and not isinstance(given, Mapping):
        raise UserError(
            f"{place}: layers are a {type(given).__name__}; they must be activations by names"
        )
    found = {}
    for index, (name, values) in enumerate((given or {}).items()):
        array = _numbers(place, f"activations of layer {name!r}", values)
        if array.ndim != 4 or not array.size:
            raise UserError(
                f"{place}: activations of layer {name!r} have the shape {array.shape}; it must be "
                f"(n, height, width, channels)"
            )
        found[f"{LAYER}{index:04} {name}"] = array
    if given is not None and not found:
        raise UserError(f"{place}: layers are empty; they must have activations by names")
    return found


def _shown(key: str) -> str:
    """Returns how messages call an array."""
    if not key.startswith(LAYER):
        return key
    return f"activations of layer {key.removeprefix(LAYER).partition(' ')[2]!r}"


def _same_rows(place: str, arrays: Mapping[str, np.ndarray]) -> None:
    if len({len(array) for array in arrays.values()}) > 1:
        found = ", ".join(f"{len(array)} {_shown(key)}" for key, array in arrays.items())
        raise UserError(f"{place} got {found}; they must be of the same images")


def _matrix(place: str, key: str, given: Any) -> Float[np.ndarray, "n columns"]:
    """Returns a matrix of the user's in float32."""
    array = _numbers(place, key, given)
    if array.ndim != 2 or not array.size:
        raise UserError(f"{place}: {key} have the shape {array.shape}; it must be (n, columns)")
    return array


def _numbers(place: str, key: str, given: Any) -> Float[np.ndarray, "..."]:
    """Returns an array of the user's in float32, all finite."""
    try:
        array = np.asarray(given)
        if not np.iscomplexobj(array):
            array = array.astype(np.float32, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{place}: {key} cannot be made a NumPy array ({error})") from error
    if np.iscomplexobj(array):
        raise UserError(f"{place}: {key} are {array.dtype}; they must be real numbers")
    if not is_finite(array):
        raise UserError(f"{place}: {key} have numbers that are NaN or infinite")
    return array


def _labels(name: str, given: Any, count: int) -> Int[np.ndarray, " n"]:
    if given is None:
        return np.zeros(count, np.int32)
    labels = np.asarray(given)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{name}: labels are {labels.dtype} of the shape {labels.shape}; they must be whole "
            f"numbers of the shape ({count},), as there are images"
        )
    return labels


def _head(name: str, given: Any) -> Head | None:
    """Returns the last layer, given as (kernel, bias) or with `weight` and `bias`."""
    if given is None:
        return None
    other = hasattr(given, "weight")
    if not other and not (isinstance(given, list | tuple) and len(given) == 2):
        raise UserError(
            f"{name}: the head is a {type(given).__name__}; it must be (kernel, bias), or an "
            f"object with a `weight` (classes, d) and a `bias`"
        )
    leaves: Any = (given.weight, getattr(given, "bias", None)) if other else given
    weights, bias = (leaf.detach() if hasattr(leaf, "detach") else leaf for leaf in leaves)
    kernel = _numbers(name, "the head's weights", weights)
    kernel = kernel.T if other else kernel
    bias = np.zeros(kernel.shape[1:]) if bias is None else bias
    bias = _numbers(name, "the head's biases", bias)
    if kernel.ndim != 2 or not kernel.size or bias.shape != kernel.shape[1:]:
        raise UserError(
            f"{name}: the head has a kernel {kernel.shape} and a bias {bias.shape}; they must be "
            f"(d, classes) and (classes,)"
        )
    return Head(kernel, bias)


def _one_hot(name: str, labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n classes"]:
    """Returns logits that stand for labels, where a detector needs no others."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(labels):
        raise UserError(
            f"{name}: labels go from {low} to {high}; they must be class numbers from 0, and below "
            f"the number of images, {len(labels)}"
        )
    return np.eye(high + 1, dtype=np.float32)[labels]


def _maker(detector: Detector) -> Callable[..., PostHoc]:
    """Returns the function that makes a detector from its settings."""

    def make(**settings: Any) -> PostHoc:
        options = resolve(f"detector {detector.name}", detector.options, settings)
        return PostHoc(detector, options)

    make.__name__ = make.__qualname__ = detector.name
    shown = ", ".join(f"{key}={option.default}" for key, option in detector.options.items())
    needed = ", ".join(sorted(detector.needed({})))
    make.__doc__ = (
        f"{detector.title}; needs {needed}. Settings: {shown or 'none'}.\n\n{detector.paper}"
    )
    make.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(key, Parameter.KEYWORD_ONLY, default=option.default)
            for key, option in detector.options.items()
        ]
    )
    return make


_MAKERS = {name: _maker(DETECTORS[name]) for name in NAMES}
__all__ = [*NAMES, "NAMES", "PostHoc", "fit_head"]


def __getattr__(name: str) -> Callable[..., PostHoc]:
    if name in _MAKERS:
        return _MAKERS[name]
    if name in DETECTORS:
        raise AttributeError(
            f"detector {name} needs the network itself, not its features and logits alone; use it "
            f"in a run. Here are: {', '.join(NAMES)}"
        )
    raise AttributeError(f"there is no detector {name!r}; there are {', '.join(NAMES)}")


def __dir__() -> list[str]:
    return sorted(__all__)
