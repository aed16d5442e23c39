"""Training steps and forward passes of the classifiers against PyTorch.

    python -m benchmarks.resnet [--rounds 5] [--only "ResNet-34" "ResNet-18"]

The networks of the configurations: of CIFAR-10 and CIFAR-100, the quickstart's, of the photographs
on a CPU, of OpenOOD, of a folder of images, of ImageNet-100 and -200; and ResNet-50. Those of the
quickstart and of the photographs are batches with outliers. Batches of large images are smaller
than in the configurations, for the time that a round takes. Training is the project's own (forward,
gradients, batch statistics, SGD with momentum; several steps in one call, as its loop makes them),
on one device per core; PyTorch, in a process of its own, trains the same network with the same
weights, in its own memory layout and in channels-last. The logits of both must agree.
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
    "Airbench": ("airbench", 64, "whitened", (32, 32, 3), 10, 192),
    "ResNet-18": ("resnet18", 64, "small", (32, 32, 3), 10, 64),
    "ResNet-18, stem of ImageNet": ("resnet18", 64, "imagenet", (128, 128, 3), 10, 32),
    "ResNet-34, stem of ImageNet": ("resnet34", 64, "imagenet", (224, 224, 3), 100, 16),
    "ResNet-50, stem of ImageNet": ("resnet50", 64, "imagenet", (224, 224, 3), 1000, 8),
}
LAYOUTS = ("PyTorch", "PyTorch, channels last")  # of `rivals.LAYOUTS`
LARGE = 64  # pixels; results of larger images say their size
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
    return {
        "stages": model.kind.stages,
        "widths": model.kind.widths,
        "halved": model.kind.halved,
        "width": model.width,
        "channels": channels,
        "stem": model.stem,
        "outputs": model.outputs,
        "block": model.kind.block.__name__,
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
        who: InOwnProcess("benchmarks.rivals:forward", *theirs, who, images, batch)
        for who in LAYOUTS
    }

    def agree(logits):
        expected = devices.unshard(logits["dream_jax"], batch)
        for who in LAYOUTS:
            np.testing.assert_allclose(logits[who], expected, atol=2e-3, err_msg=who)

    sizes = {"arch": arch, "width": width, "stem": stem, "image": shape, "batch": batch}
    name = arch if shape[0] < LARGE else f"{arch}_{shape[0]}"
    sizes["devices"] = jax.local_device_count()
    what = f"{title}, batch {batch}, {shape[0]}×{shape[1]}"
    work = (batch, "images")
    title = f"Forward pass of {what}"
    compare(f"{name}_forward", title, forwards, rounds, sizes, work, agree)

    trainings = {"dream_jax": our_training(model, variables, images, labels)} | {
        who: InOwnProcess("benchmarks.rivals:training", *theirs, who, images, labels, STEPS)
        for who in LAYOUTS
    }
    work = (STEPS * batch, "images")
    compare(f"{name}_training", f"{STEPS} training steps of {what}", trainings, rounds, sizes, work)


def main():
    flags = parser(__doc__)
    flags.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    args = flags.parse_args()
    check_installed("torch")
    devices.use_cores()
    for title in args.only:
        benchmark(title, args.rounds)


if __name__ == "__main__":
    main()
