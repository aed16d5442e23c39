"""Zero-shot scores against NumPy; a tiny random CLIP against PyTorch's where it is installed."""

import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import logsumexp, softmax

from dream_jax.checks import check
from dream_jax.data.images import Images
from dream_jax.errors import UserError
from dream_jax.evaluation.evaluators.zero_shot import scores_of, texts_of
from dream_jax.miniature.tokenizer import train_tokenizer
from dream_jax.origins import fingerprint
from dream_jax.pipeline import make_run, possible_run
from dream_jax.rows import make_rows
from dream_jax.zero_shot import clip as clip_module
from dream_jax.zero_shot.clip import Clip, encode_images, load
from dream_jax.zero_shot.folder import find
from dream_jax.zero_shot.rows import read_words, without_weights
from dream_jax.zero_shot.scores import choose_negatives, gl_mcm, mcm, neg_label

RNG = np.random.default_rng(0)


def units(*shape) -> np.ndarray:
    vectors = RNG.normal(size=shape)
    return np.float32(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


TEXTS, WORDS, IMAGES, PLACES = units(4, 6), units(25, 6), units(7, 6), units(7, 9, 6)


def test_mcm_and_its_local_form():
    whole = softmax(IMAGES @ TEXTS.T / 0.5, axis=1).max(1)
    np.testing.assert_allclose(mcm(IMAGES @ TEXTS.T, 0.5), whole, rtol=1e-5)
    local = softmax(PLACES @ TEXTS.T / 0.5, axis=2).max((1, 2))
    found = gl_mcm(IMAGES @ TEXTS.T, PLACES @ TEXTS.T, 0.5, 2.0)
    np.testing.assert_allclose(found, whole + 2 * local, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 4, 25])
def test_neg_label_is_the_share_of_the_classes(groups):
    known, unknown = np.float64(IMAGES @ TEXTS.T) / 0.01, np.float64(IMAGES @ WORDS.T) / 0.01
    shares = []
    for group in range(groups):
        both = np.concatenate([known, unknown[:, : 25 // groups * groups][:, group::groups]], 1)
        shares.append(np.exp(logsumexp(known, axis=1) - logsumexp(both, axis=1)))
    found = neg_label(IMAGES @ TEXTS.T, IMAGES @ WORDS.T, 0.01, groups)
    np.testing.assert_allclose(found, np.mean(shares, axis=0), rtol=1e-3, atol=1e-6)


def test_negatives_are_the_words_that_are_far_from_all_classes():
    """The paper's distance of a word is the 5th percentile of its negative cosines."""
    distance = [np.percentile([-(word @ text) for text in TEXTS], 5) for word in WORDS]
    chosen = choose_negatives(TEXTS, WORDS, 0.4, 0.95)
    assert list(chosen) == sorted(range(25), key=lambda row: -distance[row])[:10]
    assert len(choose_negatives(TEXTS, WORDS, 0.001, 0.95)) == 1


def test_a_word_is_not_judged_by_one_class_alone():
    """Of fifty classes one may be near: the least distance would keep such a word out."""
    axes = np.eye(52, dtype=np.float32)
    classes, far = axes[:50], axes[50]
    near_to_one, near_to_all = axes[7], classes.sum(0) / np.sqrt(50)
    words = np.stack([near_to_all, near_to_one, far])
    assert list(choose_negatives(classes, words, 1.0, 0.95)) == [1, 2, 0]
    assert list(choose_negatives(classes, words, 1.0, 1.0)) == [2, 0, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A folder with a tiny random CLIP, as the hub has them in Flax's layout."""
    from flax.serialization import to_bytes
    from transformers import CLIPConfig, FlaxCLIPModel

    folder = tmp_path_factory.mktemp("clip")
    layers = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    layers |= {"num_attention_heads": 2}
    text = layers | {"vocab_size": len(tokenizer), "max_position_embeddings": 12}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    vision = layers | {"image_size": 16, "patch_size": 4}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    model = FlaxCLIPModel(config, _do_init=False)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.float32(rng.normal(size=leaf.shape) * 0.5), model.params_shape_tree
    )
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "flax_model.msgpack").write_bytes(to_bytes(params))
    return folder


def embeddings(folder, images) -> dict[str, np.ndarray]:
    def program(whole, local, texts):
        return {"whole": whole, "local": local}

    return load(folder, 4).score(program, Images.of(images), ())


def test_embeddings_are_those_of_flax(folder):
    images = np.random.default_rng(1).integers(0, 256, (6, 16, 16, 3), np.uint8)
    clip, found = load(folder, 4), embeddings(folder, images)
    mean, deviation = np.array(clip_module.MEAN), np.array(clip_module.DEVIATION)
    pixels = np.float32((images / 255 - mean) / deviation).transpose(0, 3, 1, 2)
    stock = jax.jit(lambda pixels, params: clip._model.get_image_features(pixels, params=params))
    expected = np.asarray(stock(pixels, clip._params))
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found["whole"], expected, atol=1e-5)
    assert found["local"].shape == (6, 16, 6)
    np.testing.assert_allclose(np.linalg.norm(found["local"], axis=-1), 1, rtol=1e-5)
    texts = clip.texts(["a picture of the dog", "the seven"])
    assert texts.shape == (2, 6) and not np.allclose(texts[0], texts[1])
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    again = clip.texts(["the seven"])
    np.testing.assert_allclose(again[0], texts[1], atol=1e-5)


def test_a_place_of_a_layer_with_equal_values_is_what_the_attention_gives(folder):
    """Of an image that is the same everywhere but for positions, which are taken away."""
    clip = load(folder, 4)
    params = jax.tree.map(np.copy, clip._params)
    vision = params["vision_model"]
    vision["embeddings"]["position_embedding"]["embedding"][:] = 0
    patch = np.zeros(8, np.float32)
    vision["embeddings"]["class_embedding"] = patch  # the class token is like a black patch
    black = np.broadcast_to(np.float32(clip_module.MEAN), (1, 16, 16, 3))
    whole, local = jax.jit(partial(encode_images, clip._model))(params, black)
    np.testing.assert_allclose(local, np.broadcast_to(whole[:, None], local.shape), atol=1e-4)


def test_images_of_other_sizes_and_one_channel(folder):
    grey = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 1), np.uint8)
    found = embeddings(folder, grey)
    colour = embeddings(folder, np.repeat(grey, 3, axis=-1))
    np.testing.assert_allclose(found["whole"], colour["whole"], atol=1e-5)


