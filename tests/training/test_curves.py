"""The curves of a training: what is written, and the same after any interruption."""

import csv
import struct
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax

from dream_jax import interrupts
from dream_jax.errors import UserError
from dream_jax.training import event_files
from dream_jax.training.batches import Batches
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.curves import METRICS, SPEED, Accuracy, Curves, read_curves
from dream_jax.training.event_files import TENSORBOARD, check_project
from dream_jax.training.loop import Term, create_state, fit

STEPS, ROWS, EPOCH = 24, [3, 5, 6, 9, 10, 12, 15, 18, 20, 21, 24], 5
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.normal(size=(20, 4)).astype(np.float32), np.arange(20) % 3
SCHEDULE = optax.cosine_decay_schedule(0.5, STEPS)


def predict(params, model_state, images):
    return images @ params["w"]


def objective(params, model_state, batch, keys):
    losses = optax.softmax_cross_entropy_with_integer_labels(
        predict(params, {}, batch["images"]), batch["labels"]
    )
    return {"ce": Term(losses, batch["mask"])}, model_state


def train(folder: Path, *, watch=None, written=True, **options):
    """Trains a linear classifier; a row every 3 steps and every epoch of 5, a checkpoint at 7."""
    optimizer = optax.sgd(SCHEDULE)
    state = create_state({"params": {"w": jnp.zeros((4, 3))}}, optimizer, jax.random.key(0))
    accuracy = Accuracy(predict, IMAGES, LABELS, 8, every=EPOCH)
    curves = Curves(folder, learning_rate=SCHEDULE, epoch=EPOCH, accuracy=accuracy, **options)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return fit(
            objective,
            state,
            Batches(
                {"images": IMAGES, "labels": LABELS}, lambda step: np.arange(4) + 4 * (step % 5)
            ),
            optimizer,
            steps=STEPS,
            checkpoints=checkpoints,
            save_every=7,
            progress="test",
            log_every=3,
            steps_per_call=1,
            watch=watch,
            curves=curves if written else None,
        )


def events(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Returns the steps and the scalars of a folder's only file of events, as its format says."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = (folder / TENSORBOARD).iterdir()
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event, content = Event.FromString(content[12 : 12 + length]), content[16 + length :]
        if event.summary.value:
            found.append((event.step, {v.tag: v.simple_value for v in event.summary.value}))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


def test_rows_hold_what_the_training_did(whole):
    rows = list(csv.DictReader((whole / METRICS).open()))
    assert [*rows[0]] == ["step", "epoch", "learning_rate", "loss", "ce", "test_accuracy"]
    assert [int(row["step"]) for row in rows] == ROWS
    # Computed anew: plain gradient descent on the same batches.
    w, losses, accuracies = np.zeros((4, 3)), [], []
    for step in range(STEPS):
        at = np.arange(4) + 4 * (step % 5)
        shares = softmax(IMAGES[at] @ w, axis=-1)
        losses.append(-np.log(shares[np.arange(4), LABELS[at]]).mean())
        w -= float(SCHEDULE(step)) * IMAGES[at].T @ (shares - np.eye(3)[LABELS[at]]) / 4
        accuracies.append(float(np.mean(np.argmax(IMAGES @ w, -1) == LABELS)))
    for before, row in zip([0, *ROWS], rows, strict=False):
        step = int(row["step"])
        assert float(row["loss"]) == pytest.approx(np.mean(losses[before:step]), rel=1e-5)
        assert float(row["learning_rate"]) == pytest.approx(float(SCHEDULE(step - 1)), rel=1e-4)
        assert float(row["epoch"]) == step / EPOCH
        tested = step % EPOCH == 0 or step == STEPS
        assert row["test_accuracy"] == (f"{accuracies[step - 1]:.9g}" if tested else "")
    assert read_curves(whole)["test_accuracy"][0] == [5, 10, 15, 20, 24]


def test_event_files_and_speeds_have_the_same_rows(whole):
    curves = read_curves(whole)
    found = events(whole)
    assert [step for step, _ in found] == ROWS
    for step, scalars in found:
        assert scalars.pop("images_per_second") > 0
        expected = {
            name: values[steps.index(step)]
            for name, (steps, values) in curves.items()
            if step in steps
        }
        assert scalars == pytest.approx(expected, rel=1e-6)
    speeds = list(csv.DictReader((whole / SPEED).open()))
    assert [int(row["step"]) for row in speeds] == ROWS


@pytest.mark.parametrize(("kind", "stop"), [("killed", 2), ("killed", 11), ("asked", 16)])
def test_an_interrupted_training_has_the_rows_of_a_whole_one(
    whole, tmp_path, monkeypatch, kind, stop
):
    """Also where a checkpoint lies between two rows, and rows were written after it."""
    made = 0

    def requested() -> bool:
        nonlocal made
        made += 1
        if kind == "killed" and made == stop:
            raise KeyboardInterrupt
        return kind == "asked" and made == stop

    with monkeypatch.context() as patch:
        patch.setattr(interrupts, "requested", requested)
        with pytest.raises((KeyboardInterrupt, interrupts.Interrupted)):
            train(tmp_path)
    with (tmp_path / SPEED).open("a") as file:
        file.write("2")  # half a row
    train(tmp_path)
    assert (tmp_path / METRICS).read_bytes() == (whole / METRICS).read_bytes()
    assert [step for step, _ in events(tmp_path)] == ROWS
    speeds = [int(row["step"]) for row in csv.DictReader((tmp_path / SPEED).open())]
    assert speeds == ROWS


def test_a_lost_file_comes_back_from_the_checkpoint(whole, tmp_path):
    train(tmp_path)
    (tmp_path / METRICS).write_text("step,loss\n1,half a")
    with pytest.raises(UserError, match=r"metrics.csv: cannot be read .*; delete it"):
        read_curves(tmp_path)
    (tmp_path / METRICS).unlink()
    assert read_curves(tmp_path) == {}
    train(tmp_path)
    assert (tmp_path / METRICS).read_bytes() == (whole / METRICS).read_bytes()


def test_curves_change_no_bit_of_a_training(whole, tmp_path):
    without = train(tmp_path, written=False)
    assert not (tmp_path / METRICS).exists()
    np.testing.assert_array_equal(train(whole).params["w"], without.params["w"])


def test_a_loss_that_is_not_finite_is_in_the_curves(tmp_path, monkeypatch):
    monkeypatch.setattr("test_curves.SCHEDULE", lambda step: jnp.where(step > 3, jnp.nan, 0.1))
    with pytest.raises(UserError, match="the loss is nan by step 6"):
        train(tmp_path)
    assert read_curves(tmp_path)["loss"][0] == [3, 5, 6]
    assert np.isnan(read_curves(tmp_path)["loss"][1][-1])


def test_weights_and_biases_are_refused_where_they_are_not_installed(monkeypatch):
    check_project("")
    monkeypatch.setattr(event_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^config.wandb is 'ood', but .* not installed; install"):
        check_project("ood")


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_weights_and_biases_get_the_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path, project="ood")
    assert list(tmp_path.glob("wandb/*/*.wandb"))
    assert len((tmp_path / "wandb" / "run").read_text()) == 16
