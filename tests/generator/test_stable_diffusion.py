"""Decoding embeddings with an untrained pipeline, and round trips through its autoencoder."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from dream_jax.decoding.prompts import plain_prompt, prompt_with_placeholder
from dream_jax.errors import UserError
from dream_jax.generator import stable_diffusion as decoding
from dream_jax.generator.interface import DeepCache, Sampling
from dream_jax.generator.load import load_generator
from dream_jax.generator.schedulers import make_scheduler
from dream_jax.generator.stable_diffusion import StableDiffusion, encode_prompts
from dream_jax.training import devices

STOCK = ("plms", "ddim", "dpmsolver++")  # what the stock Flax pipeline can do as well
PROMPT = "a picture of the {name}"
NAMES = ("dog", "seven", "black cat", "dog", "dog")


def pictures(toy) -> tuple[np.ndarray, np.ndarray, jax.Array]:
    """(ids, embeddings, keys): the first two embeddings are the names' own rows."""
    ids = [prompt_with_placeholder(toy, PROMPT, n) for n in NAMES]
    own = [toy.table[toy.name_ids(n)[0]] for n in NAMES[:2]]
    drawn = np.random.default_rng(5).normal(0, 0.5, (3, toy.table.shape[1]))
    return np.stack(ids), np.float32([*own, *drawn]), jax.random.split(jax.random.key(2), 5)


SAMPLING = Sampling("dpmsolver++", steps=2, guidance=4.0, batch_size=3, vae_batch_size=2)


def images(toy, ids, embeddings, keys, image_shape=None, **settings) -> np.ndarray:
    sampling = dataclasses.replace(SAMPLING, **settings)
    return np.concatenate(list(toy.decode(ids, embeddings, keys, sampling, image_shape)))


@pytest.fixture(scope="session")
def decoded(toy) -> np.ndarray:
    return images(toy, *pictures(toy))


def test_images_are_in_range_and_differ(decoded):
    assert decoded.shape == (5, 16, 16, 1) and decoded.dtype == np.float32
    assert decoded.min() >= 0 and decoded.max() <= 1
    assert np.mean((decoded > 0) & (decoded < 1)) > 0.2  # not all clipped
    differences = np.abs(decoded[:, None] - decoded).max((2, 3, 4))
    assert np.all(differences[~np.eye(5, dtype=bool)] > 0.05)


def test_images_with_reused_features_are_near(toy, decoded):
    near = images(toy, *pictures(toy), cache=DeepCache(interval=2, branch=0))
    assert 1e-4 < np.abs(near - decoded).mean() < 0.1


@pytest.mark.parametrize("scheduler", STOCK)
def test_images_are_those_of_the_stock_pipeline(toy, stock_folder, scheduler, monkeypatch):
    """Of `pipeline(...)` itself, from the same noise, at all the timesteps of the scheduler."""
    generator = load_generator(str(stock_folder))
    generator.pipeline.scheduler, state = make_scheduler(scheduler, generator.noise)
    stock, loops = generator.pipeline.scheduler.set_timesteps, 6
    if scheduler == "plms":  # 7 timesteps for 6 steps: the stock pipeline takes as many as steps
        loops = 7
        monkeypatch.setattr(
            generator.pipeline.scheduler,
            "set_timesteps",
            lambda state, num_inference_steps, shape: stock(state, 6, shape),
        )
    _, _, keys = pictures(toy)
    plain = np.stack([plain_prompt(toy, PROMPT, name) for name in NAMES[:3]])
    noise = [jax.random.normal(key, generator.latent_shape) for key in keys[:3]]
    expected = generator.pipeline(
        plain[None],
        devices.replicate({**generator.params, "scheduler": state}),
        jax.random.split(jax.random.key(0), 1),  # unused: the latents are given
        num_inference_steps=loops,
        guidance_scale=4.0,
        latents=np.stack(noise)[None],
        jit=True,
    ).images[0]
    out = images(generator, plain, None, keys[:3], steps=6, scheduler=scheduler)
    np.testing.assert_allclose(out, expected, atol=1e-4)  # convolutions round otherwise on CPU


