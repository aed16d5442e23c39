"""LogitNorm, T2FNorm, CIDER, RotPred, RegMixup, MixOE, MCD and energy fine-tuning.

Their losses against NumPy in float64, what defines each of them, and short trainings.
"""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax
from slow import takes_a_minute

from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images
from dream_jax.detector.batches import make_batches
from dream_jax.detector.detectors import DETECTORS
from dream_jax.detector.extra_images import ExtraImages
from dream_jax.detector.inputs import Head, Outputs, make_inputs
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.methods.base import Batch, Examples, Own, Shape, network_of
from dream_jax.detector.methods.mcd import discrepancy
from dream_jax.detector.methods.rotpred import rotations
from dream_jax.detector.mixing import draw_box
from dream_jax.detector.objective import make_objective
from dream_jax.detector.options import resolve
from dream_jax.detector.recipe import Recipe
from dream_jax.errors import UserError
from dream_jax.settings import OptimizerSettings
from dream_jax.training import devices
from dream_jax.training.loop import create_state, make_steps, transfer_calls
from dream_jax.training.optimizers import sgd

NAMES = (
    *("logit_norm", "t2fnorm", "cider", "rotpred", "regmixup"),
    *("mixoe", "mcd", "energy_fine_tuning"),
)
RNG = np.random.default_rng(0)
N, ID, REAL, FEATURES, CLASSES, SIDE = 12, 6, 11, 5, 3, 4  # the row behind REAL is padding
HEAD = {"kernel": RNG.normal(size=(FEATURES, CLASSES)), "bias": RNG.normal(size=CLASSES)}
ENCODER = RNG.normal(size=(SIDE * SIDE, FEATURES))
ROWS = {
    "images": RNG.random((N, SIDE, SIDE, 1)),
    "labels": np.arange(N) % CLASSES,
    "is_id": np.float32(np.arange(N) < ID),
    "real": np.float32(np.arange(N) < REAL),
}


def features_of(images) -> np.ndarray:
    """A network's features in float64; its logits are those of `HEAD`."""
    return np.maximum(np.asarray(images, np.float64).reshape(len(images), -1) @ ENCODER, 0)


def logits_of(features, head=HEAD) -> np.ndarray:
    return features @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"], np.float64)


def options_of(name: str, **given) -> dict:
    return resolve(f"method {name}", TRAININGS[name].options, given)


def own_of(name: str, options) -> Own:
    shape = Shape((SIDE, SIDE, 1), FEATURES, CLASSES)
    own = TRAININGS[name].init(jax.random.key(3), shape, options)
    if name == "cider":
        known = np.eye(CLASSES, options["projection"]).astype(np.float32)
        own = own._replace(state={"prototypes": known})
    return own


def shown(name: str, options, progress: float = 0.95):
    """The loss of `ROWS` by an objective's steps, and all that it was computed from."""
    training, own = TRAININGS[name], own_of(name, options)

    def program(batch):
        batch = batch | {"keys": devices.fold_keys(jax.random.key(5), batch["position"])}
        seen = Batch(
            *(jnp.float32(batch["images"]), batch["labels"], batch["is_id"], batch["real"]),
            *(batch["keys"], jax.random.key(6), batch["position"]),
        )
        seen, aside = training.show(seen, options) if training.show else (seen, None)
        z = jax.nn.relu(seen.images.reshape(len(seen.images), -1) @ jnp.float32(ENCODER))
        head = Head(jnp.float32(HEAD["kernel"]), jnp.float32(HEAD["bias"]))
        examples = Examples(
            *(seen.images, head(z), z, seen.labels, seen.is_id, seen.mask, seen.keys, seen.key),
            progress=jnp.float32(progress),
            head=head,
            aside=aside,
        )
        terms, state = training.terms(own, examples, options)
        means = {k: t.weight * devices.masked_mean(t.values, t.mask) for k, t in terms.items()}
        loss = {k: v for k, v in means.items() if terms[k].weight}
        return jax.lax.psum(loss, devices.AXIS), state, seen.images, seen.labels, aside

    found = devices.pmap(program)(devices.shard(ROWS))
    return own, *devices.unreplicate(found)


def cross_entropy(logits, labels) -> np.ndarray:
    return -log_softmax(np.asarray(logits, np.float64), axis=1)[np.arange(len(labels)), labels]


KNOWN, OUTLIERS = slice(0, ID), slice(ID, REAL)
LABELS = ROWS["labels"]


def numpy_logit_norm(own, state, images, labels, aside, options):
    logits = logits_of(features_of(ROWS["images"]))[KNOWN]
    length = np.sqrt((logits**2).sum(1, keepdims=True))
    return {"ce": cross_entropy(logits / length / 0.04, LABELS[KNOWN]).mean()}