def test_embeddings_are_those_of_pytorch(folder):
    torch = pytest.importorskip("torch")
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(folder, from_flax=True).eval()
    images = np.random.default_rng(1).random((3, 16, 16, 3), np.float32)
    pixels = (images - np.array(clip_module.MEAN)) / np.array(clip_module.DEVIATION)
    with torch.no_grad():
        expected = model.get_image_features(torch.tensor(pixels.transpose(0, 3, 1, 2)).float())
    expected = expected / expected.norm(dim=1, keepdim=True)
    clip = load(folder, 4)
    whole, _ = encode_images(clip._model, clip._params, images)
    np.testing.assert_allclose(whole, expected.numpy(), atol=1e-4)


def test_what_is_no_clip_is_not_found_and_damage_is_one_line(folder, tmp_path):
    assert find(str(folder)) == folder
    for path in (str(tmp_path), "no/such-model", "no/such/folder", ""):
        assert find(path) is None
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert find(str(tmp_path)) is None
    (tmp_path / "flax_model.msgpack").write_bytes(b"damaged")
    assert find(str(tmp_path)) == tmp_path
    with pytest.raises(UserError, match=r"^zero_shot.path: \S+ cannot be loaded: [^\n]*$"):
        load(tmp_path, 4)


@pytest.fixture
def photographs(toy, folder, tmp_path):
    """A configuration with the three rows, which finds the tiny CLIP and some words."""
    config = toy.config()
    config.methods, config.data.channels = ("mcm", "gl_mcm", "neg_label"), 3
    (tmp_path / "words.txt").write_text("dog\ncat\n\ndog\nseven\n")
    config.zero_shot.path, config.zero_shot.words = str(folder), str(tmp_path / "words.txt")
    return config


def test_rows_stand_in_the_table_with_their_settings(photographs):
    photographs.seeds = (0, 1)
    photographs.method_options.mcm = ConfigDict({"temperature": 0.5})
    settings = check(photographs)
    rows = make_rows(settings)
    assert [(row.key, row.training, row.section) for row in rows] == [
        (key, "clip", "Zero-shot") for key in ("mcm", "gl_mcm", "neg_label")
    ]
    assert rows[0].options == {"temperature": 0.5}
    run = make_run(settings, Path("run"))
    assert not [name for name in run.stages if name.startswith("train ")]
    names = [name for name in run.stages if name.startswith("evaluate clip")]
    assert names == ["evaluate clip", "evaluate clip, seed 1"]
    assert without_weights(settings, rows) == {}


