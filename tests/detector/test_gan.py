"""GAN: whose gradient goes where, against gradients of separate losses, and toy trainings."""

import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.methods.base import Own, Shape
from dream_jax.detector.methods.gan import uniform_divergence
from dream_jax.detector.objective import make_objective
from dream_jax.detector.recipe import Recipe
from dream_jax.errors import UserError
from dream_jax.models.dcgan import Discriminator, Generator, overlap, stages
from dream_jax.models.norm import BatchNorm
from dream_jax.settings import OptimizerSettings
from dream_jax.training.batches import Batches, epoch_index
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.devices import masked_mean, pmap, shard, unreplicate
from dream_jax.training.loop import create_state, fit
from dream_jax.training.optimizers import sgd

TRAINING = TRAININGS["gan"]
OPTIONS = {"beta": 0.7, "width": 2, "noise": 5, "learning_rate": 2e-3}
SIZE, CLASSES, COUNT = 16, 3, 60
SCHEDULE = 150  # the same of all trainings, which then share compiled programs
OPTIMIZER = OptimizerSettings(0.05, 0.0, 0.0, 0.9, 0.0, 0.0)
RECIPE = Recipe(0, 1, 1, 0, "none", 0.0, OPTIMIZER, 1, 1, 0)


def bars() -> dict[str, np.ndarray]:
    """A bright bar on black, whose place is the class."""
    labels = np.arange(COUNT) % CLASSES
    images = 0.1 * np.random.default_rng(0).random((COUNT, SIZE, SIZE, 1), np.float32)
    for image, label in zip(images, labels, strict=True):
        image[2 + 5 * label : 4 + 5 * label] += 0.9
    return {"images": images, "labels": labels, "is_id": np.ones(COUNT, np.float32)}


class Tiny(nn.Module):
    """A classifier with batch norm, through which rows see each other."""

    @nn.compact
    def __call__(self, images, train=False, mask=None):
        x = nn.Conv(4, (4, 4), (4, 4))(images)
        features = nn.relu(BatchNorm()(x, train, mask)).reshape(len(x), -1)
        return nn.Dense(CLASSES, name="head")(features), features


def variables(options) -> dict:
    key = jax.random.key(0)
    network = Tiny().init(key, jnp.zeros((1, SIZE, SIZE, 1)), train=True, mask=jnp.ones(1))
    own = TRAINING.init(key, Shape((SIZE, SIZE, 1), 64, CLASSES), options)
    return {
        "params": {"network": network["params"], "method": own.params},
        "batch_stats": network["batch_stats"],
        "method": own.state,
    }


def train(steps, beta=0.7, still=False, folder=None) -> dict[str, np.ndarray]:
    """What the generator makes after some steps of 18 rows, and the classifier's logits of it.

    Args:
      still: the classifier stays as it is, and is a confident one.
    """
    steps, options = int(steps), OPTIONS | {"beta": float(beta)}
    state = variables(options)
    settings = OPTIMIZER
    optimizer = sgd(settings, SCHEDULE)
    if still:
        optimizer = optax.set_to_zero()
        state["params"]["network"]["head"]["kernel"] *= 5.0
    optimizer = TRAINING.optimizer(optimizer, settings, SCHEDULE, options)
    with Checkpoints(Path(folder or tempfile.mkdtemp())) as checkpoints:
        state = fit(
            make_objective(Tiny(), TRAINING, options, RECIPE, SCHEDULE),
            create_state(state, optimizer, jax.random.key(1)),
            Batches(bars(), lambda step: epoch_index(COUNT, step, 18, 0)),
            optimizer,
            steps=steps,
            checkpoints=checkpoints,
            save_every=SCHEDULE,
            progress="toy",
        )
    own = Own(state.params["method"], state.model_state["method"])

    def sample(batch):
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(2), row))(batch["position"])
        made, _ = TRAINING.generate(own, batch["images"], batch["mask"], keys, options)
        network = {"params": state.params["network"]}
        network["batch_stats"] = state.model_state["batch_stats"]
        images = jnp.concatenate([batch["images"], made])
        mask = jnp.concatenate([batch["mask"]] * 2)
        (logits, _), _ = Tiny().apply(network, images, True, mask, mutable=["batch_stats"])
        return made, logits[len(made) :]

    made, logits = pmap(sample)(shard(bars()))
    flat = lambda a: np.asarray(a).reshape(-1, *a.shape[2:])[:COUNT]  # noqa: E731
    return {"made": flat(made), "logits": flat(logits)}


def test_divergence_from_the_uniform_distribution_is_scipys():
    logits = 3 * np.random.default_rng(0).normal(size=(9, 7))
    expected = entropy(np.full((9, 7), 1 / 7), softmax(logits, 1), axis=1)
    np.testing.assert_allclose(uniform_divergence(logits), expected, rtol=1e-5)
    np.testing.assert_allclose(uniform_divergence(np.ones((1, 7))), [0], atol=1e-6)