def numpy_t2fnorm(own, state, images, labels, aside, options):
    z = features_of(ROWS["images"])[KNOWN]
    z = z / np.sqrt((z**2).sum(1, keepdims=True)) / 0.1
    return {"ce": cross_entropy(logits_of(z), LABELS[KNOWN]).mean()}


def numpy_cider(own, state, images, labels, aside, options):
    z = features_of(ROWS["images"])[KNOWN]
    hidden = np.maximum(logits_of(z, own.params["layer0"]), 0)
    z = logits_of(hidden, own.params["layer1"])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    prototypes = np.eye(CLASSES, options["projection"])
    for row, label in zip(z, LABELS[KNOWN], strict=True):  # scaled at the end, as NPOS's are here
        prototypes[label] = 0.95 * prototypes[label] + 0.05 * row
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    np.testing.assert_allclose(state["prototypes"], prototypes, atol=1e-5)
    apart = np.exp(prototypes @ prototypes.T / 0.1)
    others = (apart.sum(1) - np.diag(apart)) / (CLASSES - 1)
    ce = 2.0 * cross_entropy(z @ prototypes.T / 0.1, LABELS[KNOWN]).mean()
    return {"ce": ce, "dispersion": np.log(others).mean()}


def numpy_rotpred(own, state, images, labels, aside, options):
    known = ROWS["images"][KNOWN]
    turns = [np.rot90(known, turn, (1, 2)) for turn in range(4)]
    losses = [
        cross_entropy(logits_of(features_of(turned), own.params), np.full(ID, turn))
        for turn, turned in enumerate(turns)
    ]
    return {
        "ce": cross_entropy(logits_of(features_of(known)), LABELS[KNOWN]).mean(),
        "rotation": np.mean(losses),
    }


def numpy_regmixup(own, state, images, labels, aside, options):
    others, share = aside
    mixed = logits_of(features_of(images[N:][KNOWN]))
    first = cross_entropy(mixed, LABELS[KNOWN]).mean()
    second = cross_entropy(mixed, others[KNOWN]).mean()
    plain = logits_of(features_of(ROWS["images"][KNOWN]))
    return {
        "ce": cross_entropy(plain, LABELS[KNOWN]).mean(),
        "mixed": share * first + (1 - share) * second,
    }


def numpy_mixoe(own, state, images, labels, share, options):
    target = (1 - share) / CLASSES + share * np.eye(CLASSES)[labels[OUTLIERS]]
    log = log_softmax(logits_of(features_of(images[OUTLIERS])), axis=1)
    plain = logits_of(features_of(ROWS["images"][KNOWN]))
    return {
        "ce": cross_entropy(plain, LABELS[KNOWN]).mean(),
        "mixed": -(target * log).sum(1).mean(),
    }


def numpy_mcd(own, state, images, labels, aside, options):
    z = features_of(ROWS["images"])
    first, second = logits_of(z), logits_of(z, own.params)

    def entropy(logits):
        p = softmax(logits[OUTLIERS], axis=1)
        return -(p * np.log(p)).sum(1)

    return {
        "ce": cross_entropy(first[KNOWN], LABELS[KNOWN]).mean(),
        "second_ce": cross_entropy(second[KNOWN], LABELS[KNOWN]).mean(),
        "margin": max(1.2 - np.mean(entropy(first) - entropy(second)), 0),
    }


def numpy_energy_fine_tuning(own, state, images, labels, aside, options):
    logits = logits_of(features_of(ROWS["images"]))
    energy = -logsumexp(logits, axis=1)
    return {
        "ce": cross_entropy(logits[KNOWN], LABELS[KNOWN]).mean(),
        "inside": 0.1 * np.mean(np.maximum(energy[KNOWN] + 23, 0) ** 2),
        "outside": 0.1 * np.mean(np.maximum(-5 - energy[OUTLIERS], 0) ** 2),
    }


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_numpys(name):
    options = options_of(name)
    own, loss, *found = shown(name, options)
    expected = globals()[f"numpy_{name}"](own, *found, options)
    assert loss.keys() == expected.keys()
    for term, value in expected.items():
        np.testing.assert_allclose(loss[term], value, rtol=2e-4, err_msg=term)


