"""Training steps of quickstart's classifier: this project's loop against the simple one.

    python -m benchmarks.training_loop [--rounds 10] [--steps 20]

Ours is what `fit` does: the images lie on the devices, ten steps are one call that is given the
numbers of their rows, a thread prepares the calls ahead, and the host looks at the loss once, after
the last. The rivals:

- `simple_loop`: the host gathers a batch, hands it to the step and waits for its loss;
- `streamed`: what `fit` does with tables that are too large to hold, batches copied ahead;
- `single_steps`: ours with one step per call.

All make the same steps on the same rows with the same compiled arithmetic; that their losses agree
is checked.
"""

import itertools

import jax
import numpy as np

from benchmarks.paired import compare, parser
from configs import quickstart
from dream_jax.checks import check
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import load_id
from dream_jax.detector.batches import make_batches
from dream_jax.detector.methods import PLAIN, TRAININGS
from dream_jax.detector.objective import make_objective
from dream_jax.detector.recipe import recipe
from dream_jax.detector.train import initial_state
from dream_jax.training import devices
from dream_jax.training.loop import STEPS_PER_CALL, make_steps, transfer_calls


class Contender:
    """A loop that goes on where its last call ended, and returns the mean loss of its steps."""

    def __init__(self, run, table, state):
        self.run, self.table, self.state = run, table, devices.replicate(state)
        self.done = 0

    def step(self, batch) -> jax.Array:
        self.state, means = self.run(self.table, self.state, batch)
        return means["loss"]


def main():
    flags = parser(__doc__, rounds=10)
    flags.add_argument("--steps", type=int, default=20, help="steps in a round (%(default)s)")
    args = flags.parse_args()
    if args.steps % STEPS_PER_CALL:
        flags.error(f"--steps must be a multiple of {STEPS_PER_CALL}, not {args.steps}")

    devices.use_cores()
    settings = check(quickstart.get_config())
    train, _ = load_id(settings.data.id, DataOptions.of(settings.data, settings.data.ood_count))
    training = TRAININGS[PLAIN]
    own = recipe(settings, training, settings.seed)
    model, state, optimizer = initial_state(settings.model, training, {}, own, train)
    batches = make_batches(own, train, None)
    objective = make_objective(model, training, {}, own, own.steps(len(train)))
    run = make_steps(objective, optimizer, None)
    table = devices.replicate(batches.whole())

    def ahead(table: dict, length: int = 1):
        loop = Contender(run, table, state)

        def call() -> float:
            first = loop.done
            loop.done += args.steps
            calls = (range(s, s + length) for s in range(first, loop.done, length))
            prepared = transfer_calls(batches, calls, hold=bool(table))
            losses = [loop.step(batch) for _, batch in prepared]
            return np.mean(devices.unreplicate(losses))

        return call

    def simple():
        loop = Contender(run, {}, state)

        def call() -> float:
            losses = []
            for step in range(loop.done, loop.done + args.steps):
                batch = jax.tree.map(lambda a: a[:, None], devices.shard(batches.at(step)))
                losses.append(float(np.asarray(loop.step(batch))[0, 0]))
            loop.done += args.steps
            return np.mean(losses)

        return call

    contenders = {
        "dream_jax": ahead(table, STEPS_PER_CALL),
        "simple_loop": simple(),
        "streamed": ahead({}),
        "single_steps": ahead(table),
    }

    def agree(losses):
        for one, other in itertools.combinations(losses, 2):
            err = f"{one}, {other}"
            np.testing.assert_allclose(losses[one], losses[other], rtol=1e-3, err_msg=err)

    size = own.batch_size
    compare(
        "training_loop",
        f"{args.steps} training steps of quickstart's classifier, batch {size}",
        contenders,
        args.rounds,
        {"steps": args.steps, "batch_size": size, "devices": jax.local_device_count()},
        work=(args.steps * size, "images"),
        agree=agree,
    )


if __name__ == "__main__":
    main()
