"""The level-set loss, the judge of outliers, and what a training batch is made of."""

from dataclasses import replace as changed
from pathlib import Path

import jax
import numpy as np
import pytest

from dream_jax.checks import check
from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images
from dream_jax.detector.batches import make_batches
from dream_jax.detector.extra_images import ExtraImages
from dream_jax.detector.inputs import Head
from dream_jax.detector.judge import judge_outliers
from dream_jax.detector.methods import TRAININGS
from dream_jax.detector.methods.base import Examples, Own
from dream_jax.detector.methods.dream_ood import init_phi, level_set_loss, phi
from dream_jax.detector.methods.outlier_exposure import outlier_exposure_loss
from dream_jax.detector.objective import make_objective
from dream_jax.detector.recipe import Recipe, fields, recipe
from dream_jax.detector.scores import energy_score
from dream_jax.errors import UserError
from dream_jax.settings import view
from dream_jax.training.loop import Term

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "losses.npz"))
LINEAR = {"layer0": {"kernel": GOLDEN["phi_weight"].T, "bias": GOLDEN["phi_bias"]}}
LOGITS = np.concatenate([GOLDEN["id_logits"], GOLDEN["ood_logits"]])
IS_ID = np.repeat(np.float32([1, 0]), 32)


def examples(labels, mask) -> Examples:
    """The golden logits, ID rows and then outliers, as a training step's rows."""
    unused = dict.fromkeys(("images", "features", "keys", "key", "progress"))
    head = Head(None, None)
    return Examples(logits=LOGITS, labels=labels, is_id=IS_ID, mask=mask, head=head, **unused)


def test_outlier_exposure_loss_is_the_originals():
    loss = outlier_exposure_loss(GOLDEN["ood_logits"])
    np.testing.assert_allclose(loss.mean(), GOLDEN["outlier_exposure_loss"], rtol=1e-5)
    own, mask = Own({}, {}), np.ones(64, np.float32)
    terms, _ = TRAININGS["outlier_exposure"].terms(
        own, examples(np.zeros(64, int), mask), {"weight": 3}
    )
    exposure = terms["exposure"]
    assert exposure.weight == 3 and np.array_equal(exposure.mask, 1 - IS_ID)
    np.testing.assert_allclose(exposure.values[32:].mean(), loss.mean(), rtol=1e-5)


def test_level_set_loss_is_the_originals():
    loss = level_set_loss(LINEAR, energy_score(LOGITS), IS_ID)
    assert loss.shape == (64,)
    np.testing.assert_allclose(loss.mean(), GOLDEN["level_set_loss"], rtol=1e-5)


def test_terms_of_dream_ood_leave_outliers_out_of_the_cross_entropy():
    labels = np.random.default_rng(0).integers(100, size=64)
    mask = np.ones(64, np.float32)
    mask[-4:] = 0
    terms, _ = TRAININGS["dream_ood"].terms(
        Own(LINEAR, {}), examples(labels, mask), {"weight": 2.5}
    )
    mean = {
        k: np.average(np.float64(t.values), weights=np.float64(t.mask)) for k, t in terms.items()
    }
    x = LOGITS[:32].astype(np.float64)
    ce = np.log(np.exp(x).sum(1)) - x[np.arange(32), labels[:32]]
    np.testing.assert_allclose(mean["ce"], ce.mean(), rtol=1e-5)
    np.testing.assert_allclose(mean["accuracy"], np.mean(x.argmax(1) == labels[:32]))
    energy = np.log(np.exp(LOGITS.astype(np.float64)).sum(1))
    slope = GOLDEN["phi_weight"][1, 0] - GOLDEN["phi_weight"][0, 0]
    odds = slope * energy + GOLDEN["phi_bias"][1] - GOLDEN["phi_bias"][0]
    logistic = np.log1p(np.exp(np.where(IS_ID == 1, -odds, odds)))[:60]  # the paper's two terms
    np.testing.assert_allclose(mean["level_set"], logistic.mean(), rtol=1e-4)
    assert [terms[k].weight for k in ("ce", "accuracy", "level_set")] == [1.0, 0.0, 2.5]


