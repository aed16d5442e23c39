"""The training loop: the same result on any devices, after any interruption, or one clear line."""

from contextlib import contextmanager

import flax.linen as nn
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dream_jax.errors import UserError
from dream_jax.models.norm import BatchNorm
from dream_jax.training import batches as batches_module
from dream_jax.training import devices, loop
from dream_jax.training.batches import Array, Batches, Stacked, epoch_index
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.loop import Term, create_state, fit

STEPS = 8


class Network(nn.Module):
    """Convolution, batch norm, pooling, linear layer."""

    @nn.compact
    def __call__(self, images, mask):
        x = nn.relu(BatchNorm()(nn.Conv(4, (3, 3))(images), True, mask))
        return nn.Dense(3)(x.mean((1, 2)))


def image_task():
    """(objective, variables, batches) of a small network with batch norm and random noise."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(30, 6, 6, 1)).astype(np.float32)
    labels = rng.integers(3, size=30)
    network = Network()

    def objective(params, model_state, batch, keys):
        noise = jax.vmap(lambda key: jax.random.uniform(key, (6, 6, 1)))(keys)
        logits, model_state = network.apply(
            {"params": params, **model_state},
            batch["images"] + 0.3 * noise,
            batch["mask"],
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return {"ce": Term(loss, batch["mask"])}, model_state

    batches = Batches(
        {"images": images, "labels": labels},
        lambda step: epoch_index(30, step, 10, seed=0),  # 10 rows do not divide by 4 devices
    )
    return objective, network.init(jax.random.key(0), images[:1], np.ones(1)), batches


def train(folder, *, steps=STEPS, save_every=2, **options):
    """Trains the image task in a folder of checkpoints."""
    objective, variables, batches = image_task()
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)
    state = create_state(variables, optimizer, jax.random.key(1), average=True)
    with Checkpoints(folder) as checkpoints:
        return fit(
            objective,
            state,
            batches,
            optimizer,
            steps=steps,
            checkpoints=checkpoints,
            save_every=save_every,
            progress="test",
            average_decay=0.9,
            **options,
        )


def flat(state) -> dict[str, np.ndarray]:
    """The state's arrays by their names."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


CALLS = (1, 2)  # steps of each


def train_flat(folder) -> dict[str, np.ndarray]:
    """What the process on several devices runs: trainings by their steps per call."""
    states = {n: flat(train(f"{folder}/{n}", steps_per_call=n)) for n in CALLS}
    return {f"{n}: {name}": leaf for n, state in states.items() for name, leaf in state.items()}


