"""Of a setting that is given twice, the last value counts, for lists too."""

import pytest

from dream_jax.flag_values import last_of_each


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("--config.data.ood=a --config.data.ood=b", "--config.data.ood=b"),
        ("--config.data.ood a --config.data.ood b", "--config.data.ood b"),
        ("-config.data.ood a --config.data.ood=b", "--config.data.ood=b"),
        ("--config.seed=1 --stages=x --config.seed=2", "--stages=x --config.seed=2"),
        ("--config=a.py --config=b.py --workdir w", "--config=a.py --config=b.py --workdir w"),
        ("--config.seed=1 stray --config.k=2", "--config.seed=1 stray --config.k=2"),
        ("--config.a=1 -- --config.a=2", "--config.a=1 -- --config.a=2"),
        ("--config.a --config.b", "--config.a --config.b"),
    ],
)
def test_the_last_value_counts(given, left):
    assert last_of_each(["main.py", *given.split()]) == ["main.py", *left.split()]


def test_a_list_flag_replaces(monkeypatch):
    from absl import flags
    from ml_collections import config_flags

    own = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=own)
    given = ["--config=configs/quickstart.py", "--config.data.ood=a", "--config.data.ood=b"]
    monkeypatch.setattr("sys.argv", ["main.py", *last_of_each(given)])
    own(["main.py", *last_of_each(given)])
    assert own.config.data.ood == ("b",)