@pytest.mark.parametrize("hidden", [0, 5])
def test_phi_is_linear_or_an_mlp_with_relu(hidden):
    layers = init_phi(jax.random.key(0), hidden)
    shapes = [layers[f"layer{i}"]["kernel"].shape for i in range(len(layers))]
    assert shapes == ([(1, 5), (5, 2)] if hidden else [(1, 2)])
    energy = np.float32([-3.0, 0.5, 12.0])
    out = energy[:, None] @ layers["layer0"]["kernel"] + layers["layer0"]["bias"]
    if hidden:
        out = np.maximum(out, 0) @ layers["layer1"]["kernel"] + layers["layer1"]["bias"]
    np.testing.assert_allclose(phi(layers, energy), out, rtol=1e-5, atol=1e-6)
    for i, inputs in enumerate([1, hidden][: len(layers)]):
        assert all(np.abs(leaf).max() <= inputs**-0.5 for leaf in layers[f"layer{i}"].values())


def test_energy_score_does_not_overflow():
    assert np.allclose(energy_score(np.float32([[1000, 1000], [-1000, -1000]])), [1000.7, -999.3])


def confident(shares) -> np.ndarray:
    """Logits of two-class softmax confidences, the first class's given."""
    shares = np.asarray(shares, np.float64)
    return np.log(np.stack([shares, 1 - shares], 1)).astype(np.float32)


def test_judge_outliers():
    logits = confident([0.99, 0.96, 0.5, 0.02, 0.90])
    labels = np.array([0, 1, 0, 0, 0])
    judged = judge_outliers(logits, labels, 0.95)
    assert judged.in_class == 1 / 5
    assert judged.in_any_class == 3 / 5
    assert np.array_equal(judged.kept, [2, 4])
    assert np.array_equal(judge_outliers(logits, labels, 1.0).kept, np.arange(5))
    assert np.array_equal(judge_outliers(logits, labels, 0.6).kept, [2])


def test_judge_matches_plain_numpy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 10)) * 4, rng.integers(10, size=200)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = p[np.arange(200), labels]
    judged = judge_outliers(logits, labels, 0.3)
    assert judged.in_class == np.mean(own >= 0.95)
    assert judged.in_any_class == np.mean(p.max(1) >= 0.95) > judged.in_class
    assert np.array_equal(judged.kept, np.flatnonzero(p.max(1) < 0.3))


def test_the_filter_keeps_exactly_the_band():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 10)) * 2, rng.integers(10, size=300)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    surest = p.max(1)
    least, most = np.sort(surest)[[90, 210]]  # both are confidences that occur
    judged = judge_outliers(logits, labels, float(most), float(least))
    assert np.array_equal(judged.kept, np.flatnonzero((surest >= least) & (surest < most)))
    assert (judged.too_unsure, len(judged.kept), judged.too_sure) == (90, 120, 90)
    below = judge_outliers(logits, labels, 1.0, float(least))
    assert (below.too_unsure, len(below.kept), below.too_sure) == (90, 210, 0)
    plain = judge_outliers(logits, labels, 1.0)
    assert (plain.too_unsure, len(plain.kept), plain.too_sure) == (0, 300, 0)
    assert (below.in_class, below.in_any_class) == (plain.in_class, plain.in_any_class)


@pytest.mark.parametrize(
    ("band", "words"),
    [
        ((0.5, 0.0), r"^config.classifier.filter_confidence is 0.5; it leaves out all 2 outliers"),
        ((1.0, 0.95), r"^config.classifier.filter_least_confidence is 0.95; it leaves out all 2"),
        ((0.88, 0.85), r"least_confidence is 0.85 and filter_confidence is 0.88; .* 1 and 1 of"),
    ],
)
def test_judge_refuses_to_keep_nothing(band, words):
    with pytest.raises(UserError, match=words) as raised:
        judge_outliers(confident([0.9, 0.8]), np.array([0, 0]), *band)
    assert "\n" not in str(raised.value)


# Every image is a constant that tells where it comes from: real images 0 to 29, their round trips
# 50 to 79, images by name 100 to 108, outliers 150 to 156, inliers 200 to 207.
def constants(start: int, count: int) -> Images:
    values = np.arange(start, start + count, dtype=np.uint8)
    return Images.of(np.broadcast_to(values[:, None, None, None], (count, 2, 2, 1)))