def test_hidden_states_are_those_of_a_replaced_row(toy, with_table):
    ids, embeddings, _ = pictures(toy)
    encode = jax.jit(functools.partial(encode_prompts, toy.pipeline))
    hidden = encode(toy.params["text_encoder"], ids[2:], embeddings[2:])[1]

    table = toy.table.copy()
    table[toy.name_ids("dog")] = embeddings[3]
    plain = plain_prompt(toy, PROMPT, "dog")[None]
    stock = jax.jit(lambda ids, params: toy.pipeline.text_encoder(ids, params=params)[0])
    expected = stock(plain, with_table(table).params["text_encoder"])[0]
    np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-6)
    unchanged = stock(plain, toy.params["text_encoder"])[0]
    assert np.abs(hidden - unchanged).max() > 0.1


def test_text_encoder_runs_once_per_batch_and_once_for_no_text(toy, monkeypatch):
    """Counted where it runs, over two calls in one process, as a run makes for two folders."""
    runs, stock = [], toy.pipeline.text_encoder

    class Counting:
        config = stock.config

        def __call__(self, ids, params):
            jax.debug.callback(lambda ids: runs.append(np.asarray(ids)), ids)
            return stock(ids, params=params)

    monkeypatch.setattr(toy.pipeline, "text_encoder", Counting())
    generator = StableDiffusion(toy.pipeline, toy.params, toy.table, toy.noise)
    ids, embeddings, keys = pictures(toy)
    images(generator, ids, embeddings, keys)  # 5 images in batches of 3
    plain = np.stack([plain_prompt(toy, PROMPT, name) for name in NAMES])
    images(generator, plain, None, keys)
    jax.effects_barrier()
    empty = np.asarray(toy.tokenizer("", padding="max_length").input_ids)
    assert [bool(np.all(rows == empty)) for rows in runs] == [True, False, False, False, False]


def test_next_batch_is_started_before_one_is_given(toy, monkeypatch):
    started = []

    class Recording(decoding.Decoder):
        def __call__(self, ids, *arrays):
            started.append(len(ids))
            return super().__call__(ids, *arrays)

    monkeypatch.setattr(decoding, "Decoder", Recording)
    generator = StableDiffusion(toy.pipeline, toy.params, toy.table, toy.noise)
    batches = generator.decode(*pictures(toy), dataclasses.replace(SAMPLING, batch_size=2))
    assert [(len(next(batches)), len(started)) for _ in range(3)] == [(2, 2), (2, 3), (1, 3)]
    assert next(batches, None) is None


def test_programs_are_kept_for_the_same_settings_until_released(toy, monkeypatch):
    made = []

    class Recording(decoding.Decoder):
        def __init__(self, generator, sampling, image_shape):
            made.append((sampling.steps, image_shape))
            super().__init__(generator, sampling, image_shape)

    monkeypatch.setattr(decoding, "Decoder", Recording)
    generator = StableDiffusion(toy.pipeline, toy.params, toy.table, toy.noise)
    arrays = [part[:1] for part in pictures(toy)]
    for _ in range(2):
        images(generator, *arrays)
    assert made == [(2, None)]
    # What calls for other programs, without compiling them.
    one = dataclasses.replace(SAMPLING, steps=1)
    generator._prepared(SAMPLING, (8, 8, 1))
    generator._prepared(one, None)
    generator.release()
    generator._prepared(one, None)
    assert made == [(2, None), (2, (8, 8, 1)), (1, None), (1, None)]


def test_own_row_gives_the_image_of_the_plain_prompt(toy, decoded):
    _, _, keys = pictures(toy)
    plain = np.stack([plain_prompt(toy, PROMPT, name) for name in NAMES[:3]])
    by_name = images(toy, plain, None, keys[:3])
    np.testing.assert_allclose(by_name[:2], decoded[:2], atol=1e-5)
    assert np.abs(by_name[2] - decoded[2]).max() > 0.01


def test_images_are_those_of_the_table_with_the_row_replaced(toy, decoded, with_table):
    """Image 3, decoded among others, against a pipeline whose row for "dog" is its embedding."""
    _, embeddings, keys = pictures(toy)
    table = toy.table.copy()
    table[toy.name_ids("dog")] = embeddings[3]
    plain = plain_prompt(toy, PROMPT, "dog")[None]
    (image,) = images(with_table(table), plain, None, keys[3:4])
    np.testing.assert_allclose(image, decoded[3], atol=1e-5)