@pytest.mark.parametrize(
    ("field", "value", "left", "reason"),
    [
        ("zero_shot.path", "no/such-model", (), "CLIP's weights for Flax are neither in such a fo"),
        ("data.channels", 1, (), "config.data.channels is 1; CLIP scores colour photographs"),
        ("zero_shot.words", "no.txt", ("mcm", "gl_mcm"), "config.zero_shot.words is 'no.txt'; it"),
    ],
)
def test_rows_that_cannot_be_made_are_left_out_in_one_line(
    photographs, capsys, tmp_path, field, value, left, reason
):
    photographs.methods = ("energy", *photographs.methods)
    photographs.update_from_flattened_dict({field: value})
    run = possible_run(check(photographs), tmp_path, ["evaluate"], overwrite=False)
    assert [row.key for row in run.rows] == ["energy", *left]
    printed = capsys.readouterr().out
    assert printed.startswith("left out: ") and printed.count("\n") == 1 and reason in printed
    if not left:
        photographs.methods = photographs.methods[1:]
        with pytest.raises(UserError, match="no row remains; left out: mcm, gl_mcm, neg_label: "):
            possible_run(check(photographs), tmp_path, ["evaluate"], overwrite=False)


def test_scores_of_a_run_are_those_of_the_embeddings(photographs, folder):
    rows = make_rows(check(photographs))
    classes, words = units(4, 6), units(40, 6)
    texts = texts_of(rows, classes, words)
    found = scores_of(IMAGES, PLACES, texts, rows)
    chosen = words[choose_negatives(classes, words, 0.15, 0.95)]
    expected = {
        "mcm": mcm(IMAGES @ classes.T, 1.0),
        "gl_mcm": gl_mcm(IMAGES @ classes.T, PLACES @ classes.T, 1.0, 1.0),
        "neg_label": neg_label(IMAGES @ classes.T, IMAGES @ chosen.T, 0.01, 6),
    }
    np.testing.assert_allclose(found["logits"], IMAGES @ classes.T, rtol=1e-6)
    for key, scores in expected.items():
        np.testing.assert_allclose(found["scores of"][key], scores, rtol=1e-6, err_msg=key)


def test_without_a_file_the_words_are_those_of_the_tokenizer(
    photographs, folder, tokenizer, tmp_path
):
    photographs.zero_shot.words = ""
    settings = check(photographs)
    assert without_weights(settings, make_rows(settings)) == {}
    found = load(folder, 4).words()
    assert found == sorted(found) and "seven" in found and "picture" in found
    assert all(tokenizer.tokenize(word) == [f"{word}</w>"] for word in found)
    short = train_tokenizer(["an ox"], 12, tmp_path)
    with pytest.raises(UserError, match=r"^config.zero_shot.words is '', and [^\n]*no whole words"):
        Clip(None, {}, short, 4).words()


def test_other_weights_in_the_same_folder_make_the_row_anew(photographs, folder, tmp_path):
    """And so do other words; a copy elsewhere is the same model."""
    copy = tmp_path / "clip"
    shutil.copytree(folder, copy)

    def record() -> dict:
        run = make_run(check(photographs), tmp_path)
        record = run.record("evaluate clip")
        assert {"zero_shot.path", "zero_shot.words"} <= record.origins.keys()
        assert "zero_shot.path" not in record.settings
        return record.origins

    before = record()
    photographs.zero_shot.path = str(copy)
    assert record() == before and before["zero_shot.path"]["files"] == 4
    weights = copy / "flax_model.msgpack"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert record()["zero_shot.path"] != before["zero_shot.path"]
    Path(photographs.zero_shot.words).write_text("lion\n")
    assert record()["zero_shot.words"] != before["zero_shot.words"]
    photographs.zero_shot.path = "no/such-model"
    assert fingerprint(check(photographs), "zero_shot.path") == {}


def test_a_text_is_embedded_alike_whatever_stands_with_it(folder):
    clip = load(folder, 4)
    (alone,), (first, _) = clip.texts(["the seven"]), clip.texts(["the seven", "the dog and two"])
    np.testing.assert_allclose(alone, first, atol=1e-6)


def test_words_are_read_once_each(photographs, tmp_path):
    assert read_words(photographs.zero_shot.words) == ["dog", "cat", "seven"]
    for content in (b"\n \n", b"\xff\xfe\xfa"):
        (tmp_path / "bad.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"^config.zero_shot.words is [^\n]*$"):
            read_words(str(tmp_path / "bad.txt"))