@partial(jax.jit, static_argnums=0)
def terms_of(name: str, logits, z):
    unused = dict.fromkeys(("images", "keys", "key", "progress"))
    labels, ones = np.arange(len(z)) % CLASSES, np.ones(len(z), np.float32)
    head = Head(jnp.float32(HEAD["kernel"]), jnp.float32(HEAD["bias"]))
    examples = Examples(
        logits=logits, features=z, labels=labels, is_id=ones, mask=ones, head=head, **unused
    )
    return TRAININGS[name].terms(Own({}, {}), examples, options_of(name))[0]["ce"].values


def test_logit_norm_does_not_see_the_length_of_the_logits():
    logits = RNG.normal(size=(8, CLASSES)).astype(np.float32)
    loss, longer = (terms_of("logit_norm", scale * logits, logits) for scale in (1, 50))
    np.testing.assert_allclose(loss, longer, rtol=1e-4)
    gradient = jax.grad(lambda x: terms_of("logit_norm", x, x).sum())(logits)
    assert np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(np.sum(gradient * logits, axis=1), 0, atol=1e-4)
    zeros = np.zeros((2, CLASSES), np.float32)
    assert np.all(np.isfinite(jax.grad(lambda x: terms_of("logit_norm", x, x).sum())(zeros)))


