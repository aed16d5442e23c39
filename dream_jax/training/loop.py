"""The one training loop, of the feature extractor, the classifiers and the generator."""

import math
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from dream_jax import interrupts
from dream_jax.errors import UserError
from dream_jax.programs import shared
from dream_jax.training import devices, hosts
from dream_jax.training.batches import Batches
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.curves import COLUMNS, LOSS, Curves
from dream_jax.training.streaming import stream
from dream_jax.training.terms import Term


class TrainState(flax.struct.PyTreeNode):
    """All that a run needs to continue; `key` is raw key data, so that it can be stored."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    average: Any
    key: jax.Array


# objective(params, model_state, batch, keys) -> ({name: Term}, new model_state); one key per row.
# The batch has the table's columns, `mask` and `position` of `devices.shard_rows`, and, the same on
# all devices, `step` and its random `key`.
Objective = Callable[[Any, Any, dict, jax.Array], tuple[dict[str, Term], Any]]

# Most steps in one call of the compiled program, where the table is held. On the CPU it takes
# `cpu_convolutions`: the gradients that XLA derives from a convolution were 25 times slower inside
# of a loop than outside, its gradients are not (benchmarks/training_loop.py).
STEPS_PER_CALL = 10


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


@shared
def make_steps(
    objective: Objective, optimizer: optax.GradientTransformation, average_decay: float | None
) -> Callable[[dict, TrainState, dict], tuple[TrainState, dict]]:
    """The pmapped program of one call: (held table, state, batches) → (state, metrics).

    An objective and an optimizer that were there before share their program.

    The batches of the call's steps are stacked: (devices, steps, rows per device, ...), and the
    metrics come as (devices, steps). The state is donated; the batches are not, as no output has
    their shape. Gradients and metrics are sums over devices of per-device shares.

    Random keys are folded from the state's key, the step and the row's position in the global
    batch, so an example's augmentation does not depend on the device that sees it.
    """

    def update(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        keys = devices.fold_keys(step_key, batch["position"])
        # No row has this number, so the step's own key is none of theirs.
        shown = batch | {"step": state.step, "key": jax.random.fold_in(step_key, 2**32 - 1)}

        def loss_share(params):
            terms, model_state = objective(params, state.model_state, shown, keys)
            devices.check_names("a term of the loss", terms, (LOSS, *COLUMNS))
            means = {name: devices.masked_mean(t.values, t.mask) for name, t in terms.items()}
            loss = sum(t.weight * means[name] for name, t in terms.items() if t.weight)
            return loss, (means | {LOSS: loss}, model_state)

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

    def steps(table: dict, state: TrainState, batches: dict) -> tuple[TrainState, dict]:
        def step(state, batch):
            held = {name: column[batch["rows"]] for name, column in table.items()}
            return update(state, batch | held)

        return jax.lax.scan(step, state, batches)

    return devices.pmap(steps, all_processes=True, donate_argnums=(1,))


def transfer_calls(
    batches: Batches, calls: Iterable[range], hold: bool
) -> Generator[tuple[int, dict], None, None]:
    """Yields how many steps are done after each call, and its batches, already on the devices.

    A thread prepares them and starts their transfer, up to two calls ahead. What is not held is
    gathered before that, by threads or worker processes of its own.

    Args:
      calls: the steps of each call, which follow on each other.
      hold: whether the table is on the devices and a batch is only the numbers of its rows.
    """

    calls = list(calls)
    steps = range(calls[0].start, calls[-1].stop)
    share = partial(batches.share, layout=devices.layout(), hold=hold)
    made = (share(step) for step in steps) if hold else stream(share, steps, batches.workers)

    def prepare(call: range) -> tuple[int, dict]:
        parts = [next(made) for _ in call]
        stacked = jax.tree.map(lambda *a: np.stack(a, 1), *parts)
        return call.stop, devices.put(stacked)

    with closing(made):
        yield from devices.prefetch(prepare, calls)


def fit(
    objective: Objective,
    state: TrainState,
    batches: Batches,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    checkpoints: Checkpoints,
    save_every: int,
    progress: str,
    average_decay: float | None = None,
    log_every: int = 20,
    watch: Callable[[int, dict], None] | None = None,
    curves: Curves | None = None,
    steps_per_call: int = STEPS_PER_CALL,
) -> TrainState:
    """Trains to `steps`, continuing from the newest checkpoint, and leaves one of the last step.

    The devices are always given the next call before the host looks at the last one's metrics, and
    a thread prepares and transfers the calls after that; only a checkpoint, and a measurement of
    the accuracy, wait for the devices.
    A signal takes effect at the end of a call, after a checkpoint: calls have one length, so that
    the training goes on with the program, and to the bits, of one that was not interrupted.

    Args:
      objective: per-row loss terms, see `Objective`.
      state: the state to start from where there is no checkpoint.
      batches: the table and the rows of each step.
      steps: total number of steps.
      save_every: steps between checkpoints.
      progress: label of the progress bar.
      average_decay: decay of the exponential moving average of the parameters, if one is kept.
      log_every: steps between looks at the loss; in between, the host does not wait.
      watch: called with the step and the metrics' means since the last look.
      curves: where the metrics are written; nowhere if None.
      steps_per_call: most steps in a call; see `call_length`. Looks and checkpoints are made at the
        end of the call in which they are due.

    Returns:
      The final state on the host.

    Raises:
      UserError: the loss is not finite, or a checkpoint cannot be read. Checkpoints stay.
    """
    state = checkpoints.restore(state) or state
    curves = curves or Curves(None)
    curves.restore(checkpoints.curves())
    start = int(state.step)
    if start >= steps:
        return jax.tree.map(np.asarray, state)
    hold = batches.fit_on_device
    # Also where batches are read as they are needed: another number of steps is another program,
    # which rounds otherwise, and whether a set fits into memory must not change results.
    length = call_length(start, steps, min(steps_per_call, log_every, save_every))
    table = devices.replicate(batches.whole()) if hold else {}
    host = _Host(progress, start, steps, curves, watch)
    recent: list[dict] = []
    due: tuple[int, list[dict]] | None = None  # a look put off until the devices have a next call
    make = make_steps(objective, optimizer, average_decay)
    state = devices.replicate(state)
    calls = (range(step, step + length) for step in range(start, steps, length))
    transferred = transfer_calls(batches, calls, hold)
    writing = curves.writing(start, steps, len(batches.rows(start)))
    with interrupts.held(), host.bar, writing, closing(transferred):
        for done, batch in transferred:
            state, means = make(table, state, batch)
            curves.begin(done - length)
            recent.append(means)
            if due is not None:
                host.look(*due, row=True)
                due = None
            looking = done % log_every < length
            stopping = _asked_to_stop(looking)
            saving = done % save_every < length or done == steps or stopping
            testing = curves.due(done, length)
            if saving or testing:
                row = looking or testing or done == steps
                host.look(done, recent, row, state if testing else None)
                recent = []
            elif looking:
                due, recent = (done, recent), []
            if saving:
                with curves.pause():
                    checkpoints.save(done, devices.unreplicate(state), curves.kept())
                host.saved = done
            if stopping:
                raise interrupts.Interrupted("another process")  # or by its own signal
    return devices.unreplicate(state)


class _Host:
    """What the host does with the metrics of a training.

    Attributes:
      bar: the progress bar.
      saved: the step of the newest checkpoint.
    """

    def __init__(
        self,
        progress: str,
        start: int,
        steps: int,
        curves: Curves,
        watch: Callable[[int, dict], None] | None,
    ):
        self.bar = tqdm(total=steps, initial=start, desc=progress, unit="step")
        self.saved = start
        self._progress, self._curves, self._watch = progress, curves, watch

    def look(
        self, done: int, recent: list[dict], row: bool, tested: TrainState | None = None
    ) -> None:
        """Looks at the metrics of some calls, and writes a row of the curves if asked.

        Args:
          done: steps done after the last of the calls.
          tested: a state on the devices to measure the accuracy of.
        """
        values = _on_host(recent)
        self._curves.add(values)
        if row:
            accuracy = None
            if tested is not None and self._curves.accuracy is not None:
                with self._curves.pause():
                    network = devices.unreplicate((tested.params, tested.model_state))
                    accuracy = self._curves.accuracy(*network)
            self._curves.row(done, accuracy)
        means = {name: float(np.mean(of_steps)) for name, of_steps in values.items()}
        self.bar.update(done - self.bar.n)
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
        finding = f"{self._progress}: the loss is {means[LOSS]} by step {done}"
        _check_loss(means[LOSS], finding, self.saved)
        if self._watch is not None:
            self._watch(done, means)


def _check_loss(loss: float, finding: str, saved: int) -> None:
    if not np.isfinite(loss):
        raise UserError(
            f"{finding}, expected a finite number; lower the learning rate (checkpoints up to step "
            f"{saved} are kept)"
        )


def _asked_to_stop(looking: bool) -> bool:
    """Whether the program was asked to end; several processes agree on it at their looks."""
    if hosts.count() == 1:
        return interrupts.requested()
    return looking and hosts.any_of(interrupts.requested())


def call_length(start: int, end: int, most: int) -> int:
    """Steps per call, at most `most`, such that all calls are of one length: of one program.

    It divides `end` and `start`, so that a resumed training runs the program of a whole one.
    """
    common = math.gcd(start, end)
    return next(length for length in range(most, 0, -1) if common % length == 0)


def _on_host(recent: list[dict]) -> dict[str, np.ndarray]:
    """Returns the metrics of all steps of some calls: (steps,) each."""
    calls = devices.unreplicate(recent)
    return {name: np.concatenate([m[name] for m in calls]) for name in calls[0]}
