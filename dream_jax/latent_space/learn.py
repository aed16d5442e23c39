"""① Learning the text-conditioned latent space and extracting its features."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dream_jax.data.augment import augment
from dream_jax.data.images import for_training
from dream_jax.data.registry import ImageSet
from dream_jax.keys import stage_key
from dream_jax.models.resnet import build_model, init_model
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.devices import MappedFunction
from dream_jax.training.loop import Batches, Objective, Term, create_state, epoch_index, fit
from dream_jax.training.optimizers import sgd


def cosine_logits(features: jax.Array, anchors: jax.Array, temperature: float) -> jax.Array:
    """cos(h(x), T(y)) / t: (n, d) features and (classes, d) anchors → (n, classes) (eq. 2)."""
    unit = lambda a: a / jnp.maximum(jnp.linalg.norm(a, axis=-1, keepdims=True), 1e-12)  # noqa: E731
    return unit(features) @ unit(anchors).T / temperature


def make_objective(model, anchors: np.ndarray, config: ConfigDict) -> Objective:
    """Cross-entropy over the cosine logits, with the training accuracy beside it."""

    def objective(params, model_state, batch, keys):
        images = jax.vmap(partial(augment, config.augment))(keys, batch["images"])
        (features, _), model_state = model.apply(
            {"params": params, **model_state},
            images,
            train=True,
            mask=batch["mask"],
            mutable=["batch_stats"],
        )
        logits = cosine_logits(features, anchors, config.temperature)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        correct = jnp.argmax(logits, -1) == batch["labels"]
        return {
            "ce": Term(loss, batch["mask"]),
            "accuracy": Term(correct, batch["mask"], 0.0),
        }, model_state

    return objective


def learn_latent_space(
    config: ConfigDict, train: ImageSet, anchors: np.ndarray, folder: Path
) -> dict:
    """Trains h and returns its variables {"params", "batch_stats"} (paper, section 3.1).

    Args:
      config: the whole configuration; `model`, `latent_space` and `seed` are used.
      train: ID images with labels.
      anchors: (classes, d).
      folder: for `checkpoints/`; an interrupted training continues from there.
    """
    settings = config.latent_space
    model = build_model(config.model, anchors.shape[1])
    key = stage_key(config.seed, "latent_space")
    steps = settings.epochs * -(-len(train) // settings.batch_size)
    optimizer = sgd(settings.optimizer, steps)
    state = create_state(init_model(model, key, train.images.shape[1:]), optimizer, key)

    images, count = for_training(train.images, settings.augment, config.seed), len(train)
    batches = Batches(
        {"images": images, "labels": train.labels},
        lambda step: epoch_index(count, step, settings.batch_size, config.seed),
        config.data.workers,
    )

    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = fit(
            make_objective(model, jnp.asarray(anchors), settings),
            state,
            batches,
            optimizer,
            steps=steps,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress="latent space",
        )
    return {"params": state.params, **state.model_state}


def extract_features(config: ConfigDict, variables: dict, images: Any, width: int) -> np.ndarray:
    """Features h(x) in evaluation mode: (n, H, W, C) images → (n, width) float32.

    images: an array, or `StreamedImages`.
    """
    model = build_model(config.model, width)

    def forward(variables, batch):
        return model.apply(variables, batch["images"])[0]

    extract = MappedFunction(forward, variables, config.eval_batch_size)
    return extract({"images": images}, "features")


def select_per_class(labels: np.ndarray, count: int, classes: int, seed: int) -> np.ndarray:
    """Rows of up to `count` images of each class, drawn without replacement: sorted indices."""
    chosen = []
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        rng = np.random.default_rng((seed, label))
        chosen.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(chosen))
