"""Training steps and forward passes of the classifiers against PyTorch.

    python -m benchmarks.resnet [--rounds 5]

ResNet-34 at batch 64 on 32×32 images, and the quickstart's small ResNet. Training is the project's
own (forward, gradients, batch statistics, SGD with momentum; several steps in one call, as its loop
makes them), on one device per core; PyTorch, in a process of its own, trains the same network with
the same weights, in its own memory layout and in channels-last. The logits of both must agree.
"""

import functools

import jax
import numpy as np
import optax

from benchmarks.paired import compare, parser
from benchmarks.processes import InOwnProcess, check_installed
from dream_jax.models.resnet import build_model, init_model
from dream_jax.settings import ModelSettings
from dream_jax.training import devices
from dream_jax.training.loop import Term, create_state, make_steps

NETWORKS = {  # architecture, width, stem, (H, W, C) of the images, classes, batch
    "ResNet-34": ("resnet34", 64, "small", (32, 32, 3), 100, 64),
    "the quickstart's ResNet": ("resnet8", 24, "stride2", (28, 28, 1), 10, 96),
}
LAYOUTS = ("PyTorch", "PyTorch, channels last")  # of `rivals.LAYOUTS`
STEPS = 4  # in a timed call; one alone would pay for all its memory afresh, in training none does


def our_training(model, variables, images, labels):
    """A call that makes `STEPS` training steps on the same images."""

    def objective(params, model_state, batch, keys):
        (logits, _), model_state = model.apply(
            {"params": params, **model_state},
            batch["images"],
            train=True,
            mask=batch["mask"],
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return {"ce": Term(loss, batch["mask"])}, model_state

    optimizer = optax.sgd(0.01, momentum=0.9)
    steps = make_steps(objective, optimizer, None)
    state = devices.replicate(create_state(variables, optimizer, jax.random.key(0)))
    batch = devices.shard({"images": images, "labels": labels})
    batch = devices.put({name: np.stack([a] * STEPS, 1) for name, a in batch.items()})

    def call():
        nonlocal state
        state, metrics = steps({}, state, batch)
        return state, metrics

    return call


def rival_shape(model, channels: int) -> dict:
    """The arguments of the rivals' network that has the structure of ours."""
    stride = 2 if model.stem == "stride2" else 1
    return {
        "stages": tuple(model.stages),
        "width": model.width,
        "channels": channels,
        "stride": stride,
        "outputs": model.outputs,
    }


def benchmark(title, rounds):
    arch, width, stem, shape, classes, batch = NETWORKS[title]
    rng = np.random.default_rng(0)
    images = rng.random((batch, *shape), np.float32)
    labels = rng.integers(0, classes, batch)
    model = build_model(ModelSettings(arch, width, stem, "float32"), classes)
    variables = jax.tree.map(np.asarray, init_model(model, jax.random.key(0), shape))
    theirs = rival_shape(model, shape[-1]), variables

    forward = devices.pmap(lambda v, x: model.apply(v, x)[0])
    on_devices = devices.replicate(variables), devices.put(devices.shard({"x": images})["x"])
    ours = functools.partial(forward, *on_devices)
    forwards = {"dream_jax": ours} | {
        name: InOwnProcess("benchmarks.rivals:forward", *theirs, name, images, batch)
        for name in LAYOUTS
    }

    def agree(logits):
        expected = devices.unshard(logits["dream_jax"], batch)
        for name in LAYOUTS:
            np.testing.assert_allclose(logits[name], expected, atol=2e-3, err_msg=name)

    sizes = {"arch": arch, "width": width, "stem": stem, "image": shape, "batch": batch}
    sizes["devices"] = jax.local_device_count()
    what = f"{title}, batch {batch}, {shape[0]}×{shape[1]}"
    work = (batch, "images")
    title = f"Forward pass of {what}"
    compare(f"{arch}_forward", title, forwards, rounds, sizes, work, agree)

    trainings = {"dream_jax": our_training(model, variables, images, labels)} | {
        name: InOwnProcess("benchmarks.rivals:training", *theirs, name, images, labels, STEPS)
        for name in LAYOUTS
    }
    work = (STEPS * batch, "images")
    compare(f"{arch}_training", f"{STEPS} training steps of {what}", trainings, rounds, sizes, work)


def main():
    args = parser(__doc__).parse_args()
    check_installed("torch")
    devices.use_cores()
    for title in NETWORKS:
        benchmark(title, args.rounds)


if __name__ == "__main__":
    main()
