"""Detectors against plain computations in NumPy, image by image; and what defines each."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logsumexp, softmax
from shown import evaluate_on, with_layers
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from dream_jax import detectors
from dream_jax.detector.detectors import DETECTORS, FitData, ash, base, gmm, knn_chosen, nac_ue
from dream_jax.detector.detectors.gram import HELD_OUT, correlations, held_out
from dream_jax.detector.detectors.rankfeat import leading_part
from dream_jax.detector.detectors.scale import scale
from dream_jax.detector.detectors.statistics import column_quantiles
from dream_jax.detector.detectors.vra import rectify
from dream_jax.detector.detectors.weiper import perturbed_head
from dream_jax.detector.inputs import Head, Outputs
from dream_jax.detector.scoring import fit_detectors, scorer
from dream_jax.errors import UserError

RNG = np.random.default_rng(0)
D, CLASSES = 8, 3
CENTRES = RNG.random((CLASSES, D)) * 3
Y = np.arange(240) % CLASSES
Z = np.maximum(CENTRES[Y] + RNG.normal(size=(240, D)), 0).astype(np.float32)
TEST = np.maximum(RNG.normal(1.0, 1.5, size=(40, D)), 0).astype(np.float32)
TEST[0] = 0
W = (CENTRES - CENTRES.mean(0) + RNG.normal(size=(CLASSES, D)) / 5).T.astype(np.float32)
HEAD = Head(W, np.array([0.3, -0.2, 0.1], np.float32))


def network(head, x, added=None) -> Outputs:
    """Features in the place of images."""
    features, layers = with_layers(x, added)
    return Outputs(features @ head.kernel + head.bias, features, layers=layers)


DATA = FitData(Z, Y, HEAD, evaluate=evaluate_on(network, HEAD, Z))
WIDE, KERNEL, BIAS = (np.asarray(a, np.float64) for a in (Z, W, HEAD.bias))
KNOWN = WIDE @ KERNEL + BIAS  # logits of the fitting data


def fit(name: str, data: FitData = DATA, **options):
    return fit_detectors({"row": (name, options)}, data)["row"]


def scores(name: str, x: np.ndarray = TEST, **options) -> np.ndarray:
    return scorer(network, HEAD, {"row": fit(name, **options)}, 64)(x)[1]["row"]


def logits_of(z):
    return z @ KERNEL + BIAS


def energy(z):
    return logsumexp(logits_of(z))


def cut(z, share):
    kept = len(z) - round(len(z) * share)
    return np.where(np.arange(len(z))[np.argsort(np.argsort(-z, kind="stable"))] < kept, z, 0)


def by_scale(z, share=0.85):
    small = cut(z, share).sum()
    return energy(z * np.exp(z.sum() / small)) if small else energy(z)


def by_ash_p(z, share=0.6):
    return energy(cut(z, share))


def by_ash_b(z, share=0.65):
    small = cut(z, share)
    places = np.argsort(-z, kind="stable")[: len(z) - round(len(z) * share)]
    small[places] = z.sum() / len(places)
    return energy(small)


def by_vra(z, low=0.6, high=0.9, shift=0.5):
    a, b = np.quantile(WIDE, low, axis=0), np.quantile(WIDE, high, axis=0)
    shaped = [0 if v < a[i] else b[i] if v > b[i] else v + shift for i, v in enumerate(z)]
    return energy(np.array(shaped))


def by_fdbd(z):
    f, centre = logits_of(z), WIDE.mean(0)
    a = f.argmax()
    distances = [
        (f[a] - f[c]) / np.linalg.norm(KERNEL[:, a] - KERNEL[:, c])
        for c in range(CLASSES)
        if c != a
    ]
    return np.mean(distances) / np.linalg.norm(z - centre)


def by_nci(z, alpha=0.01):
    apart = z - WIDE.mean(0)
    w = KERNEL[:, logits_of(z).argmax()]
    cosine = w @ apart / np.linalg.norm(w) / np.linalg.norm(apart)
    return cosine * np.linalg.norm(w) + alpha * np.abs(z).sum()


def by_gradnorm(z):
    """The gradient by differences."""
    total, step = 0.0, 1e-6

    def loss(kernel):
        return -np.mean(log_softmax(z @ kernel + BIAS))

    for place in np.ndindex(*KERNEL.shape):
        moved = np.zeros_like(KERNEL)
        moved[place] = step
        total += abs(loss(KERNEL + moved) - loss(KERNEL - moved)) / (2 * step)
    return total


def by_residual(z, dimension=5):
    origin = np.linalg.lstsq(KERNEL.T, -BIAS)[0]
    right = np.linalg.svd(WIDE - origin)[2]
    return -np.linalg.norm(right[dimension:] @ (z - origin))


def by_relation(z, power=2.0, threshold=0.03):
    p, known = softmax(logits_of(z)), softmax(KNOWN, axis=1)
    total = 0.0
    for other, probabilities in zip(WIDE, known, strict=True):
        length = np.linalg.norm(z) * np.linalg.norm(other)
        relation = max(0.0, z @ other / length if length else 0.0) * (p @ probabilities)
        total += relation**power if relation > threshold else 0.0
    return total / len(WIDE)


def by_temp_scale(z):
    def loss(beta):
        return -np.mean(log_softmax(beta * KNOWN, axis=1)[np.arange(len(Y)), Y])

    beta = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10}).x
    p = softmax(logits_of(z) * beta).max()
    return np.log(p / (1 - p))


def by_weiper(z, repeats=6, bins=10, distance=1.8):
    head = perturbed_head(HEAD, repeats, distance)
    total = 0.0
    descriptions = (
        (lambda x: x, 3, 0.01, 1.0),
        (lambda x: x @ head.kernel + head.bias, 4, 0.025, 2.5),
    )
    for described, size, floor, weight in descriptions:
        known = described(WIDE)
        ends = np.linspace(known.min(), known.max(), bins + 1)
        usual = np.mean([np.histogram(x, ends)[0] / len(x) for x in known], axis=0)
        own = np.histogram(described(z), ends)[0] / len(described(z))
        before = (size - 1) // 2
        padded = np.concatenate([[own[0]] * before, own, [own[-1]] * (size - 1 - before)])
        own = np.convolve(padded, np.ones(size) / size, mode="valid")
        p, q = usual + floor, own + floor
        p, q = p / p.sum(), q / q.sum()
        total += weight * (np.sum(p * np.log(p / q)) + np.sum(q * np.log(q / p)))
    msp = [softmax(x).max() for x in (z @ head.kernel + head.bias).reshape(repeats, CLASSES)]
    return 0.1 * np.mean(msp) - total


def states(z, pooled: bool):
    p = softmax(logits_of(z))
    gradient = KERNEL @ (p - 1 / CLASSES)
    if not pooled:
        return z * gradient
    return z.reshape(2, -1).sum(0) * gradient.reshape(2, -1).sum(0)


def by_nac_ue(z, inner: bool = True, images=60):
    rows = [i for c in range(CLASSES) for i in np.flatnonzero(c == Y)[: images // CLASSES]]
    means = []
    layers = [("stage1", nac_ue.INNER["stage1"])] if inner else []
    for name, layer in [*layers, ("features", nac_ue.Layer(50, 50, 100.0))]:
        half = [np.log(v) / np.log(1000) for v in np.linspace(1, 1000**0.5, layer.bins // 2 + 1)]
        edges = np.array([*half, *(1 - v for v in reversed(half[:-1]))])[1:-1]

        def bins(x, pooled=name != "features", layer=layer, edges=edges):
            return np.digitize(expit(layer.steepness * states(x, pooled)), edges)

        known, own = np.array([bins(WIDE[i]) for i in rows]), bins(z)
        counts = np.array([np.sum(known[:, i] == at) for i, at in enumerate(own)])
        means.append(np.minimum(counts / layer.least, 1).mean())
    return np.mean(means)


def gram_values(z, powers):
    maps = z.reshape(2, -1).T  # channels × positions
    return np.array(
        [np.sum((maps**p) @ (maps**p).T, axis=1) ** (1 / p) for p in range(1, powers + 1)]
    )


def outside(values, low, high):
    below = np.maximum(low - values, 0) / np.abs(low + 1e-6)
    return np.sum(below + np.maximum(values - high, 0) / np.abs(high + 1e-6))


def by_gram(z, powers=3):
    """Of two equal layers."""
    known, out = np.array([gram_values(x, powers) for x in WIDE]), np.zeros(len(Y), bool)
    for c in range(CLASSES):
        out[np.flatnonzero(c == Y)[9::10]] = True
    ends = [(known[(c == Y) & ~out].min(0), known[(c == Y) & ~out].max(0)) for c in range(CLASSES)]
    usual = np.mean([outside(known[i], *ends[Y[i]]) for i in np.flatnonzero(out)])
    p = softmax(logits_of(z))
    return -2 * outside(gram_values(z, powers), *ends[p.argmax()]) / usual / p.max()


def by_rankfeat(z):
    u, s, v = np.linalg.svd(z.reshape(2, -1), full_matrices=False)
    return energy((z.reshape(2, -1) - s[0] * np.outer(u[:, 0], v[0])).ravel())


CASES = {
    "scale": (by_scale, {}),
    "ash_p": (by_ash_p, {}),
    "ash_b": (by_ash_b, {}),
    "vra": (by_vra, {"shift": 0.5}),
    "fdbd": (by_fdbd, {}),
    "nci": (by_nci, {"alpha": 0.01}),
    "gradnorm": (by_gradnorm, {}),
    "residual": (by_residual, {"dimension": 5}),
    "relation": (by_relation, {"power": 2.0}),
    "temp_scale": (by_temp_scale, {}),
    "weiper": (by_weiper, {"repeats": 6, "bins": 10, "smoothing": 3, "smoothing_perturbed": 4}),
    "nac_ue": (by_nac_ue, {"images": 60}),
    "gram": (by_gram, {"powers": 3}),
    "rankfeat": (by_rankfeat, {}),
}
# A value on the edge of a bin may lie in either.
IN_BINS = {"weiper": 3, "nac_ue": 2}


@pytest.mark.parametrize("name", CASES)
def test_by_numpy(name, monkeypatch):
    monkeypatch.setattr(base, "ROWS_AT_ONCE", 100)
    function, options = CASES[name]
    found = scores(name, **options)
    expected = np.array([function(z) for z in TEST.astype(np.float64)])
    close = np.isclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.sum(~close) <= IN_BINS.get(name, 0), (found[~close], expected[~close])


def test_without_the_network_itself():
    """By arrays of layers, features and logits alone."""
    found = detectors.nac_ue(layers="penultimate", images=60)
    found = found.fit(Z, Y, head=HEAD).score(TEST)
    expected = [by_nac_ue(z, inner=False) for z in TEST.astype(np.float64)]
    assert np.sum(~np.isclose(found, expected, rtol=1e-4, atol=1e-5)) <= IN_BINS["nac_ue"]
    small = Head(W[:4], HEAD.bias)  # of features that are means over the positions
    maps = ({"last": x.reshape(-1, 2, 1, 4)} for x in (Z, TEST))
    own, new = ({"features": x["last"].mean((1, 2)), "layers": x} for x in maps)
    found = detectors.rankfeat(blocks="last")
    found = found.fit(**own, labels=Y, head=small).score(**new)
    for z, score in zip(TEST.astype(np.float64), found, strict=True):
        u, s, v = np.linalg.svd(z.reshape(2, 4), full_matrices=False)
        rest = np.mean(z.reshape(2, 4) - s[0] * np.outer(u[:, 0], v[0]), axis=0)
        assert score == pytest.approx(logsumexp(rest @ small.kernel + small.bias), abs=1e-4)
    found = detectors.gram(powers=3).fit(
        Z, Y, HEAD, layers={"b": Z.reshape(-1, 2, 1, 4), "a": Z.reshape(-1, 2, 1, 4)}
    )
    found = found.score(
        TEST, layers={"b": TEST.reshape(-1, 2, 1, 4), "a": TEST.reshape(-1, 2, 1, 4)}
    )
    np.testing.assert_allclose(found, scores("gram", powers=3), rtol=1e-4, atol=1e-5)


def test_activation_shaping():
    scaled, pruned = np.asarray(scale(TEST, 0.5)), np.asarray(ash.prune(TEST, 0.5))
    assert np.array_equal(scaled == 0, TEST == 0)  # nothing is cut, and the class stays
    assert np.array_equal(np.argmax(scaled @ W, 1), np.argmax(TEST @ W, 1))
    assert np.all((pruned == TEST) | (pruned == 0)) and np.all(np.sum(pruned > 0, 1) <= D // 2)
    binary = np.asarray(ash.binarise(TEST, 0.5))
    np.testing.assert_allclose(binary.sum(1), TEST.sum(1), rtol=1e-5)
    assert all(len(set(row[row > 0])) <= 1 for row in binary)
    low, high = np.full(D, 1.0), np.full(D, 2.0)
    values = np.array([[0.5, 0.99, 1.0, 1.5, 2.0, 2.01, 9.0, 0.0]])
    expected = [[0, 0, 1.25, 1.75, 2.25, 2, 2, 0]]
    np.testing.assert_allclose(rectify(values, low, high, 0.25), expected)
    with pytest.raises(UserError, match=r"vra: low is 0\.95 and high is 0\.9; low must be at most"):
        fit("vra", low=0.95)


def test_quantiles_of_columns_in_blocks(monkeypatch):
    monkeypatch.setattr("dream_jax.detector.detectors.statistics.COLUMN_BYTES", 8 * len(Z) * 3)
    found = column_quantiles(Z, (0.6, 0.9))
    np.testing.assert_allclose(found, np.quantile(WIDE, (0.6, 0.9), axis=0), rtol=1e-12)


def test_fdbd_is_the_distance_to_where_another_class_takes_over():
    two = Head(W[:, :2], HEAD.bias[:2])
    state = DETECTORS["fdbd"].fit(FitData(Z, Y % 2, two), {})
    z = TEST[3].astype(np.float64)
    logits = z @ two.kernel + two.bias
    a, c = int(logits.argmax()), int(logits.argmin())
    apart = np.asarray(two.kernel, np.float64)[:, c] - two.kernel[:, a]
    distance = (logits[a] - logits[c]) * state["inverse"][a, c]
    moved = (z + distance * apart / np.linalg.norm(apart)) @ two.kernel + two.bias
    assert np.isclose(moved[0], moved[1], atol=1e-5)


def test_gradnorm_of_a_uniform_softmax_is_nothing():
    score = DETECTORS["gradnorm"].score
    inputs = network(Head(np.zeros((D, 3)), np.zeros(3)), TEST)
    assert np.allclose(score({}, inputs, {"temperature": 1.0}), 0)


def test_vim_is_the_energy_less_a_multiple_of_the_residual():
    vim, residual = scores("vim", dimension=5), scores("residual", dimension=5)
    rest = (vim - scores("energy")) / residual
    np.testing.assert_allclose(rest, np.median(rest), rtol=1e-3)


def test_the_leading_part_has_rank_one():
    maps = RNG.normal(size=(4, 2, 3, 5)).astype(np.float32)
    maps[0] = np.outer(np.arange(6), np.arange(5)).reshape(2, 3, 5)
    maps[1] = 0
    for shape in ((4, 2, 3, 5), (4, 1, 5, 6)):  # more positions than channels, and fewer
        given = maps.reshape(shape)
        found = np.asarray(leading_part(given)).reshape(4, -1, shape[-1])
        for own, part in zip(given.reshape(4, -1, shape[-1]), found, strict=True):
            u, s, v = np.linalg.svd(own)
            np.testing.assert_allclose(part, s[0] * np.outer(u[:, 0], v[0]), atol=2e-4)


def test_correlations_are_those_of_gram_matrices():
    maps = np.maximum(RNG.normal(size=(3, 2, 2, 4)), 0).astype(np.float32) * 50
    found = np.asarray(correlations(maps, 10))
    for own, values in zip(maps.astype(np.float64), found, strict=True):
        flat = own.reshape(4, 4).T
        for p in range(1, 11):  # whose 20th powers are beyond float32
            expected = np.sum((flat**p) @ (flat**p).T, axis=1) ** (1 / p)
            np.testing.assert_allclose(values[p - 1], expected, rtol=2e-5, atol=1e-3)


def test_gram_ranges_hold_what_they_were_made_of():
    own = (KNOWN.argmax(1) == Y) & ~held_out(Y)
    assert np.all(scores("gram", Z[own], powers=4) > -0.05)
    assert np.sum(held_out(Y)) == len(Y) // HELD_OUT
    few = FitData(Z[:5], np.arange(5) % 2, HEAD, evaluate=evaluate_on(network, HEAD, Z[:5]))
    with pytest.raises(UserError, match="gram: class 2 has no training image"):
        fit("gram", few)
    both = FitData(Z[:6], np.arange(6) % 3, HEAD, evaluate=evaluate_on(network, HEAD, Z[:6]))
    assert fit("gram", both, powers=2).state["stage1"]["scale"] == 1  # none is held out


def test_covered_states_score_one_and_others_nothing():
    """One image, many times, covers its own states and no others."""
    z = np.repeat(Z[:1], 60, axis=0)
    data = FitData(z, np.zeros(60, int), HEAD, evaluate=evaluate_on(network, HEAD, z))
    options = {"layers": "penultimate", "least": 10}
    fitted = {"row": fit("nac_ue", data, **options)}
    test = np.stack([Z[0], Z[1] * 5])
    found = scorer(network, HEAD, fitted, 64)(test)[1]["row"]
    assert found[0] == 1 and found[1] < 0.6


def test_relations_of_what_is_at_right_angles_are_nothing():
    z = np.eye(4, D, dtype=np.float32)
    head = Head(np.zeros((D, 3), np.float32), np.zeros(3, np.float32))
    data = FitData(z, np.arange(4) % 3, head)
    fitted = {"row": fit("relation", data)}
    test = np.concatenate([z[:1], np.eye(D, dtype=np.float32)[5:6]])
    found = scorer(network, head, fitted, 64)(test)[1]["row"]
    np.testing.assert_allclose(found, [1 / 3 / 4, 0], atol=1e-6)


def test_a_perturbed_head_without_noise_is_the_head():
    head = perturbed_head(HEAD, 3, 0.0)
    np.testing.assert_allclose(head.kernel, np.tile(KERNEL, 3))
    noisy = perturbed_head(HEAD, 3, 1.8).kernel - np.tile(KERNEL, 3)
    lengths = np.linalg.norm(noisy, axis=0) / np.tile(np.linalg.norm(KERNEL, axis=0), 3)
    np.testing.assert_allclose(lengths, 1.8)


def test_temperature_of_logits_whose_scale_is_known():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 4)) * 2
    p = softmax(logits, axis=1)
    labels = np.array([rng.choice(4, p=own) for own in p])
    for factor, expected in ((3.0, 3.0), (0.5, 0.5), (1e3, 20.0)):
        data = FitData(np.zeros((20_000, 1)), labels, given_logits=factor * logits)
        assert fit("temp_scale", data).state["temperature"] == pytest.approx(expected, rel=0.05)
    right = FitData(np.zeros((20_000, 1)), logits.argmax(1), given_logits=logits)
    assert fit("temp_scale", right).state["temperature"] == pytest.approx(0.05)


def test_a_mixture_of_one_component_is_a_gaussian():
    found = scores("gmm", components=1, dimension=0)
    centre, covariance = WIDE.mean(0), np.cov(WIDE.T, bias=True)
    apart = TEST - centre
    expected = -np.sum(apart @ np.linalg.inv(covariance) * apart, axis=1) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_mixture_is_scikit_learns(monkeypatch):
    monkeypatch.setattr(base, "ROWS_AT_ONCE", 100)
    space = gmm.subspace(DATA, 5)
    start = gmm.start(DATA, space, 4)
    ridge = gmm.RIDGE * np.mean(space.variances)
    mixture = start
    for _ in range(20):
        mixture, _ = gmm.improve(DATA, space, mixture)
    x = space(WIDE)
    other = GaussianMixture(
        4, covariance_type="tied", reg_covar=ridge, max_iter=20, tol=0,
        weights_init=start.weights, means_init=start.means,
        precisions_init=np.linalg.inv(start.covariance),
    )  # fmt: skip
    with pytest.warns(match="did not converge"):
        other.fit(x)
    np.testing.assert_allclose(mixture.means, other.means_, atol=1e-3)
    np.testing.assert_allclose(mixture.covariance, other.covariances_, atol=1e-3)
    own = logsumexp(gmm.log_terms(x, mixture), axis=1)
    apart = own - other.score_samples(x)
    np.testing.assert_allclose(apart, np.median(apart), atol=1e-3)
    for name, options, words in [
        ("gmm", {"components": 241}, "gmm: components is 241; it must be at most 240"),
        ("residual", {"dimension": 8}, "residual: dimension is 8; it must be below 8"),
    ]:
        with pytest.raises(UserError, match=words):
            fit(name, **options)


def test_k_is_the_one_that_tells_features_from_points_between_classes_best():
    stored = np.float32(Z / np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), 1e-12))
    rows = np.arange(len(Y))
    outliers = knn_chosen.between(stored, Y, rows)
    assert len(outliers) == len(rows)
    np.testing.assert_allclose(np.linalg.norm(outliers, axis=1), 1, atol=1e-5)
    # Half-way between its two parents, each has the same cosine to both, of two classes.
    cosines = outliers @ stored.T
    parents = [np.flatnonzero(np.isclose(own, own.max(), atol=1e-6)) for own in cosines[:20]]
    assert not any(set(Y[own]) == {0, 1, 2} for own in parents)

    def auroc(k):
        inside = [np.sort(np.linalg.norm(stored - z, axis=1))[k] for z in stored]
        away = [np.sort(np.linalg.norm(stored - z, axis=1))[k - 1] for z in outliers]
        return roc_auc_score(np.repeat([0, 1], [len(inside), len(away)]), inside + away)

    measured = {k: auroc(k) for k in knn_chosen.NEIGHBOURS if k < len(Y)}
    chosen = knn_chosen.choose_k(stored, Y)
    assert measured[chosen] == pytest.approx(max(measured.values()), abs=1e-4)
    test = np.float32(TEST / np.maximum(np.linalg.norm(TEST, axis=1, keepdims=True), 1e-12))
    expected = [-np.sort(np.linalg.norm(stored - z, axis=1))[chosen - 1] for z in test[1:]]
    np.testing.assert_allclose(scores("knn_chosen")[1:], expected, atol=1e-5)
    with pytest.raises(UserError, match="of at least two classes"):
        fit("knn_chosen", FitData(Z, np.zeros(len(Y), int), HEAD))


def test_states_hold_no_images_of_most_detectors():
    """What is fitted to a million images takes no more than what is fitted to a hundred."""
    stores = {"knn", "nnguide", "knn_chosen", "relation"}
    half = FitData(Z[:120], Y[:120], HEAD, evaluate=evaluate_on(network, HEAD, Z[:120]))
    for name in (name for name, one in DETECTORS.items() if not one.made_for):
        small = {"dimension": 5, "components": 3, "k": 3, "powers": 2, "repeats": 2}
        own = {key: small[key] for key in small if key in DETECTORS[name].options}
        sizes = [
            sum(leaf.size for leaf in jax.tree.leaves(fit(name, data, **own).state))
            for data in (half, DATA)
        ]
        assert (sizes[0] != sizes[1]) == (name in stores), name
