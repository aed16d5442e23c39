"""Training a classifier, and reading what a training has left."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import optax

from dream_jax.data.image_sets import ImageSet
from dream_jax.detector.batches import make_batches
from dream_jax.detector.classifier import Variables
from dream_jax.detector.extra_images import ExtraImages
from dream_jax.detector.last_layer import feature_dimension
from dream_jax.detector.methods import Training
from dream_jax.detector.methods.base import Own, Shape, network_of
from dream_jax.detector.objective import make_objective
from dream_jax.detector.options import Options
from dream_jax.detector.recipe import Recipe
from dream_jax.errors import UserError
from dream_jax.files import write_json
from dream_jax.keys import stage_key
from dream_jax.models.resnet import ResNet, build_model, init_model
from dream_jax.programs import shared
from dream_jax.settings import ModelSettings, OptimizerSettings
from dream_jax.training import hosts
from dream_jax.training.checkpoints import Checkpoints, digest
from dream_jax.training.curves import Accuracy, Curves, Predict
from dream_jax.training.loop import TrainState, create_state, fit
from dream_jax.training.optimizers import network_rate, of_network


def load_network(
    model: ModelSettings,
    options: Options,
    image_shape: tuple[int, int, int],
    classes: int,
    folder: Path,
) -> dict:
    """Loads the network that a training left in `folder` (an Orbax `checkpoints/`).

    Args:
      options: all settings of the training.

    Raises:
      UserError: there is none, or it is not the network of these settings; names the first leaf
        that differs.
    """
    if not folder.is_dir():
        raise UserError(
            f"config.init_from: there is no folder {str(folder)!r}; allowed: empty, "
            f"cross_entropy, or a folder classifier/<training>/checkpoints of another run"
        )
    network = build_model(model, classes, feature_dimension(options))
    like = jax.eval_shape(lambda key: init_model(network, key, image_shape), jax.random.key(0))
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore_network(like)


def initial_state(
    model: ModelSettings,
    training: Training,
    options: Options,
    recipe: Recipe,
    train: ImageSet,
) -> tuple[ResNet, TrainState, optax.GradientTransformation]:
    """Returns the network, a fresh state, and the optimizer.

    With one seed, all trainings start from the same weights.
    """
    image_shape, classes = train.images.shape[1:], len(train.class_names)
    steps = recipe.steps(len(train))
    network = build_model(model, classes, feature_dimension(options))
    key = stage_key(recipe.seed, "classifier")
    variables = init_model(network, key, image_shape)
    shape = Shape(image_shape, variables["params"]["head"]["kernel"].shape[0], classes)
    own = training.init(jax.random.fold_in(key, 1), shape, options)
    variables["params"] = {"network": variables["params"], "method": own.params}
    if own.state:
        variables["method"] = own.state
    optimizer = _optimizer(training, options, recipe.optimizer, steps)
    return network, create_state(variables, optimizer, key), optimizer


@shared
def _optimizer(
    training: Training, options: Options, settings: OptimizerSettings, steps: int
) -> optax.GradientTransformation:
    network = of_network(settings, steps)
    if training.optimizer is None:
        return network
    return training.optimizer(network, settings, steps, options)


_objective = shared(make_objective)  # with its program, by the seeds of a training


def train_classifier(
    model: ModelSettings,
    training: Training,
    options: Options,
    recipe: Recipe,
    sets: tuple[ImageSet, ImageSet],
    extra: ExtraImages | None,
    folder: Path,
    start: dict | None = None,
) -> None:
    """Trains a classifier, which stays in `folder` (see `load_variables`).

    The folder also gets `weights.json` with a digest of what was learned, which checkpoints do not
    give: their files have times in them.

    Args:
      options: all settings of the training.
      sets: ID training images, and the test images on which the accuracy is measured meanwhile.
      extra: what batches hold in addition to the ID images, or None.
      folder: for the curves and `checkpoints/`; an interrupted training continues from there.
      start: variables of a network to start from, see `load_network`; fresh ones if None.

    Raises:
      UserError: the loss is not finite, or the accuracy on ID images has collapsed.
    """
    train, test = sets
    network, state, optimizer = initial_state(model, training, options, recipe, train)
    if start is not None:
        start = dict(start)
        params = state.params | {"network": start.pop("params")}
        state = state.replace(params=params, model_state=state.model_state | start)
    steps = recipe.steps(len(train))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = fit(
            _objective(network, training, options, replace(recipe, seed=0), steps),
            state,
            make_batches(recipe, train, extra),
            optimizer,
            steps=steps,
            checkpoints=checkpoints,
            save_every=recipe.save_every,
            progress=f"classifier {training.name}",
            watch=_watch(training, recipe, steps) if recipe.watched else None,
            curves=_curves(network, training, options, recipe, (len(train), test), folder),
        )
    if hosts.is_main():
        learned = digest({"params": state.params, "model_state": state.model_state})
        write_json(folder / "weights.json", {"sha256": learned})


def _curves(
    network: ResNet,
    training: Training,
    options: Options,
    recipe: Recipe,
    sets: tuple[int, ImageSet],
    folder: Path,
) -> Curves:
    """Returns where the metrics go; `sets` are the number of training images and the test set."""
    count, test = sets
    predict = _predict(network, training, options)
    epoch = count / recipe.batch_size
    every = round(recipe.test_every * epoch)
    return Curves(
        folder,
        learning_rate=network_rate(recipe.optimizer, recipe.steps(count)),
        epoch=epoch,
        accuracy=Accuracy(predict, test.images, test.labels, recipe.eval_batch_size, every),
        project=recipe.wandb,
    )


@shared
def _predict(network: ResNet, training: Training, options: Options) -> Predict:
    """Returns the logits of a network in training."""

    def predict(params: Any, model_state: Any, images: jax.Array) -> jax.Array:
        own = Own(params["method"], model_state.get("method", {}))
        statistics = {name: v for name, v in model_state.items() if name != "method"}
        trained = network_of(network, {"params": params["network"], **statistics})
        return training.evaluate(trained, own, images, options).logits

    return predict


def _watch(training: Training, recipe: Recipe, steps: int) -> Any:
    """Returns a function of the step and the metrics that stops a training that collapses."""

    def watch(step: int, means: dict[str, float]) -> None:
        if step > steps * recipe.collapse_after and means["accuracy"] < recipe.collapse_below:
            raise UserError(
                f"{training.name}: ID accuracy has collapsed to {means['accuracy']:.3f} at step "
                f"{step} of {steps}, expected at least classifier.collapse_below = "
                f"{recipe.collapse_below}; outliers that still look like their class do this: "
                f"lower method_options.{training.name}.weight or classifier.filter_confidence"
            )

    return watch


def load_variables(
    model: ModelSettings,
    training: Training,
    options: Options,
    recipe: Recipe,
    train: ImageSet,
    folder: Path,
) -> Variables:
    """Loads a classifier that was trained to the end.

    Raises:
      UserError: its checkpoint is missing, or cannot be read.
    """
    _, state, _ = initial_state(model, training, options, recipe, train)
    steps = recipe.steps(len(train))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.restore(state)
    found = -1 if state is None else int(state.step)
    if found != steps:
        raise UserError(
            f"{folder / 'checkpoints'}: the newest whole checkpoint is of step {max(found, 0)}, "
            f"the trained classifier's is {steps}; go on with --stages=train"
        )
    network = dict(state.model_state)
    own = Own(state.params["method"], network.pop("method", {}))
    return Variables({"params": state.params["network"], **network}, own)
