"""④ Training a classifier by one of the methods, and its outputs on images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dream_jax.data.augment import augment, degrade, zoom
from dream_jax.data.images import for_training
from dream_jax.data.registry import ImageSet
from dream_jax.detector.inputs import Head
from dream_jax.detector.methods.base import NOTHING, Method, Own, Rows, Shape
from dream_jax.errors import UserError
from dream_jax.keys import stage_key
from dream_jax.models.resnet import build_model, init_model
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.devices import MappedFunction
from dream_jax.training.gradients import split_gradients
from dream_jax.training.loop import Batches, Objective, Stacked, create_state, epoch_index, fit
from dream_jax.training.optimizers import sgd


@dataclass(frozen=True, eq=False)
class ExtraImages:
    """What the batches of a method hold beside real ID images; images (n, H, W, C) in [0, 1].

    Arrays, or all `StreamedImages` where the ID images are.

    Attributes:
      images: outliers, or ID images if there are `labels`: one array or more, taken as one.
      labels: (n,) of `images`, or None.
      round_trips: the ID training images through the autoencoder, row by row, or None.
      by_name: images sampled by the classes' plain names, with `by_name_labels`, or None.
    """

    images: Sequence[Any]
    labels: np.ndarray | None = None
    round_trips: Any = None
    by_name: Any = None
    by_name_labels: np.ndarray | None = None


class Classifier(NamedTuple):
    """A classifier's variables: the network's {"params", "batch_stats"}, and its method's own."""

    network: dict
    own: Own = NOTHING

    @property
    def head(self) -> Head:
        return Head(**self.network["params"]["head"])


def make_objective(
    model, method: Method, options: Mapping[str, Any], config: ConfigDict, steps: int
) -> Objective:
    """One forward pass over ID images and outliers together, so that batch norm sees both.

    Args:
      options: all settings of the method.
      steps: of the whole training.
    """
    settings = config.classifier

    def prepare(key, image, is_id):
        affine_key, zoom_key, degrade_key = jax.random.split(key, 3)
        image = augment(settings.augment, affine_key, image)
        if "zoom" in options:
            image = jnp.where(is_id > 0, image, zoom(zoom_key, image, options["zoom"]))
        return degrade(degrade_key, image, settings.degrade)

    def objective(params, model_state, batch, keys):
        own = Own(params["method"], model_state.get("method", {}))
        labels, is_id, mask = batch["labels"], batch["is_id"], batch["mask"]
        images = jax.vmap(prepare)(keys, batch["images"], is_id)
        if method.generate is not None:
            made, state = method.generate(own, images, mask, keys, options)
            own = own._replace(state=state)
            images = jnp.concatenate([images, made])
            labels, is_id = (jnp.concatenate([a, jnp.zeros_like(a)]) for a in (labels, is_id))
            mask, keys = (jnp.concatenate([a, a]) for a in (mask, keys))
        statistics = {name: v for name, v in model_state.items() if name != "method"}

        def apply(params, images):
            variables = {"params": params, **statistics}
            return model.apply(variables, images, train=True, mask=mask, mutable=["batch_stats"])

        held = None
        if method.generate is None:
            (logits, features), network = apply(params["network"], images)
        else:
            # Batch norm would carry the cross-entropy of ID images to the images that were made.
            out, ((held, _), _) = split_gradients(apply, params["network"], images)
            (logits, features), network = out
        rows = Rows(
            *(images, logits, features, labels, is_id, mask, keys, batch["key"]),
            progress=batch["step"] / steps,
            head=Head(**params["network"]["head"]),
            held=held,
        )
        terms, state = method.terms(own, rows, options)
        return terms, network | ({"method": state} if state else {})

    return objective