def test_overlap_is_xlas_transposed_convolution():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 5, 6)), rng.normal(size=(4, 4, 6, 2))
    ours = overlap(jnp.einsum("nhwi,abio->nhwabo", x, kernel[::-1, ::-1]))
    dimensions = ("NHWC", "HWIO", "NHWC")
    theirs = jax.lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=dimensions)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "first", "widths"),
    [(28, 7, (8, 4)), (32, 4, (8, 4, 2)), (64, 4, (8, 4, 2, 1)), (224, 7, (8, 4, 2, 1, 1))],
)
def test_networks_fit_the_images(size, first, widths, channels):
    assert stages(size) == (first, widths)
    run = lambda module: jax.eval_shape(  # noqa: E731
        lambda x: module.init_with_output(jax.random.key(0), x, train=True, mask=jnp.ones(2))[0],
        jnp.zeros((2, 10))
        if isinstance(module, Generator)
        else jnp.zeros((2, size, size, channels)),
    )
    assert run(Generator(size, channels, 4)).shape == (2, size, size, channels)
    assert run(Discriminator(4)).shape == (2,)


@pytest.mark.parametrize("size", [8, 30, 33, 36])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserError, match=f"config.data.image_size is {size}; .* such as 28, 32"):
        TRAINING.init(jax.random.key(0), Shape((size, size, 1), 8, 3), OPTIONS)


def test_each_network_has_its_own_gradient_alone():
    state = variables(OPTIONS)
    whole = make_objective(Tiny(), TRAINING, OPTIONS, RECIPE, 10)
    model_state = {name: state[name] for name in ("batch_stats", "method")}
    padded = 18  # rows, and two more that are padding
    data = {name: a[:20] for name, a in bars().items()}
    data["real"] = (np.arange(20) < padded).astype(np.float32)

    def program(batch):
        keys = jax.random.split(jax.random.key(5), 20)
        mask = batch["real"]
        shown = batch | {"mask": mask, "step": jnp.zeros((), int), "key": keys[0]}

        def loss(params):
            terms, _ = whole(params, model_state, shown, keys)
            return sum(t.weight * masked_mean(t.values, t.mask) for t in terms.values())

        def make(params):
            own = Own({"generator": params, "discriminator": {}}, state["method"])
            return TRAINING.generate(own, batch["images"], mask, keys, OPTIONS)[0]

        def classify(params, made):
            tree = {"params": params, "batch_stats": state["batch_stats"]}
            images, both = jnp.concatenate([batch["images"], made]), jnp.concatenate([mask, mask])
            return Tiny().apply(tree, images, True, both, mutable=["batch_stats"])[0][0]

        def judge(params, images):
            tree = {"params": params, "batch_stats": state["method"]["discriminator"]}
            module = Discriminator(OPTIONS["width"])
            return module.apply(tree, images, True, mask, mutable=["batch_stats"])[0]

        def mean(values):
            return jnp.sum(values * mask) / padded

        def divergence(logits):
            return mean(-jnp.log(CLASSES) - jnp.mean(jax.nn.log_softmax(logits[20:]), 1))

        params = state["params"]
        network, own = params["network"], params["method"]
        made = make(own["generator"])

        def cross_entropy(logits):
            return mean(-jax.nn.log_softmax(logits[:20])[jnp.arange(20), batch["labels"]])

        def of_classifier(params):
            logits = classify(params, made)
            return cross_entropy(logits) + 0.7 * divergence(logits)

        def of_generator(params):
            made = make(params)
            fooling = -jnp.log(nn.sigmoid(judge(own["discriminator"], made)))
            return mean(fooling) + 0.7 * divergence(classify(network, made))

        def of_discriminator(params):
            real = -jnp.log(nn.sigmoid(judge(params, batch["images"])))
            return mean(real) + mean(-jnp.log(1 - nn.sigmoid(judge(params, made))))

        expected = {
            "network": jax.grad(of_classifier)(network),
            "method": {
                "generator": jax.grad(of_generator)(own["generator"]),
                "discriminator": jax.grad(of_discriminator)(own["discriminator"]),
            },
        }
        leaked = jax.grad(lambda p: cross_entropy(classify(network, make(p))))(own["generator"])
        return jax.grad(loss)(params), expected, leaked

    batch = {n: a for n, a in shard(data).items() if n not in ("mask", "position")}
    found, expected, leaked = unreplicate(pmap(program)(batch))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)  # noqa: E731
    jax.tree.map(close, found, expected)
    # Batch norm would have brought the generator this much more.
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(leaked)) > 1e-4


def test_the_generator_is_pushed_to_low_confidence():
    start, pushed, left = (
        uniform_divergence(train(steps, beta, still=True)["logits"]).mean()
        for steps, beta in ((0, 5.0), (60, 5.0), (60, 0.0))
    )
    assert pushed < 0.5 * min(start, left)


def test_toy_training_brings_the_generator_nearer_to_the_data():
    data = bars()["images"]
    first, last = train(0)["made"], train(SCHEDULE)["made"]
    distance = lambda made: np.abs(made.mean(0) - data.mean(0)).mean()  # noqa: E731
    assert distance(last) < 0.5 * distance(first)
    assert np.all((last > 0) & (last < 1))


def test_four_devices_make_the_images_of_one(on_devices, tmp_path):
    one, four = train(3), on_devices(4, train, 3)  # 18 rows leave the last device's padded
    for name, expected in one.items():
        np.testing.assert_allclose(four[name], expected, rtol=2e-3, atol=5e-4, err_msg=name)
    assert np.std(one["made"], axis=0).max() > 0.02  # each row its own
