"""The one training loop, of the feature extractor, the classifiers and the generator."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from dream_jax.errors import UserError
from dream_jax.training import devices
from dream_jax.training.checkpoints import Checkpoints


class TrainState(flax.struct.PyTreeNode):
    """All that a run needs to continue; `key` is raw key data, so that it can be stored."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    average: Any
    key: jax.Array


class Term(NamedTuple):
    """A summand of the loss: the mean of `values` over the rows that `mask` keeps, times `weight`.

    A weight of 0 makes it a metric that is only shown.
    """

    values: jax.Array
    mask: jax.Array
    weight: float = 1.0


# objective(params, model_state, batch, keys) -> ({name: Term}, new model_state); one key per row.
Objective = Callable[[Any, Any, dict, jax.Array], tuple[dict[str, Term], Any]]
# batch_at(step) -> arrays of the global batch, the same for the same step whenever it is asked.
BatchAt = Callable[[int], dict[str, np.ndarray]]


def create_state(
    variables: dict, optimizer: optax.GradientTransformation, key: jax.Array, *, average=False
) -> TrainState:
    """A fresh state from Flax variables {"params": ..., other collections}."""
    variables = dict(variables)
    params = variables.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state=optimizer.init(params),
        average=params if average else {},
        key=jax.random.key_data(key),
    )


def make_update(
    objective: Objective, optimizer: optax.GradientTransformation, average_decay: float | None
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """The pmapped step: gradients and metrics are sums over devices of per-device shares.

    Random keys are folded from the state's key, the step and the row's position in the global
    batch, so an example's augmentation does not depend on the device that sees it.
    """

    def update(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        keys = devices.fold_keys(step_key, batch["position"])

        def loss_share(params):
            terms, model_state = objective(params, state.model_state, batch, keys)
            means = {name: devices.masked_mean(t.values, t.mask) for name, t in terms.items()}
            loss = sum(t.weight * means[name] for name, t in terms.items() if t.weight)
            return loss, (means | {"loss": loss}, model_state)

        grads, (means, model_state) = jax.grad(loss_share, has_aux=True)(state.params)
        grads, means = jax.lax.psum((grads, means), devices.AXIS)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average_decay is not None:
            # Short runs: the average must not remember the initial weights.
            decay = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
            average = optax.incremental_update(params, average, 1 - decay)
        state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            average=average,
        )
        return state, means

    return jax.pmap(update, axis_name=devices.AXIS, donate_argnums=(0,))


def fit(
    objective: Objective,
    state: TrainState,
    batch_at: BatchAt,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    checkpoints: Checkpoints,
    save_every: int,
    progress: str,
    average_decay: float | None = None,
    log_every: int = 20,
    watch: Callable[[int, dict], None] | None = None,
) -> TrainState:
    """Trains to `steps`, continuing from the newest checkpoint, and leaves one of the last step.

    Args:
      objective: per-row loss terms, see `Objective`.
      state: the state to start from where there is no checkpoint.
      batch_at: the global batch of a step; a pure function, so a resumed run sees the same data.
      steps: total number of steps.
      save_every: steps between checkpoints.
      progress: label of the progress bar.
      average_decay: decay of the exponential moving average of the parameters, if one is kept.
      log_every: steps between looks at the loss; in between, the host does not wait.
      watch: called with the step and the metrics' means since the last look.

    Returns:
      The final state on the host.

    Raises:
      UserError: the loss is not finite, or a checkpoint cannot be read. Checkpoints stay.
    """
    restored = checkpoints.restore(state)
    state = state if restored is None else restored
    start = int(state.step)
    if start >= steps:
        return jax.tree.map(np.asarray, state)
    update = make_update(objective, optimizer, average_decay)
    state = devices.replicate(state)
    recent: list[dict] = []
    with tqdm(total=steps, initial=start, desc=progress, unit="step") as bar:
        for step in range(start, steps):
            state, means = update(state, devices.shard(batch_at(step)))
            recent.append(means)
            done = step + 1
            saving = done % save_every == 0 or done == steps
            if done % log_every == 0 or saving:
                means = _mean_on_host(recent)
                recent = []
                bar.update(done - bar.n)
                bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
                if not np.isfinite(means["loss"]):
                    raise UserError(
                        f"{progress}: the loss is {means['loss']} by step {done}, expected a "
                        f"finite number; lower the learning rate (checkpoints up to step "
                        f"{step // save_every * save_every} are kept)"
                    )
                if watch is not None:
                    watch(done, means)
            if saving:
                checkpoints.save(done, devices.unreplicate(state))
    return devices.unreplicate(state)


def _mean_on_host(recent: list[dict]) -> dict[str, float]:
    return {name: float(np.mean([float(m[name][0]) for m in recent])) for name in recent[0]}


def epoch_index(count: int, step: int, batch_size: int, seed: int) -> np.ndarray:
    """Rows of the batch of a step: each epoch is a fresh permutation of `count` rows.

    Batches run on across the ends of epochs, so each has `batch_size` rows, also when that does
    not divide `count` or is larger.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // count
    index = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        permutation = np.random.default_rng((seed, int(epoch))).permutation(count)
        index[epochs == epoch] = permutation[positions[epochs == epoch] % count]
    return index
