"""Programs of the decoding, which the persistent cache hands from one run to the next."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from dream_jax.generator import stable_diffusion
from dream_jax.generator.interface import Sampling
from dream_jax.generator.stable_diffusion import StableDiffusion

SAMPLING = Sampling("ddim", steps=2, guidance=1.0, batch_size=3, vae_batch_size=3)
ASKED, FOUND = (
    f"/jax/compilation_cache/{event}" for event in ("compile_requests_use_cache", "cache_hits")
)


@pytest.fixture
def events(tmp_path):
    """How often programs were asked for, and how often the cache on the disk had them."""
    counted: Counter[str] = Counter()

    def count(event, **_):
        counted[event] += 1

    fields = "jax_persistent_cache_min_compile_time_secs", "jax_compilation_cache_dir"
    before = [getattr(jax.config, field) for field in fields]
    for field, value in zip(fields, (0, str(tmp_path)), strict=True):
        jax.config.update(field, value)
    compilation_cache.reset_cache()
    jax.monitoring.register_event_listener(count)
    yield counted
    jax.monitoring.unregister_event_listener(count)
    for field, value in zip(fields, before, strict=True):
        jax.config.update(field, value)
    compilation_cache.reset_cache()


def test_each_size_and_guidance_is_compiled_once(toy, events, monkeypatch):
    """Each time by a new generator, with other prompts and embeddings."""
    rng = np.random.default_rng(0)

    def asked(count, **settings):
        generator = StableDiffusion(toy.pipeline, toy.params, toy.table, toy.noise)
        ids = np.stack([toy.prompt_ids(toy.name_ids("a dog"))] * count)
        embeddings = rng.normal(size=(count, 16)).astype(np.float32)
        keys = jax.random.split(jax.random.key(count), count)
        sampling = dataclasses.replace(SAMPLING, **settings)
        events.clear()
        assert len(np.concatenate(list(generator.decode(ids, embeddings, keys, sampling)))) == count
        return events[ASKED]

    def compiled(count, **settings):
        with monkeypatch.context() as patch:  # as in a new process
            patch.setattr(stable_diffusion, "_mapped", stable_diffusion._mapped.__wrapped__)
            assert asked(count, **settings) >= 4  # text encoder, noise, UNet and VAE
        return events[ASKED] - events[FOUND]

    compiled(3)
    asked(3)
    assert asked(3) == 0
    assert compiled(5) == 0
    assert compiled(4, guidance=2.0) == 1  # the loop of the UNet
    assert compiled(2, guidance=2.0) == 0
