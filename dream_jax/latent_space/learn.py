"""Learning the text-conditioned latent space: training h against the anchors."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from dream_jax.data.augment import augment
from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import for_training
from dream_jax.keys import stage_key
from dream_jax.models.resnet import ResNet, build_model, init_model
from dream_jax.settings import LatentSpaceSettings, Settings
from dream_jax.training.batches import Batches, epoch_index
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.curves import Accuracy, Curves
from dream_jax.training.finite import check_arrays
from dream_jax.training.loop import Objective, Term, create_state, fit
from dream_jax.training.optimizers import network_rate, of_network
from dream_jax.vectors import cosine_logits, unit

CLASSES = "classes"  # the parameters of the layer that reads features without anchors
# (parameters, features h(x)) → logits.
Logits = Callable[[Mapping[str, Any], Float[Array, "n d"]], Float[Array, "n classes"]]


def make_logits(own: LatentSpaceSettings, anchors: Float[Array, "classes d"]) -> Logits:
    """Returns how features are read: by their cosines to the anchors over t (Dream-OOD, eq. 2).

    With `own.loss` = "cross_entropy" a linear layer reads them, and nothing aligns them with the
    anchors: they are those of a plain classifier, which the paper's space is compared with.
    """
    centres = unit(anchors)
    if own.loss == "alignment":
        return lambda params, features: cosine_logits(unit(features), centres, own.temperature)
    return lambda params, features: (
        jnp.matmul(features, params[CLASSES]["kernel"], precision="highest")
        + params[CLASSES]["bias"]
    )


def init_layer(key: Key[Array, ""], width: int, classes: int) -> dict[str, Array]:
    """Draws the linear layer from features to classes, as `flax.linen.Dense` does."""
    kernel = jax.nn.initializers.lecun_normal()(key, (width, classes))
    return {"kernel": kernel, "bias": jnp.zeros(classes)}


def make_objective(model: ResNet, read: Logits, augmentation: str) -> Objective:
    """Makes the training's objective: cross-entropy over the logits.

    Args:
      model: the network h.
      read: gives the logits of features; see `make_logits`.
      augmentation: one of `augment.AUGMENTATIONS`.

    Returns:
      An objective with the loss, and the accuracy as a metric.
    """

    def objective(params, model_state, batch, keys):
        images = jax.vmap(partial(augment, augmentation))(keys, batch["images"])
        (features, _), model_state = model.apply(
            {"params": params, **model_state},
            images,
            train=True,
            mask=batch["mask"],
            mutable=["batch_stats"],
        )
        logits = read(params, features)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        correct = jnp.argmax(logits, -1) == batch["labels"]
        return {
            "ce": Term(loss, batch["mask"]),
            "accuracy": Term(correct, batch["mask"], 0.0),
        }, model_state

    return objective


def learn_latent_space(
    settings: Settings,
    train: ImageSet,
    test: ImageSet,
    anchors: Float[np.ndarray, "classes d"],
    folder: Path,
) -> dict:
    """Trains the network h so that the features of images align with their anchors.

    Dream-OOD, section 3.1. With another loss they do not, see `make_logits`.

    Args:
      settings: of which `seed`, `model`, `latent_space`, `save_every`, `test_every`,
        `eval_batch_size`, `wandb` and `data.workers` are read.
      train: ID images with labels.
      test: ID images on which the accuracy is measured in the course of the training.
      anchors: T(y).
      folder: keeps `checkpoints/`, from which an interrupted training continues, and the curves.

    Returns:
      The variables of h, {"params", "batch_stats"}.

    Raises:
      UserError: an anchor, the loss or a parameter is not finite.
    """
    of_classes = dict(zip(train.class_names, anchors, strict=True))
    advice = "give these classes other words in config.data.class_tokens, or another generator"
    check_arrays(of_classes, "token embeddings of the class names", advice)
    own, seed = settings.latent_space, settings.seed
    model = build_model(settings.model, anchors.shape[1])
    key = stage_key(seed, "latent_space")
    count, batch_size = len(train), own.batch_size
    steps = own.epochs * -(-count // batch_size)
    optimizer = of_network(own.optimizer, steps)
    variables = init_model(model, key, train.images.shape[1:])
    if own.loss == "cross_entropy":
        layer = init_layer(stage_key(seed, "latent_space", CLASSES), anchors.shape[1], len(anchors))
        variables = variables | {"params": variables["params"] | {CLASSES: layer}}
    state, read = create_state(variables, optimizer, key), make_logits(own, jnp.asarray(anchors))
    batches = Batches(
        {"images": for_training(train.images, own.augment, seed), "labels": train.labels},
        lambda step: epoch_index(count, step, batch_size, seed),
        settings.data.workers,
    )
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = fit(
            make_objective(model, read, own.augment),
            state,
            batches,
            optimizer,
            steps=steps,
            checkpoints=checkpoints,
            save_every=settings.save_every,
            progress="latent space",
            curves=_curves(settings, model, read, (len(train), test), folder),
        )
    params = {name: value for name, value in state.params.items() if name != CLASSES}
    return {"params": params, **state.model_state}


def _curves(
    settings: Settings,
    model: ResNet,
    read: Logits,
    sets: tuple[int, ImageSet],
    folder: Path,
) -> Curves:
    """Returns where the metrics go; `sets` are the number of training images and the test set."""
    own, (count, test) = settings.latent_space, sets

    def predict(params: Any, model_state: Any, images: Array) -> Array:
        features = model.apply({"params": params, **model_state}, images)[0]
        return read(params, features)

    epoch = count / own.batch_size
    every = round(settings.test_every * epoch)
    return Curves(
        folder,
        learning_rate=network_rate(own.optimizer, own.epochs * -(-count // own.batch_size)),
        epoch=epoch,
        accuracy=Accuracy(predict, test.images, test.labels, settings.eval_batch_size, every),
        project=settings.wandb,
    )