def make_batches(config: ConfigDict, train: ImageSet, extra: ExtraImages | None) -> Batches:
    """The batch of a step: ID images, and behind them the extra ones if the method uses any.

    Of the ID rows a share `by_name_share` was sampled by name, and of the rest a share
    `round_trip_share` is shown after a round trip: the classifier meets the decoder's traces on
    ID images too, and cannot take them for the mark of an outlier.
    """
    settings, seed = config.classifier, config.seed
    size, workers = settings.batch_size, config.data.workers
    real_count = len(train)
    if extra is None:
        table = _table(config, (train.images, train.labels, 1))
        return Batches(table, lambda step: epoch_index(real_count, step, size, seed), workers)

    by_name = round(size * settings.by_name_share) if extra.by_name is not None else 0
    parts = [(train.images, train.labels, 1)]
    if extra.round_trips is not None:
        parts.append((extra.round_trips, train.labels, 1))
    if by_name:
        parts.append((extra.by_name, extra.by_name_labels, 1))
    first_extra = sum(len(images) for images, _, _ in parts)
    extra_count, is_id = sum(map(len, extra.images)), int(extra.labels is not None)
    labels = extra.labels if is_id else np.zeros(extra_count, np.int32)
    starts = np.cumsum([0, *map(len, extra.images)])
    for images, start in zip(extra.images, starts, strict=False):
        parts.append((images, labels[start : start + len(images)], is_id))
    # `rows` goes to the workers, and must not take the images along.
    round_trips = extra.round_trips is not None
    by_name_count = len(extra.by_name) if by_name else 0

    def rows(step: int) -> np.ndarray:
        real = epoch_index(real_count, step, size - by_name, seed)
        if round_trips:
            rng = np.random.default_rng((seed, 1, step))
            real = real + real_count * (rng.random(len(real)) < settings.round_trip_share)
        chosen = [real]
        if by_name:
            index = epoch_index(by_name_count, step, by_name, seed + 1)
            chosen.append(first_extra - by_name_count + index)
        index = epoch_index(extra_count, step, settings.outlier_batch_size, seed + 2)
        chosen.append(first_extra + index)
        return np.concatenate(chosen)

    return Batches(_table(config, *parts), rows, workers)


def _table(config: ConfigDict, *parts: tuple[Any, np.ndarray, int]) -> dict[str, Any]:
    """Images, their labels and whether they are ID, of several sources one behind the other."""
    images, labels, is_id = zip(*parts, strict=True)
    images = [
        for_training(part, config.classifier.augment, config.seed + index)
        for index, part in enumerate(images)
    ]
    return {
        "images": Stacked(images),
        "labels": np.concatenate(labels),
        "is_id": np.repeat(np.float32(is_id), [len(i) for i in images]),
    }


def fine_tuned(config: ConfigDict, method: Method) -> ConfigDict:
    """The configuration of one method's training.

    Where `init_from` is set, the methods that use imagined outliers start from a trained network,
    and `fine_tune` holds their epochs, batch sizes and learning rate in place of `classifier`'s.
    """
    if not (config.init_from and method.extra == "outliers"):
        return config
    config = config.copy_and_resolve_references()
    own = config.fine_tune
    config.classifier.update(
        epochs=own.epochs, batch_size=own.batch_size, outlier_batch_size=own.outlier_batch_size
    )
    config.classifier.optimizer.learning_rate = own.learning_rate
    return config


def load_network(config: ConfigDict, image_shape: tuple[int, ...], classes: int, folder: Path):
    """Variables of the network that a training left in `folder` (an Orbax `checkpoints/`).

    Raises:
      UserError: there is none, or it is not the network of this configuration; names the first
        leaf that differs.
    """
    if not folder.is_dir():
        raise UserError(
            f"config.init_from: there is no folder {str(folder)!r}; allowed: empty, a method of "
            f"this run, or a folder classifier/<method>/checkpoints of another run"
        )
    model = build_model(config.model, classes)
    like = jax.eval_shape(lambda key: init_model(model, key, image_shape), jax.random.key(0))
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore_network(like)


def _initial_state(
    config: ConfigDict,
    method: Method,
    options: Mapping[str, Any],
    image_shape: tuple[int, ...],
    classes: int,
    steps: int,
):
    """(network, fresh state, optimiser); all methods start from the same weights."""
    model = build_model(config.model, classes)
    key = stage_key(config.seed, "classifier")
    variables = init_model(model, key, image_shape)
    shape = Shape(image_shape, variables["params"]["head"]["kernel"].shape[0], classes)
    own = method.init(jax.random.fold_in(key, 1), shape, options)
    variables["params"] = {"network": variables["params"], "method": own.params}
    if own.state:
        variables["method"] = own.state
    settings = config.classifier.optimizer
    optimizer = sgd(settings, steps)
    if method.optimizer is not None:
        optimizer = method.optimizer(optimizer, settings, steps, options)
    return model, create_state(variables, optimizer, key), optimizer


