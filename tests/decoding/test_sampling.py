"""How pictures are sampled, by the configuration."""

from types import SimpleNamespace

from configs import quickstart
from dream_jax.checks import check
from dream_jax.decoding import stage
from dream_jax.generator.interface import NO_CACHE, DeepCache


def test_settings_of_the_cache_reach_the_generator():
    config, found = quickstart.get_config(), []
    for interval, branch in ((1, 0), (3, 2)):
        config.decoding.update(cache_interval=interval, cache_branch=branch)
        work = SimpleNamespace(settings=check(config))
        found.append(stage._sampling(work)[0].cache)
    assert found == [NO_CACHE, DeepCache(interval=3, branch=2)]