@pytest.fixture(scope="module")
def four(on_devices, tmp_path_factory):
    """The states of trainings on four devices."""
    return on_devices(4, train_flat, tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state of a training that nothing interrupted."""
    return train(tmp_path_factory.mktemp("whole"), steps_per_call=1)


def assert_same(state, expected, **tolerance):
    assert state.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(state[name], expected[name], err_msg=name, **tolerance)


@pytest.mark.parametrize("steps_per_call", CALLS)
def test_four_devices_give_the_parameters_of_one(whole, four, steps_per_call):
    _, variables, _ = image_task()
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), variables["params"], whole.params)
    assert max(jax.tree.leaves(moved)) > 0.05  # the training did something
    start = f"{steps_per_call}: "
    own = {name.removeprefix(start): a for name, a in four.items() if name.startswith(start)}
    assert_same(own, flat(whole), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("stop", [3, 6])
def test_interrupted_training_continues_bit_for_bit(whole, tmp_path, stop):
    def watch(step, means):
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, watch=watch, log_every=1)
    saved = max(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit())
    assert saved == (stop - 1) // 2 * 2  # the last whole checkpoint before the stop
    seen = []
    state = train(tmp_path, watch=lambda step, means: seen.append(step), log_every=1)
    assert seen == list(range(saved + 1, STEPS + 1))
    assert_same(flat(state), flat(whole), rtol=0, atol=0)


def test_finished_training_is_only_read(whole, tmp_path):
    train(tmp_path, steps_per_call=1)
    state = train(tmp_path, watch=lambda *_: pytest.fail("a step was made"), log_every=1)
    assert_same(flat(state), flat(whole), rtol=0, atol=0)


def linear_fit(folder, *, w, steps, rate=0.1, average_decay=None, save_every=2, watch=None):
    """Least squares of one weight vector from `w`, plain gradient descent."""
    x = np.random.default_rng(0).normal(size=(5, len(w))).astype(np.float32)

    def objective(params, model_state, batch, keys):
        error = batch["x"] @ params["w"] - 1
        return {"mse": Term(error**2, batch["mask"])}, model_state

    optimizer = optax.sgd(rate)
    average = average_decay is not None
    state = create_state({"params": {"w": w}}, optimizer, jax.random.key(0), average=average)
    with Checkpoints(folder) as checkpoints:
        state = fit(
            objective,
            state,
            Batches({"x": x}, lambda step: np.arange(5)),
            optimizer,
            steps=steps,
            checkpoints=checkpoints,
            save_every=save_every,
            progress="line",
            average_decay=average_decay,
            log_every=1,
            watch=watch,
        )
    return state, x


def test_descent_average_and_metrics_are_those_of_numpy(tmp_path):
    seen = []
    start = jnp.array([0.5, -1.0, 2.0])
    state, x = linear_fit(
        tmp_path,
        w=start,
        steps=20,
        average_decay=0.6,
        watch=lambda step, means: seen.append(means["loss"]),
    )
    w = average = np.asarray(start, np.float64)
    losses = []
    for step in range(20):
        error = x @ w - 1
        losses.append(np.mean(error**2))
        w = w - 0.1 * 2 * x.T @ error / len(x)
        decay = min(0.6, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * w
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-4)
    np.testing.assert_allclose(state.average["w"], average, rtol=1e-4)
    np.testing.assert_allclose(seen, losses, rtol=1e-4)
    assert np.abs(average - w).max() > 1e-3  # they can be told apart


def test_term_weights_and_masks_make_the_loss(tmp_path):
    def objective(params, model_state, batch, keys):
        x = batch["x"] * params["w"]
        half = batch["half"] * batch["mask"]
        return {
            "a": Term(x, batch["mask"], 2.0),
            "b": Term(x, half, 3.0),
            "shown": Term(x, batch["mask"], 0.0),
        }, model_state

    table = {"x": np.float32([1, 2, 6]), "half": np.float32([0, 1, 1])}
    optimizer = optax.sgd(1.0)
    state = create_state({"params": {"w": jnp.ones(())}}, optimizer, jax.random.key(0))
    seen = []
    with Checkpoints(tmp_path) as checkpoints:
        state = fit(
            objective,
            state,
            Batches(table, lambda step: np.arange(3)),
            optimizer,
            steps=1,
            checkpoints=checkpoints,
            save_every=1,
            progress="terms",
            watch=lambda step, means: seen.append(means),
        )
    assert seen == [{"a": 3.0, "b": 4.0, "shown": 3.0, "loss": 18.0}]
    assert float(state.params["w"]) == 1 - 18


@pytest.mark.parametrize("name", ["mask", "position", "rows", "step", "key"])
def test_columns_by_the_names_of_others_are_refused(tmp_path, name):
    _, variables, batches = image_task()
    batches = batches._replace(table=dict(batches.table) | {name: np.ones(30)})
    optimizer = optax.sgd(0.1)
    state = create_state(variables, optimizer, jax.random.key(1))
    options = {"steps": 1, "save_every": 1, "progress": ""}
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match=f"^a column of the table is called '{name}'; taken are"),
    ):
        fit(lambda *_: None, state, batches, optimizer, checkpoints=checkpoints, **options)


@pytest.mark.parametrize("name", ["loss", "step", "epoch", "learning_rate", "test_accuracy"])
def test_terms_by_the_names_of_other_curves_are_refused(name):
    """They would be written in the place of the sum, or as two columns of one name."""

    def objective(params, model_state, batch, keys):
        return {name: Term(batch["x"] * params["w"], batch["mask"])}, model_state

    optimizer = optax.sgd(0.1)
    state = create_state({"params": {"w": jnp.ones(())}}, optimizer, jax.random.key(1))
    batch = devices.shard({"x": np.ones(4, np.float32)})
    batch = {key: values[:, None] for key, values in batch.items()}  # one step
    with pytest.raises(ValueError, match=f"^a term of the loss is called '{name}'; taken are"):
        loop.make_steps(objective, optimizer, None)({}, devices.replicate(state), batch)


def test_loss_that_is_not_finite_ends_in_one_line_and_keeps_checkpoints(tmp_path):
    with pytest.raises(UserError, match=r"line: the loss is (inf|nan) by step") as caught:
        linear_fit(tmp_path, w=jnp.ones(3), steps=500, rate=50.0)
    message = str(caught.value)
    assert "\n" not in message
    with Checkpoints(tmp_path) as checkpoints:
        steps = checkpoints.steps()
    assert f"up to step {max(steps)} are kept" in message
    by = int(message.split("by step ")[1].split(",")[0])
    assert 0 < by - max(steps) <= 2


def test_checkpoint_of_another_shape_names_the_leaf(tmp_path):
    linear_fit(tmp_path, w=jnp.ones(3), steps=2)
    with pytest.raises(UserError) as caught:
        linear_fit(tmp_path, w=jnp.ones(4), steps=4)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(tmp_path / "2"), "params", "w", "(3,)", "(4,)"):
        assert part in message


def test_only_the_last_two_checkpoints_stay(tmp_path):
    linear_fit(tmp_path, w=jnp.ones(3), steps=7)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["6", "7"]


def test_several_steps_per_call_are_the_same_steps(whole, tmp_path):
    """Looks and checkpoints come at the ends of the calls in which they are due."""
    seen = []
    watch = lambda step, means: seen.append(step)  # noqa: E731
    state = train(tmp_path, save_every=5, log_every=4, steps_per_call=4, watch=watch)
    assert seen == [4, 8]
    assert_same(flat(state), flat(whole), rtol=1e-5, atol=1e-6)
    state = train(tmp_path / "by_two", save_every=5, log_every=3, steps_per_call=3, watch=watch)
    assert seen[2:] == [4, 6, 8]  # calls of two steps
    assert sorted(p.name for p in (tmp_path / "by_two").iterdir() if p.name.isdigit()) == ["6", "8"]
    assert_same(flat(state), flat(whole), rtol=1e-5, atol=1e-6)


def test_streamed_batches_give_the_bits_of_a_table_on_the_devices(tmp_path, monkeypatch):
    _, _, batches = image_task()
    assert batches.fit_on_device
    held = flat(train(tmp_path / "held"))
    # The images fit, not their labels too.
    monkeypatch.setattr(batches_module, "HOLD_BYTES", 30 * 6 * 6 * 4)
    assert not batches.fit_on_device
    assert_same(flat(train(tmp_path / "streamed")), held, rtol=0, atol=0)


def test_metrics_are_means_over_the_steps_since_the_last_look(tmp_path):
    def losses(name, **options):
        seen = []
        train(tmp_path / name, watch=lambda step, means: seen.append(means["loss"]), **options)
        return seen

    singly = losses("singly", log_every=1)
    by_four = losses("by_four", log_every=4, save_every=100)
    expected = [np.mean(singly[:4]), np.mean(singly[4:])]
    np.testing.assert_allclose(by_four, expected, rtol=1e-5)


def test_looks_are_put_off_until_the_next_call_except_at_checkpoints(tmp_path, monkeypatch):
    events = []
    make_steps = loop.make_steps

    def recorded(*args):
        run = make_steps(*args)

        def call(*args):
            events.append("call")
            return run(*args)

        return call

    monkeypatch.setattr(loop, "make_steps", recorded)
    watch = lambda step, means: events.append(step)  # noqa: E731
    train(tmp_path, steps=6, save_every=4, log_every=2, watch=watch, steps_per_call=1)
    assert events == ["call"] * 3 + [2, "call", 4] + ["call"] * 2 + [6]


@pytest.mark.parametrize(
    ("start", "end", "most", "expected"),
    [(0, 8, 1, 1), (0, 756, 10, 9), (252, 756, 10, 9), (250, 756, 10, 2), (0, 751, 10, 1)],
)
def test_all_calls_have_one_length(start, end, most, expected):
    assert loop.call_length(start, end, most) == expected


@pytest.mark.parametrize("held", [True, False])
def test_nothing_is_compiled_after_the_first_step(tmp_path, monkeypatch, held):
    """The count of compilations at every look of a fit with checkpoints and an odd end."""
    if not held:
        monkeypatch.setattr(batches_module, "HOLD_BYTES", 0)
    with compilations() as compiled:
        by_step = []
        watch = lambda step, means: by_step.append(len(compiled))  # noqa: E731
        train(tmp_path, steps=7, save_every=3, watch=watch, log_every=1)
        by_step.append(len(compiled))
    assert by_step[0] > 0
    assert by_step == [by_step[0]] * 8


def test_calls_of_several_steps_are_of_one_program(tmp_path):
    with compilations() as compiled:
        by_look = []
        watch = lambda step, means: by_look.append(len(compiled))  # noqa: E731
        train(tmp_path, steps=12, save_every=6, watch=watch, log_every=4)
        by_look.append(len(compiled))
    assert by_look == [by_look[0]] * 4  # looks at 4, 8 and 12


def test_the_state_is_donated_and_nothing_is_called_on_the_host():
    """Each array of the state lies where that of the result will lie; table and batches stay."""
    objective, variables, batches = image_task()
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)
    state = create_state(variables, optimizer, jax.random.key(1), average=True)
    program = loop.make_steps(objective, optimizer, 0.9)
    table, held = devices.replicate(batches.whole()), devices.replicate(state)
    rows = batches.share(0, devices.layout(), True)
    call = devices.put(jax.tree.map(lambda column: np.stack([column] * 2, 1), rows))
    lowered = program.lower(table, held, call)
    for way in ("callback", "infeed", "outfeed", "stablehlo.send", "stablehlo.recv"):
        assert way not in lowered.as_text()
    bytes_of_state = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert lowered.compile().memory_analysis().alias_size_in_bytes == bytes_of_state
    made, _ = program(table, held, call)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(held))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((table, call, made)))


@contextmanager
def compilations():
    """A list that grows by one with every compilation."""
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("rows", [[0], [6, 2, 3, 0, 5, 2], [3, 4]])
def test_stacked_is_a_concatenation(rows):
    parts = [np.arange(6.0).reshape(3, 2), np.arange(8.0).reshape(4, 2) + 50]
    stacked = Stacked([Array(part) for part in parts])
    whole = np.concatenate(parts)
    assert len(stacked) == 7 and stacked.nbytes == whole.nbytes
    assert np.array_equal(stacked.at(np.array(rows), 0), whole[rows])


@pytest.mark.parametrize(("count", "batch_size"), [(10, 5), (10, 4), (7, 3), (5, 12)])
def test_every_epoch_is_a_permutation(count, batch_size):
    epochs = 4
    steps = -(-epochs * count // batch_size)
    rows = np.concatenate([epoch_index(count, step, batch_size, seed=1) for step in range(steps)])
    assert len(rows) == steps * batch_size
    orders = rows[: epochs * count].reshape(epochs, count)
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(count), (epochs, 1)))
    assert len({tuple(order) for order in orders}) > 1


def test_batches_depend_on_step_and_seed_only():
    draw = lambda step, seed: tuple(epoch_index(50, step, 8, seed))  # noqa: E731
    assert draw(3, 0) == draw(3, 0)
    assert draw(3, 0) != draw(3, 1)