def training_steps(config: ConfigDict, images: int) -> int:
    """Steps of a classifier's training on so many ID images; the same for all methods."""
    return config.classifier.epochs * -(-images // config.classifier.batch_size)


def train_classifier(
    config: ConfigDict,
    method: Method,
    options: Mapping[str, Any],
    train: ImageSet,
    extra: ExtraImages | None,
    folder: Path,
    network: dict | None = None,
) -> None:
    """Trains a classifier, which stays in `folder` (see `load_classifier`).

    Args:
      config: of this method, see `fine_tuned`; `model`, `classifier` and `seed` are used.
      options: all settings of the method.
      extra: what the method's batches hold beside the ID images, or None.
      network: variables to start from, see `load_network`; fresh ones if None.
      folder: for `checkpoints/`; an interrupted training continues from there.

    Raises:
      UserError: the method cannot do with its settings and this data, the loss is not finite, or
        the accuracy on ID images has collapsed.
    """
    settings = config.classifier
    method.check(options, train.images.shape[1:], train.labels, settings.epochs)
    steps = training_steps(config, len(train))
    model, state, optimizer = _initial_state(
        config, method, options, train.images.shape[1:], len(train.class_names), steps
    )
    if network is not None:
        network = dict(network)
        params = state.params | {"network": network.pop("params")}
        state = state.replace(params=params, model_state=state.model_state | network)

    def watch(step: int, means: dict) -> None:
        if step > steps * settings.collapse_after and means["accuracy"] < settings.collapse_below:
            raise UserError(
                f"{method.name}: ID accuracy has collapsed to {means['accuracy']:.3f} at step "
                f"{step} of {steps}, expected at least classifier.collapse_below = "
                f"{settings.collapse_below}; outliers that still look like their class do this: "
                f"lower method_options.{method.name}.weight or classifier.filter_confidence"
            )

    with Checkpoints(folder / "checkpoints") as checkpoints:
        fit(
            make_objective(model, method, options, config, steps),
            state,
            make_batches(config, train, extra),
            optimizer,
            steps=steps,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress=f"classifier {method.name}",
            watch=watch if method.extra in ("outliers", "auxiliary") else None,
        )


def load_classifier(
    config: ConfigDict,
    method: Method,
    options: Mapping[str, Any],
    image_shape: tuple[int, ...],
    classes: int,
    folder: Path,
    steps: int,
) -> Classifier:
    """A classifier that was trained for `steps`.

    Raises:
      UserError: its checkpoint is missing, or cannot be read.
    """
    _, state, _ = _initial_state(config, method, options, image_shape, classes, steps)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.restore(state)
    found = -1 if state is None else int(state.step)
    if found != steps:
        raise UserError(
            f"{folder / 'checkpoints'}: the newest checkpoint is of step {max(found, 0)}, the "
            f"trained classifier's is {steps}; redo it with --stages=train --overwrite"
        )
    network = dict(state.model_state)
    own = Own(state.params["method"], network.pop("method", {}))
    return Classifier({"params": state.params["network"], **network}, own)


def forward_of(config: ConfigDict, method: Method, classes: int) -> Callable:
    """(`Classifier`, images (n, H, W, C)) → (logits, features), in evaluation mode."""
    model = build_model(config.model, classes)

    def forward(classifier: Classifier, images: jax.Array):
        return method.outputs(classifier.own, *model.apply(classifier.network, images))

    return forward


def logits_of(
    config: ConfigDict, method: Method, classifier: Classifier, classes: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A classifier in evaluation mode: images (n, H, W, C) → logits (n, classes) float32."""
    forward = forward_of(config, method, classes)

    def logits(classifier, batch):
        return forward(classifier, batch["images"])[0]

    mapped = MappedFunction(logits, classifier, config.eval_batch_size)
    return lambda images: mapped({"images": images})
