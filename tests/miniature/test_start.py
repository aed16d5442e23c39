"""The second round of a miniature generator's training: what it keeps of the first one."""

import dataclasses
import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from slow import takes_a_minute
from test_training import refusal, small_config, small_world

from configs import generator_photos
from dream_jax.data import glyphs
from dream_jax.errors import UserError
from dream_jax.files import checksums, read_json, write_json
from dream_jax.generator_training import check, run, start_of
from dream_jax.miniature import start as starts
from dream_jax.miniature import training
from dream_jax.miniature.networks import build_text_encoder, save_pipeline
from dream_jax.miniature.settings import TrainingSettings
from dream_jax.miniature.tokenizer import train_tokenizer
from dream_jax.miniature.world import World, build_world
from dream_jax.settings import as_dict
from dream_jax.training.checkpoints import Checkpoints

OLD = ["a handwritten zero", "a handwritten one", "the symbol black square", "the potter's wheel"]
NEW = ["a handwritten zero", "a handwritten wolf", "the potters", "the wolf's"]


def random_params(network):
    shapes, rng = jax.eval_shape(network.init_weights, jax.random.key(0)), np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished pipeline of the smallest networks, with random weights."""
    folder = tmp_path_factory.mktemp("first")
    settings = check(small_config())
    tokenizer = train_tokenizer(OLD, settings.text_encoder.positions, folder / "made")
    vae = training._autoencoder(settings, scaling=0.75)
    text_encoder = build_text_encoder(settings.text_encoder, tokenizer, 1)
    unet = training._unet(settings, 8)
    params = {name: random_params(part) for name, part in (("vae", vae), ("unet", unet))}
    params["text_encoder"] = text_encoder.params
    save_pipeline(folder / "pipeline", vae, text_encoder, tokenizer, unet, params)
    write_json(folder / "pipeline" / "training.json", as_dict(settings, TrainingSettings))
    return folder / "pipeline"


@pytest.fixture
def own(first, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(first, tmp_path / "own")


def second_config(folder, **world):
    config = small_config()
    config.start_from = str(folder)
    config.world.update({"others": "earlier", **world})
    return config


def tokens(folder, texts):
    read = starts_tokenizer(folder)
    return [read(text).input_ids for text in texts]


def starts_tokenizer(folder):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))


def test_old_texts_keep_their_tokens_and_new_words_get_one(first, tmp_path):
    made = train_tokenizer([*NEW, *OLD], 16, tmp_path / "made", first / "tokenizer", OLD)
    old = starts_tokenizer(first)
    assert [made(text).input_ids for text in OLD] == tokens(first, OLD)
    assert made("potter's wheel").input_ids == old("potter's wheel").input_ids
    before, now = old.get_vocab(), made.get_vocab()
    assert now.items() > before.items() and sorted(now.values()) == list(range(len(now)))
    assert (made.bos_token_id, made.eos_token_id) == (old.bos_token_id, old.eos_token_id)
    for word in ("wolf", "potters"):
        (token,) = made(word, add_special_tokens=False).input_ids
        assert token >= len(before) and len(old(word).input_ids) > 3
    again = train_tokenizer([*OLD, *NEW], 16, tmp_path / "again", first / "tokenizer", OLD)
    assert again.get_vocab() == now


def test_old_texts_mean_the_same_before_the_training(first, tmp_path):
    settings = check(second_config(first))
    made = train_tokenizer([*NEW, *OLD], 16, tmp_path / "made", first / "tokenizer", OLD)
    encoder = build_text_encoder(settings.text_encoder, made, 7)
    used = {token for text in [*NEW, *OLD] for token in made(text).input_ids}
    start = start_of(settings)
    params = starts.kept_text_encoder(start, encoder.params, used, jax.random.key(0))

    old = starts_tokenizer(first)
    small = build_text_encoder(settings.text_encoder, old, 3)
    kept = starts.kept_text_encoder(start, small.params, used, jax.random.key(0))
    ids = np.asarray(old(OLD, padding="max_length").input_ids)
    np.testing.assert_array_equal(encoder(ids, params=params)[0], small(ids, params=kept)[0])

    table, rows = (
        tree["text_model"]["embeddings"]["token_embedding"]["embedding"] for tree in (params, kept)
    )
    np.testing.assert_array_equal(table[: len(old)], rows)
    assert table.shape == (len(made), 32) and len(np.unique(table, axis=0)) == len(made)


def test_new_rows_are_like_the_learned_ones():
    words = np.random.default_rng(0).normal(3, (1, 5), (400, 2)).astype(np.float32)
    rows = starts.new_rows(words, 4000, jax.random.key(0))
    np.testing.assert_allclose(rows.mean(0), words.mean(0), atol=0.3)
    np.testing.assert_allclose(rows.std(0), words.std(0), rtol=0.05)


def test_the_autoencoder_and_the_unet_are_read_as_they_are(first):
    settings = check(second_config(first))
    start, vae = start_of(settings), training._autoencoder(settings)
    params, scaling = starts.kept_autoencoder(start, vae)
    assert scaling == 0.75
    unet = training._unet(settings, 8)
    for found, network in ((params, vae), (starts.kept_unet(start, unet), unet)):
        same = jax.tree.map(lambda a, b: np.all(a == np.float16(b)), found, random_params(network))
        assert jax.tree.all(same)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


def test_the_world_is_the_new_set_and_all_of_the_earlier_one(first, monkeypatch):
    few = list(itertools.islice(glyphs.world_glyphs(), 30))
    monkeypatch.setattr(glyphs, "world_glyphs", lambda: few)
    config = second_config(first, id_words={"one": "single"}, affine_versions=0)
    settings = check(config)
    start = start_of(settings)
    old = dataclasses.replace(start.settings.world, affine_versions=0)
    start = dataclasses.replace(start, settings=dataclasses.replace(start.settings, world=old))
    world = build_world(settings.world, *start.worlds)
    assert (world.id_images, world.id_classes, len(world.images)) == (4000, 10, 8030)
    # Both worlds have the digits, the earlier one glyphs too.
    np.testing.assert_array_equal(world.images[4000:8000], world.images[:4000])
    np.testing.assert_array_equal(world.labels[4000:8000], world.labels[:4000] + 10)
    assert world.labels[8000:].min() == 20
    assert world.captions[1] == ("a handwritten one", "a handwritten single")
    assert world.captions[2] == world.captions[12] == ("a handwritten two",) * 2
    assert world.captions[11] == ("a handwritten one",) * 2
    assert all(own[0].startswith("the symbol ") for own in world.captions[20:])


def test_sets_of_the_earlier_world_are_looked_for_before_images_are_read(first, tmp_path):
    settings = check(second_config(first))
    old = dataclasses.replace(settings.world, others="no_such_set")
    with pytest.raises(UserError, match="no_such_set"):
        build_world(settings.world, old)


def damaged_settings(folder, **values):
    path = folder / "training.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | values))


def test_what_no_second_round_can_start_from_is_named(own, tmp_path):
    cases = {
        "there is no such folder": {"start_from": "no/such/pipeline"},
        "which lacks training.json": {"start_from": str(tmp_path)},
        "config.unet.layers is 2; it must be 1, as of the pipeline": {"unet.layers": 2},
        "config.autoencoder.channels is (8, 8, 16)": {"autoencoder.channels": (8, 8, 16)},
        "config.autoencoder.steps is 3; it must be 2": {"autoencoder.steps": 3},
        "config.text_encoder.positions is 20": {"text_encoder.positions": 20},
        "config.world.image_size is 64": {"world.image_size": 64},
        "with an empty config.start_from it must be glyphs or": {"start_from": ""},
    }
    for line, values in cases.items():
        config = second_config(own)
        config.update_from_flattened_dict(values)
        assert line in refusal(config, tmp_path / "run"), line
    config = second_config(own)
    assert "lies in --workdir" in refusal(config, tmp_path)
    damaged_settings(own, seed=-1)
    assert "is no record of a training: seed is -1" in refusal(config, tmp_path / "run")
    (own / "training.json").write_text("{")
    assert "cannot be read as JSON" in refusal(config, tmp_path / "run")
    shutil.rmtree(own / "unet")
    assert "config.start_from: " in refusal(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pipeline_that_replaced_its_own_start_has_no_world(own, tmp_path):
    world = read_json(own / "training.json")["world"] | {"others": "earlier"}
    damaged_settings(own, start_from=str(own), world=world)
    line = refusal(second_config(own), tmp_path / "run")
    assert "started from a pipeline that lay there before" in line
    assert start_of(check(second_config(own, others="glyphs"))).before is None


def test_words_of_the_wrong_classes_are_named(tmp_path):
    for words, line in (
        ({"wolf": "beast"}, "has 'wolf', which is no class of digits"),
        ({"one": "two"}, "calls 'one' 'two', as another class"),
        ({"one": "single", "two": "single"}, "a word of its own"),
    ):
        config = small_config()
        config.world.update(id_words=words, affine_versions=0)
        assert line in refusal(config, tmp_path)


def test_weights_that_are_damaged_are_named(own, tmp_path):
    weights = own / "vae" / "diffusion_flax_model.msgpack"
    settings = check(second_config(own))
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"config\.start_from: .*vae"):
        starts.kept_autoencoder(start_of(settings), training._autoencoder(settings))


def test_a_training_from_before_there_was_a_second_round_is_still_finished(tmp_path):
    config = small_config()
    tree = json.loads(json.dumps(as_dict(check(config), TrainingSettings)))
    del tree["start_from"], tree["world"]["id_words"]
    for file in ("pipeline/weights", "diffusion/4"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    made = {"program": "launch/train_generator.py", "settings": tree}
    record = made | {"pipeline": checksums(tmp_path / "pipeline", "")}
    write_json(tmp_path / "config.json", record)
    assert run(config, tmp_path) == tmp_path / "pipeline"
    assert read_json(tmp_path / "config.json") == record


def test_the_configurations_for_cifar100_pass():
    for machine in ("cifar100", "cifar100_cpu"):
        settings = check(generator_photos.get_config(machine))
        assert (
            settings.world.others == "earlier" and start_of(settings).settings.world.id == "cifar10"
        )
        assert settings.diffusion.steps < start_of(settings).settings.diffusion.steps


def second_world(config, *earlier) -> World:
    """A world with names that the first one lacks."""
    world = small_world(config)
    captions = [("a handwritten wolf",), ("a handwritten one",), ("the symbol black square",)]
    return world._replace(captions=captions)


@takes_a_minute
def test_an_interrupted_second_round_ends_as_one_that_was_not(first, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "build_world", second_world)
    config = second_config(first)
    whole = run(config, tmp_path / "whole")

    def stop_at_the_first_of_diffusion(self, *what):
        save(self, *what)
        raise KeyboardInterrupt

    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", stop_at_the_first_of_diffusion)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut")
    monkeypatch.setattr(Checkpoints, "save", save)
    other = shutil.copytree(first, tmp_path / "other")
    (other / "tokenizer" / "merges.txt").open("a").write("\n")
    assert "was made with another config.start_from" in refusal(
        second_config(other), tmp_path / "cut"
    )
    cut = run(config, tmp_path / "cut")

    names = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
    assert names >= {"training.json", "samples.png", "unet/diffusion_flax_model.msgpack"}
    for name in names:
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    weights = "vae/diffusion_flax_model.msgpack"
    assert (whole / weights).read_bytes() == (first / weights).read_bytes()
    assert read_json(whole / "vae/config.json") == read_json(first / "vae/config.json")
    assert not (tmp_path / "whole" / "autoencoder").exists()
    assert tokens(whole, OLD[1:3]) == tokens(first, OLD[1:3])
    weights = "unet/diffusion_flax_model.msgpack"
    assert (whole / weights).read_bytes() != (first / weights).read_bytes()
