"""What precision "auto" means, that a slow one is named, and that a run keeps its own."""

import pytest

from configs import base, cifar10, cifar100, imagefolder, imagenet100, quickstart
from dream_jax import pipeline, precision
from dream_jax.checks import check
from dream_jax.errors import UserError
from dream_jax.files import read_json
from dream_jax.precision import hardware_of

BOTH, HALF, NONE = ("bfloat16", "bfloat16"), ("float32", "float16"), ("float32", "float32")


@pytest.fixture
def on(monkeypatch):
    """`on(platform, capability)`: what JAX says that the device is."""

    def pretend(*device: str) -> None:
        monkeypatch.setattr(precision, "_own_hardware", lambda: device)

    return pretend


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (("cpu", ""), NONE),
        (("tpu", ""), BOTH),
        (("gpu", "9.0"), BOTH),
        (("gpu", "8.0"), BOTH),
        (("gpu", "10.0"), BOTH),
        (("gpu", "7.5"), HALF),
        (("gpu", "7.0"), HALF),
        (("gpu", "6.1"), NONE),
        (("gpu", "gfx942"), BOTH),
        (("gpu", "gfx90a"), BOTH),
        (("gpu", "gfx906"), HALF),
        (("gpu", "something new"), NONE),
        (("metal", ""), NONE),
    ],
)
def test_auto_is_what_the_device_is_good_at(on, capsys, device, expected):
    on(*device)
    assert tuple(hardware_of(*device).best.values()) == expected
    config = imagefolder.get_config()
    settings = check(config)
    assert (settings.model.precision, settings.generator.precision) == expected
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("precision auto on ")
    for value in expected:
        assert f".precision is {value}" in lines[0]


def test_this_machine_is_asked():
    import jax

    assert precision._own_hardware()[0] == jax.devices()[0].platform


@pytest.mark.parametrize("config", [base, cifar10, cifar100, imagefolder, imagenet100])
def test_configurations_of_the_papers_sizes_leave_it_to_the_device(config):
    found = config.get_config()
    assert (found.model.precision, found.generator.precision) == ("auto", "auto")
    sizes = found.eval_batch_size, found.decoding.batch_size, found.decoding.vae_batch_size
    assert sizes == (0, 0, 0)  # as many images at once as fit


@pytest.mark.parametrize("device", [("cpu", ""), ("gpu", "9.0")])
def test_float32_stays_and_nothing_is_said(on, capsys, device):
    on(*device)
    settings = check(quickstart.get_config())
    assert (settings.model.precision, settings.generator.precision) == NONE
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("device", "model", "generator", "named"),
    [
        (("cpu", ""), "bfloat16", "float32", ["model"]),
        (("cpu", ""), "bfloat16", "float16", ["model", "generator"]),
        (("gpu", "7.5"), "bfloat16", "float16", ["model"]),
        (("tpu", ""), "bfloat16", "float16", ["generator"]),
        (("gpu", "8.6"), "bfloat16", "float16", []),
    ],
)
def test_a_slow_one_is_named_and_kept(on, capsys, device, model, generator, named):
    on(*device)
    config = quickstart.get_config()
    config.model.precision, config.generator.precision = model, generator
    settings = check(config)
    assert (settings.model.precision, settings.generator.precision) == (model, generator)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == bool(named)
    for field, value in (("model", model), ("generator", generator)):
        assert (f"config.{field}.precision is {value}" in "".join(lines)) == (field in named)


def test_a_run_keeps_the_precision_that_auto_meant(toy, toy_run, on, capsys):
    """On this device nothing is made again; on another one it is refused and named."""
    config = toy.config()
    config.model.precision = config.generator.precision = "auto"
    on("cpu", "")
    pipeline.run(config, toy_run.workdir)
    assert "──" not in capsys.readouterr().out  # no stage
    record = read_json(toy_run.workdir / "latent_space" / "stage.json")
    assert record["settings"]["model.precision"] == "float32"
    assert read_json(toy_run.workdir / "config.json")["model"]["precision"] == "float32"
    on("tpu", "")
    with pytest.raises(UserError) as caught:
        pipeline.run(config, toy_run.workdir)
    assert "model.precision='float32', the configuration has 'bfloat16'" in str(caught.value)
    assert "precision auto on TPU: config.model.precision is bfloat16" in capsys.readouterr().out
