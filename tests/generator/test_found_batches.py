"""Decoding with as many images at once as fit."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.test_batch_sizes import nothing_found_yet, too_much_from  # noqa: F401

from dream_jax.generator import stable_diffusion as module
from dream_jax.generator.interface import Sampling
from dream_jax.generator.stable_diffusion import StableDiffusion
from dream_jax.training import batch_sizes

COUNT = 3
SAMPLING = Sampling("ddim", steps=1, guidance=1.0, batch_size=2, vae_batch_size=2)
FOUND = dataclasses.replace(SAMPLING, batch_size=0, vae_batch_size=0)


def decode(toy, sampling: Sampling, count: int = COUNT) -> list[np.ndarray]:
    """By a new generator: the programs are made anew."""
    generator = StableDiffusion(toy.pipeline, toy.params, toy.table, toy.noise)
    ids = np.stack([toy.prompt_ids(toy.name_ids("a dog"))] * count)
    embeddings = np.zeros((count, 16), np.float32)
    keys = jax.random.split(jax.random.key(1), count)
    return list(generator.decode(ids, embeddings, keys, sampling))


def test_the_unet_and_the_vae_tell_what_they_need(toy, capsys):
    (found,) = decode(toy, FOUND, count=1)
    assert batch_sizes.chosen() == {"decoding.batch_size": [1], "decoding.vae_batch_size": [1]}
    out = capsys.readouterr().out
    for size in ("batch_size", "vae_batch_size"):
        assert f"config.decoding.{size} is 0: 1 images at once; on a device they take" in out
    assert found.shape == (1, 16, 16, 1) and found.std() > 0


@pytest.fixture
def brief(monkeypatch):
    """Programs that are quickly compiled take the place of the networks'."""

    def encode(pipeline, params, ids, embeddings):
        return jnp.zeros((*ids.shape, 4)) + ids[..., None] + embeddings.mean()

    def denoise(pipeline, params, state, states, unconditional, noise, keys, **settings):
        return noise + states.mean((1, 2))[:, None, None, None]

    def decode(pipeline, params, latents, keys, **settings):
        return jnp.tanh(latents), jnp.ones(len(latents), bool)

    monkeypatch.setattr(module, "encode_prompts", encode)
    monkeypatch.setattr(module, "denoise", denoise)
    monkeypatch.setattr(module, "decode_latents", decode)


def greedy(own, pipeline, params, *arrays, **settings):
    """Asks for terabytes where it is given four images or more."""
    made, more = own(pipeline, params, *arrays, **settings), too_much_from(4, arrays[-1])
    return jax.tree.map(lambda leaf: leaf + more if leaf.dtype == np.float32 else leaf, made)


def test_the_next_batch_is_begun_before_the_last_is_fetched(toy, brief, monkeypatch):
    events = []
    begin, fetch = module.Decoder.__call__, StableDiffusion._images
    monkeypatch.setattr(
        module.Decoder, "__call__", lambda *given: events.append("begun") or begin(*given)
    )
    monkeypatch.setattr(
        StableDiffusion, "_images", lambda *given: events.append("fetched") or fetch(*given)
    )
    decode(toy, SAMPLING, count=5)
    assert events == ["begun", "begun", "fetched", "begun", "fetched", "fetched"]


def test_between_its_programs_nothing_moves_to_or_from_the_host(toy, brief, monkeypatch):
    decoder = module.Decoder(toy, SAMPLING, None)
    decoder.fit(2)
    ids = np.stack([toy.prompt_ids(toy.name_ids("a dog"))] * 2)
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(1), 2)))
    batch = ids, np.zeros((2, 16), np.float32), keys
    first, _ = decoder(*batch)
    with jax.transfer_guard("disallow"):  # of what is not asked for by `device_put`
        again, _ = decoder(*batch)
        with pytest.raises(jax.errors.JaxRuntimeError, match="transfer"):
            decoder._noise(keys[None])
    assert np.array_equal(first, again)


def test_where_all_or_nothing_fits_and_where_one_size_is_given(toy, brief, monkeypatch):
    expected = np.concatenate(decode(toy, SAMPLING))
    found = decode(toy, FOUND)
    assert [len(batch) for batch in found] == [COUNT]  # of 4, which there are not
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    assert batch_sizes.chosen() == {"decoding.batch_size": [4], "decoding.vae_batch_size": [4]}
    batch_sizes.forget()
    monkeypatch.setattr(batch_sizes, "UNSAID", 1)
    assert [len(batch) for batch in decode(toy, FOUND)] == [1] * COUNT
    assert batch_sizes.chosen() == {"decoding.batch_size": [1], "decoding.vae_batch_size": [1]}
    batch_sizes.forget()
    given = dataclasses.replace(FOUND, batch_size=2)
    assert [len(batch) for batch in decode(toy, given)] == [2, 1]
    assert batch_sizes.chosen() == {"decoding.vae_batch_size": [1]}


@pytest.mark.parametrize("part", ["denoise", "decode_latents"])
def test_exhausted_memory_halves_the_batch_and_loses_nothing(toy, brief, monkeypatch, capsys, part):
    """By an allocation that no machine can make; the search is told of more room than there is."""
    expected = np.concatenate(decode(toy, SAMPLING))
    monkeypatch.setattr(module, part, functools.partial(greedy, getattr(module, part)))
    monkeypatch.setattr(batch_sizes, "UNSAID", 2**60)
    found = decode(toy, FOUND)
    assert [len(batch) for batch in found] == [2, 1]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-4)
    out = capsys.readouterr().out
    assert "config.decoding.batch_size is 0: 2 images at once; twice as many were too many" in out
    if part == "denoise":
        with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
            decode(toy, dataclasses.replace(SAMPLING, batch_size=4))  # given, so it is kept


def test_round_trips_take_as_many_as_fit(toy):
    pixels = np.random.default_rng(0).random((1, 16, 16, 1)).astype(np.float32)
    (found,) = toy.round_trip(pixels, 0, None)
    assert batch_sizes.chosen() == {"decoding.vae_batch_size": [1]}
    (given,) = toy.round_trip(pixels, 1, None)
    assert np.array_equal(found, given)