def test_images_do_not_depend_on_their_neighbours(toy, decoded):
    order = np.array([4, 2, 0, 3])
    shuffled = images(toy, *(part[order] for part in pictures(toy)))
    np.testing.assert_allclose(shuffled, decoded[order], atol=1e-5)


@pytest.mark.parametrize("sizes", [(5, 64), (3, 1)])
def test_images_do_not_depend_on_the_batch_sizes(toy, decoded, sizes):
    settings = dict(zip(("batch_size", "vae_batch_size"), sizes, strict=True))
    np.testing.assert_allclose(images(toy, *pictures(toy), **settings), decoded, atol=1e-4)


def test_images_of_another_shape(toy, decoded):
    out = images(toy, *pictures(toy), image_shape=(8, 8, 3))
    expected = jax.image.resize(decoded, (5, 8, 8, 1), "bilinear")
    np.testing.assert_allclose(out, np.repeat(expected, 3, axis=-1), atol=1e-5)


def decode_folder(folder: str) -> dict[str, np.ndarray]:
    toy = load_generator(folder)
    return {"images": images(toy, *pictures(toy), vae_batch_size=4)}


def test_four_devices_give_the_images_of_one(toy_folder, decoded, on_devices):
    """A batch of 3 leaves a device without a row of its own."""
    four = on_devices(4, decode_folder, toy_folder)
    np.testing.assert_allclose(four["images"], decoded, atol=1e-4)


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.1), ("float16", 0.01)])
def test_half_precision_is_near_float32(toy_folder, toy, decoded, precision, tolerance):
    generator = load_generator(str(toy_folder), precision=precision)
    held = [
        leaf
        for part in ("unet", "vae", "text_encoder")
        for leaf in jax.tree.leaves(generator.params[part])
    ]
    assert {leaf.dtype.name for leaf in held} == {precision}
    assert generator.table.dtype == np.float32
    out = images(generator, *pictures(toy))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, decoded, atol=tolerance)
    assert np.abs(out - decoded).max() > 1e-5  # computed otherwise


def test_embeddings_of_another_width_is_refused(toy):
    ids, embeddings, keys = pictures(toy)
    with pytest.raises(UserError, match=r"16 wide, .* outliers 15") as caught:
        images(toy, ids, embeddings[:, :15], keys)
    assert "\n" not in str(caught.value)


def test_round_trip_is_the_autoencoders(toy):
    pixels = np.random.default_rng(0).random((3, 16, 16, 1)).astype(np.float32)
    vae, params = toy.pipeline.vae, {"params": toy.params["vae"]}

    @jax.jit
    def direct(x):
        mean = vae.apply(params, x, method=vae.encode).latent_dist.mean
        return vae.apply(params, mean, method=vae.decode).sample  # both have channels last

    expected = np.clip(direct(2 * pixels.transpose(0, 3, 1, 2) - 1) / 2 + 0.5, 0, 1)
    out = np.concatenate(list(toy.round_trip(pixels, batch_size=3, progress=None)))
    assert out.dtype == np.uint8
    np.testing.assert_allclose(out, 255 * expected.transpose(0, 2, 3, 1), atol=0.51)


def test_round_trips_continue_bit_for_bit(toy):
    pixels = np.random.default_rng(0).random((7, 16, 16, 1)).astype(np.float32)
    whole = np.concatenate(list(toy.round_trip(pixels, 2, None)))
    rest = np.concatenate(list(toy.round_trip(pixels, 2, None, done=4)))
    assert np.array_equal(rest, whole[4:])


@pytest.mark.parametrize("name", STOCK)
def test_schedulers_keep_the_folders_noise(toy, name):
    scheduler, state = make_scheduler(name, toy.noise)
    assert scheduler.config.prediction_type == "v_prediction"
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    np.testing.assert_allclose(state.common.alphas_cumprod, alphas, rtol=1e-4)
    assert scheduler.config.get("clip_sample", False) is False


def test_loaded_generator(toy):
    assert toy.latent_shape == (4, 4, 4)
    assert toy.table.shape == (len(toy.tokenizer), 16)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(toy.params["unet"]))