def test_t2fnorm_sees_the_length_of_the_features_in_testing_alone():
    z = np.abs(RNG.normal(size=(8, FEATURES))).astype(np.float32)
    head = Head(jnp.float32(HEAD["kernel"]), jnp.float32(HEAD["bias"]))
    np.testing.assert_allclose(
        terms_of("t2fnorm", head(z), z), terms_of("t2fnorm", head(9 * z), 9 * z), rtol=1e-4
    )
    options, training = options_of("t2fnorm"), TRAININGS["t2fnorm"]

    class Model:
        def apply(self, variables, features):
            return head(features), features

    network = network_of(Model(), {"params": {"head": head._asdict()}})
    short, long = (training.evaluate(network, Own({}, {}), s * z, options) for s in (1, 9))
    np.testing.assert_allclose(long.features, 90 * z, rtol=1e-5)
    np.testing.assert_allclose(short.logits, logits_of(10.0 * z), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(long.logits, head(long.features), rtol=1e-5)


def test_regmixup_mixes_every_image_with_another_one_of_its_batch():
    _, _, _, images, labels, (others, share) = shown("regmixup", options_of("regmixup"))
    rows = np.arange(ID)
    np.testing.assert_array_equal(images[:N], np.float32(ROWS["images"]))
    pairs = share * images[:ID, None] + (1 - share) * images[None, :ID]
    partner = np.abs(pairs - images[N : N + ID, None]).max((2, 3, 4)).argmin(1)
    np.testing.assert_allclose(images[N : N + ID], pairs[rows, partner], atol=1e-6)
    assert sorted(partner) == list(rows) and not np.array_equal(partner, rows)
    np.testing.assert_array_equal(others[:ID], LABELS[partner])
    np.testing.assert_array_equal(labels, np.tile(LABELS, 2))


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_mixoe_mixes_outliers_with_images_and_their_labels(mix):
    _, _, _, images, labels, share = shown("mixoe", options_of("mixoe", mix=mix))
    before = np.float32(ROWS["images"])
    np.testing.assert_array_equal(images[:ID], before[:ID])
    np.testing.assert_array_equal(labels[:ID], LABELS[:ID])
    partners = []
    for row in range(ID, REAL):
        if mix == "mixup":
            mixed = share * before[:ID] + (1 - share) * before[row]
            partner = np.abs(mixed - images[row]).max((1, 2, 3)).argmin()
            np.testing.assert_allclose(images[row], mixed[partner], atol=1e-6)
        else:
            own, other = images[row] == before[row], images[row] == before[:ID]
            partner = other.sum((1, 2, 3)).argmax()
            assert np.all(own | other[partner]) and 0 < share < 1
            np.testing.assert_allclose(share, other[partner].mean())  # of the pixels
        assert labels[row] == LABELS[partner]
        partners.append(partner)
    assert len(set(partners)) == REAL - ID


def test_a_box_covers_what_is_not_kept():
    keys = jax.random.split(jax.random.key(0), 200)
    boxes = np.asarray(jax.vmap(lambda key: draw_box(key, (40, 20), 0.75))(keys))[..., 0]
    sides = boxes.any(2).sum(1), boxes.any(1).sum(1)
    assert np.array_equal(boxes.sum((1, 2)), sides[0] * sides[1])
    assert sides[0].max() == 20 and sides[1].max() == 10  # halves, where no edge cuts them off
    assert boxes.any(0).all()


def test_what_rotpred_says_of_an_image_is_its_own():
    options, training = options_of("rotpred"), TRAININGS["rotpred"]
    own, images = own_of("rotpred", options), np.float32(ROWS["images"])
    head = {name: jnp.float32(leaf) for name, leaf in HEAD.items()}

    class Model:
        def apply(self, variables, x):
            z = jax.nn.relu(x.reshape(len(x), -1) @ jnp.float32(ENCODER))
            return Head(**head)(z), z

    network = network_of(Model(), {"params": {"head": head}})
    evaluate = jax.jit(lambda x: training.evaluate(network, own, x, options))
    found = evaluate(images)
    p = softmax(logits_of(features_of(images)), axis=1)
    uniform = -np.log(CLASSES) - np.log(p).mean(1)
    loss = np.mean(
        [
            cross_entropy(
                logits_of(features_of(np.rot90(images, turn, (1, 2))), own.params),
                np.full(N, turn),
            )
            for turn in range(4)
        ],
        axis=0,
    )
    np.testing.assert_allclose(found.certainty, uniform - loss, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.features, features_of(images), rtol=1e-4, atol=1e-5)
    alone = evaluate(images[3:4])
    np.testing.assert_allclose(alone.certainty, found.certainty[3:4], rtol=1e-5)
    assert np.array_equal(rotations(images)[N : 2 * N], np.rot90(images, 1, (1, 2)))

    def operations(field: str) -> float:
        program = jax.jit(lambda x: getattr(training.evaluate(network, own, x, options), field))
        return program.lower(images).compile().cost_analysis()["flops"]

    assert operations("certainty") > 3 * operations("logits")  # which need no turned images


def test_discrepancy_is_the_sum_of_differences():
    first, second = RNG.normal(size=(2, 7, CLASSES)) * 3
    expected = np.abs(softmax(first, axis=1) - softmax(second, axis=1)).sum(1)
    np.testing.assert_allclose(discrepancy(first, second), expected, rtol=1e-5)


def test_the_margin_counts_from_its_start_on():
    for progress, some in ((0.89, False), (0.9, True)):
        _, loss, *_ = shown("mcd", options_of("mcd"), progress)
        assert (loss["margin"] > 0) == some


def test_margins_in_the_wrong_order_are_refused():
    options = options_of("energy_fine_tuning", inside=-5.0)
    with pytest.raises(UserError, match=r"inside is -5.0; it must be below outside = -5.0"):
        TRAININGS["energy_fine_tuning"].check(options, (28, 28, 1), np.zeros(9, int), 1)


# Short trainings of images with an orientation: a bright corner whose height tells the class.
STEPS, CALL = 200, 10
OPTIMIZER = OptimizerSettings(0.05, 1e-6, 0.0, 0.9, 5e-4, 0.0)
RECIPE = Recipe(0, 1, 31, 15, "none", 0.0, OPTIMIZER, 1, 1, 0)
SMALL = {
    "cider": {"projection": 8},
    "mcd": {"start": 0.02, "margin": 0.8},
    "energy_fine_tuning": {"inside": -6.0, "outside": -1.0},
}


class Network(nn.Module):
    """Two layers, in the shape of the project's ResNet: (logits, features)."""

    @nn.compact
    def __call__(self, images, train=False, mask=None):
        features = nn.relu(nn.Dense(24)(4 * images.reshape(len(images), -1) - 2))
        return nn.Dense(3, name="head")(features), features


def known(rng, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is where along the upper edge they are bright."""
    labels = np.arange(count) % 3
    images = 0.1 * rng.random((count, 4, 4, 1))
    images[np.arange(count), 0, labels] += 0.8
    return np.float32(images), labels


def unknown(rng, count: int) -> np.ndarray:
    """Images that are bright in the middle of two rows."""
    images = 0.1 * rng.random((count, 4, 4, 1))
    images[:, 1:3, 1:3] += 0.5
    return np.float32(images)


@cache
def prepared(name: str):
    """A training's fresh state on the devices, its program, its table and its batches."""
    rng = np.random.default_rng(0)
    images, labels = known(rng, 120)
    data = ImageSet("toy", Images.of(images), labels, ("a", "b", "c"))
    method, options = TRAININGS[name], options_of(name, **SMALL.get(name, {}))
    model = Network()
    variables = model.init(jax.random.key(0), images[:1])
    own = method.init(jax.random.key(1), Shape((4, 4, 1), 24, 3), options)
    variables = {"params": {"network": variables["params"], "method": own.params}}
    variables |= {"method": own.state} if own.state else {}
    optimizer = sgd(OPTIMIZER, STEPS)
    extra = ExtraImages([Images.of(unknown(rng, 40))]) if method.extra else None
    batches = make_batches(RECIPE, data, extra)
    objective = make_objective(model, method, options, RECIPE, STEPS)
    state = create_state(variables, optimizer, jax.random.key(2))
    state = jax.tree.map(np.asarray, state)
    return state, make_steps(objective, optimizer, None), batches


def train(name: str, until: int, state=None):
    """The state of a training on the host after so many steps, from a state on the host."""
    fresh, run, batches = prepared(name)
    state = fresh if state is None else state
    table, start = devices.replicate(batches.whole()), int(state.step)
    state = devices.replicate(state)
    calls = [range(step, step + CALL) for step in range(start, until, CALL)]
    for _, batch in transfer_calls(batches, calls, hold=True):
        state, _ = run(table, state, batch)
    return devices.unreplicate(state)


def arrays(state) -> dict[str, np.ndarray]:
    """All that a training leaves, by name."""
    tree = {"params": state.params, "state": state.model_state, "optimizer": state.opt_state}
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@cache
def trained(name: str):
    return train(name, STEPS)


TOGETHER = ("cider", "rotpred", "regmixup", "mixoe", "mcd")  # whose rows know of each other


def first_steps() -> dict[str, np.ndarray]:
    """The arrays of such trainings after a call of steps, MCD's margin begins in them."""
    made = {name: arrays(train(name, CALL)) for name in TOGETHER}
    return {name + key: leaf for name, own in made.items() for key, leaf in own.items()}


@takes_a_minute
def test_the_number_of_devices_does_not_matter(on_devices):
    """31 and 15 rows do not divide by 2 devices."""
    two, one = on_devices(2, first_steps), first_steps()
    assert two.keys() == one.keys()
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, atol=2e-4, rtol=2e-3, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_goes_on_is_that_of_one_run(name):
    resumed = arrays(train(name, STEPS, train(name, STEPS // 2)))
    jax.tree.map(np.testing.assert_array_equal, arrays(trained(name)), resumed)


def outputs(name: str, images) -> Outputs:
    state, options = trained(name), options_of(name, **SMALL.get(name, {}))
    own = Own(state.params["method"], state.model_state.get("method", {}))
    network = network_of(Network(), {"params": state.params["network"]})
    return TRAININGS[name].evaluate(network, own, images, options)


@pytest.mark.parametrize("name", NAMES)
def test_short_trainings_learn_the_classes(name):
    images, labels = known(np.random.default_rng(1), 60)
    assert np.mean(np.argmax(outputs(name, images).logits, axis=1) == labels) > 0.95


@pytest.mark.parametrize("name", ["rotpred", "mixoe", "mcd", "energy_fine_tuning"])
def test_outliers_are_told_by_the_score_of_the_paper(name):
    rng = np.random.default_rng(1)
    detector, score = DETECTORS[TRAININGS[name].detector], []
    for images in (known(rng, 60)[0], unknown(rng, 60)):
        inputs = make_inputs(lambda _, x: outputs(name, x), None, images)
        given = resolve("detector", detector.options, {})
        score.append(np.asarray(detector.score({}, inputs, given)))
    assert np.mean(score[0][:, None] > score[1][None]) > 0.95  # AUROC


def test_ciders_prototypes_are_far_apart():
    prototypes = np.float64(trained("cider").model_state["method"]["prototypes"])
    np.testing.assert_allclose(np.linalg.norm(prototypes, axis=1), 1, rtol=1e-5)
    cosines = (prototypes @ prototypes.T)[np.triu_indices(3, 1)]
    assert np.all(np.abs(cosines + 0.5) < 0.1)  # three vectors are farthest apart at 120 degrees


def test_rotpred_tells_the_rotations():
    images, _ = known(np.random.default_rng(1), 60)
    state = trained("rotpred")
    network = network_of(Network(), {"params": state.params["network"]})
    turned = Head(**state.params["method"])(network.apply(rotations(images)).features)
    assert np.mean(np.argmax(turned, axis=1) == np.repeat(np.arange(4), 60)) > 0.95


def test_mcds_layers_disagree_on_outliers():
    rng = np.random.default_rng(1)
    inside, outside = (-outputs("mcd", x).certainty for x in (known(rng, 60)[0], unknown(rng, 60)))
    assert np.mean(inside) < 0.2 < 0.5 < np.mean(outside)


def test_energy_fine_tuning_opens_the_gap_between_the_margins():
    rng = np.random.default_rng(1)
    inside, outside = (
        -logsumexp(outputs("energy_fine_tuning", x).logits, axis=1)
        for x in (known(rng, 60)[0], unknown(rng, 60))
    )
    assert np.mean(inside) < -5 and np.mean(outside) > -2