TRAIN = ImageSet("toy", constants(0, 30), np.arange(30) % 3, ("a", "b", "c"))
DECODED = ExtraImages(
    [constants(150, 3), constants(153, 4)],
    round_trips=constants(50, 30),
    by_name=constants(100, 9),
    by_name_labels=np.arange(9) % 3,
)


def settings(seed: int = 0, **changes) -> Recipe:
    own = {"epochs": 1, "batch_size": 20, "extra_batch_size": 6, "augment": "none", "degrade": 0.0}
    own |= {"by_name_share": 0.25, "round_trip_share": 0.4, "optimizer": None, "workers": 0}
    return Recipe(seed=seed, save_every=1, eval_batch_size=1, **own | changes)


def sources(batch) -> np.ndarray:
    return batch["images"][:, 0, 0, 0].astype(int)


def test_plain_batches_are_epochs_of_real_images():
    batches = [make_batches(settings(), TRAIN, None).at(step) for step in range(3)]
    for batch in batches:
        assert np.array_equal(batch["is_id"], np.ones(20))
        assert np.array_equal(batch["labels"], sources(batch) % 3)
    seen = np.concatenate([sources(batch) for batch in batches])
    assert np.array_equal(np.sort(seen), np.repeat(np.arange(30), 2))


def test_batches_with_outliers_have_the_shares_asked_for():
    batches = make_batches(settings(), TRAIN, DECODED)
    round_trips = 0
    for step in range(60):
        batch = batches.at(step)
        source = sources(batch)
        kind = source // 50
        assert np.array_equal(batch["is_id"], [1] * 20 + [0] * 6)
        assert np.all(kind[:15] <= 1) and np.all(kind[15:20] == 2) and np.all(kind[20:] == 3)
        assert np.array_equal(batch["labels"][:15], source[:15] % 50 % 3)  # a round trip keeps it
        assert np.array_equal(batch["labels"][15:20], (source[15:20] - 100) % 3)
        assert np.all(np.isin(batch["labels"], range(3)))
        round_trips += np.sum(kind == 1)
    # 900 draws with probability 0.4: five standard deviations are 0.08
    assert abs(round_trips / 900 - 0.4) < 0.08


