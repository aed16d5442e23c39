"""The objective of a classifier's training: what is shown, and the training's loss."""

import jax
import jax.numpy as jnp

from dream_jax.data.augment import augment, augment_patch, degrade, zoom
from dream_jax.detector.inputs import Head
from dream_jax.detector.last_layer import regularised
from dream_jax.detector.methods.base import Batch, Examples, Own, Training
from dream_jax.detector.options import Options
from dream_jax.detector.recipe import Recipe
from dream_jax.models.resnet import ResNet
from dream_jax.training.gradients import split_gradients
from dream_jax.training.loop import Objective


def make_objective(
    model: ResNet, training: Training, options: Options, recipe: Recipe, steps: int
) -> Objective:
    """Runs the network over ID images and outliers together, so that batch norm sees both.

    Args:
      options: all settings of the training.
      steps: of the whole training.
    """

    def prepare(key, image, is_id):
        affine_key, zoom_key, degrade_key = jax.random.split(key, 3)
        whole = augment(recipe.augment, affine_key, image)
        if recipe.outlier_view == "patches":
            patch = augment_patch(recipe.augment, affine_key, image)
            whole = jnp.where(is_id > 0, whole, patch)
        image = whole
        if "zoom" in options:
            image = jnp.where(is_id > 0, image, zoom(zoom_key, image, options["zoom"]))
        return degrade(degrade_key, image, recipe.degrade)

    def objective(params, model_state, batch, keys):
        own = Own(params["method"], model_state.get("method", {}))
        labels, is_id, mask = batch["labels"], batch["is_id"], batch["mask"]
        images, aside = jax.vmap(prepare)(keys, batch["images"], is_id), None
        if training.show is not None:
            seen = Batch(images, labels, is_id, mask, keys, batch["key"], batch["position"])
            seen, aside = training.show(seen, options)
            images, labels, is_id, mask, keys, *_ = seen
        if training.generate is not None:
            made, state = training.generate(own, images, mask, keys, options)
            own = own._replace(state=state)
            images = jnp.concatenate([images, made])
            labels, is_id = (jnp.concatenate([a, jnp.zeros_like(a)]) for a in (labels, is_id))
            mask, keys = (jnp.concatenate([a, a]) for a in (mask, keys))
        statistics = {name: v for name, v in model_state.items() if name != "method"}

        def apply(params, images):
            variables = {"params": params, **statistics}
            return model.apply(variables, images, train=True, mask=mask, mutable=["batch_stats"])

        held = None
        if training.generate is None:
            (logits, features), network = apply(params["network"], images)
        else:
            # Batch norm would carry the cross-entropy of ID images to the images that were made.
            out, ((held, _), _) = split_gradients(apply, params["network"], images)
            (logits, features), network = out
        shown = Examples(
            *(images, logits, features, labels, is_id, mask, keys, batch["key"]),
            progress=batch["step"] / steps,
            head=Head(**params["network"]["head"]),
            held=held,
            aside=aside,
        )
        terms, state = training.terms(own, shown, options)
        terms = regularised(terms, shown.head, options)
        return terms, network | ({"method": state} if state else {})

    return objective