@pytest.mark.parametrize(("share", "kind"), [(0.0, 0), (1.0, 1)])
def test_round_trip_share_none_and_all(share, kind):
    batch = make_batches(settings(round_trip_share=share), TRAIN, DECODED).at(0)
    assert np.all(sources(batch)[:15] // 50 == kind)


def test_batches_without_round_trips_and_names():
    batch = make_batches(settings(), TRAIN, ExtraImages([constants(150, 7)])).at(0)
    assert np.array_equal(sources(batch) // 50, [0] * 20 + [3] * 6)


def test_inliers_are_id_rows_with_their_labels():
    extra = ExtraImages([constants(200, 4), constants(204, 4)], labels=np.arange(8) % 3)
    batch = make_batches(settings(), TRAIN, extra).at(1)
    assert np.array_equal(batch["is_id"], np.ones(26))
    assert np.array_equal(sources(batch) // 50, [0] * 20 + [4] * 6)
    assert np.array_equal(batch["labels"][20:], (sources(batch)[20:] - 200) % 3)


def test_outliers_are_shown_as_patches_of_their_files():
    """Each a random place of the file with a black border of 4 pixels; nothing else changes."""
    files = np.random.default_rng(0).integers(1, 256, (7, 5, 5, 1), np.uint8)
    extra = changed(DECODED, images=[Images.of(files[:3]), Images.of(files[3:])])
    whole = make_batches(settings(), TRAIN, DECODED)
    patches = make_batches(settings(outlier_view="patches"), TRAIN, extra)
    padded = np.pad(files, ((0, 0), (4, 4), (4, 4), (0, 0)))
    seen = set()
    for step in range(80):
        batch, other = patches.at(step), whole.at(step)
        for name in ("labels", "is_id"):
            assert np.array_equal(batch[name], other[name])
        assert np.array_equal(batch["images"][:20], other["images"][:20])
        for number, patch in zip(sources(other)[20:] - 150, batch["images"][20:], strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(padded[number, ..., 0], (2, 2))
            found = np.argwhere((windows == patch[..., 0]).all((2, 3)))
            assert len(found)
            seen |= {tuple(found[0])} if len(found) == 1 else set()
    assert len(seen) > 30  # of the 36 places where a patch has a pixel of its own
    again = make_batches(settings(outlier_view="patches"), TRAIN, extra).at(79)
    assert np.array_equal(again["images"], batch["images"])
    assert not np.array_equal(patches.at(0)["images"][20:], patches.at(7)["images"][20:])


class Seen:
    """Stands for a network; its logits and features are the images that it was shown."""

    def apply(self, variables, images, **settings):
        return (images, images), {}


def test_patches_are_not_cut_again_by_the_augmentation():
    values = np.random.default_rng(0).integers(1, 256, (40, 6, 6, 1), np.uint8)
    is_id, keys = np.repeat(np.float32([1, 0]), 20), jax.random.split(jax.random.key(0), 40)
    batch = {"images": values, "labels": np.zeros(40, int), "is_id": is_id, "mask": np.ones(40)}
    batch |= {"key": keys[0], "step": 0}
    params = {"network": {"head": {"kernel": None, "bias": None}}, "method": {}}
    training = changed(
        TRAININGS["cross_entropy"],
        terms=lambda own, shown, options: ({"seen": Term(shown.images, shown.mask)}, own.state),
    )
    for view_of, whole in (("patches", 20), ("whole", 0)):
        own = settings(augment="crop_flip", outlier_view=view_of)
        terms, _ = make_objective(Seen(), training, {}, own, 10)(params, {}, batch, keys)
        seen, images = np.asarray(terms["seen"].values), values.astype(np.float32) / 255
        same = [(seen == other).all((1, 2, 3)) for other in (images, images[:, :, ::-1])]
        uncut = same[0] | same[1]
        assert uncut[20:].sum() >= whole and uncut[:20].sum() < 5  # 1 cut in 81 changes nothing
        assert whole or uncut[20:].sum() < 5
        assert not whole or 3 < same[1][20:].sum() < 17


def test_every_outlier_and_image_by_name_comes_up():
    batches = make_batches(settings(), TRAIN, DECODED)
    seen = set(np.concatenate([sources(batches.at(step)) for step in range(9)]))
    assert set(range(100, 109)) | set(range(150, 157)) <= seen


def test_batches_depend_on_step_and_seed_only():
    first, second = (make_batches(settings(), TRAIN, DECODED) for _ in range(2))
    first.at(0)  # what was asked before does not matter
    assert np.array_equal(sources(first.at(5)), sources(second.at(5)))
    assert not np.array_equal(sources(first.at(5)), sources(first.at(6)))
    other = make_batches(settings(seed=1), TRAIN, DECODED)
    assert not np.array_equal(sources(first.at(5)), sources(other.at(5)))


@pytest.mark.parametrize("hidden", [0, 32])
@pytest.mark.parametrize("seed", range(8))
def test_phi_starts_with_higher_energies_as_more_id(hidden, seed):
    layers = init_phi(jax.random.key(seed), hidden)
    logits = np.asarray(phi(layers, np.linspace(-20, 20, 41)))
    assert np.all(np.diff(logits[:, 1] - logits[:, 0]) > 0)


@pytest.mark.parametrize("init_from", ["", "cross_entropy", "a/folder/checkpoints"])
@pytest.mark.parametrize("name", TRAININGS)
def test_a_recipe_reads_the_fields_that_it_declares(toy, name, init_from):
    config = toy.config()
    config.init_from = init_from
    config.fine_tune.epochs = 7
    settings, read = check(config), set()
    declared = fields(TRAININGS[name], init_from)
    made = recipe(view(settings, declared, read), TRAININGS[name], seed=3)
    assert read == set(declared)
    fine_tuned = name == "energy_fine_tuning" or (init_from and name in ("dream_ood", "bood"))
    assert made.epochs == (7 if fine_tuned else 1)
    assert made.seed == 3 and bool(made.extra_batch_size) == bool(TRAININGS[name].extra)
    real = ("outlier_exposure", "energy_fine_tuning", "mcd", "mixoe")
    assert made.watched == (name in ("dream_ood", "bood", *real))
