"""Named activations of a network: read and changed, without changing what it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax.models import layers
from dream_jax.models.resnet import build_model, init_model
from dream_jax.settings import ModelSettings

MODEL = ModelSettings(arch="resnet8", width=4, stem="stride2", precision="float32")


@pytest.fixture(scope="module")
def network():
    model = build_model(MODEL, 3)
    return model, init_model(model, jax.random.key(0), (16, 16, 1))


IMAGES = np.random.default_rng(0).random((5, 16, 16, 1)).astype(np.float32)


def test_layers_are_what_the_network_computes(network):
    model, variables = network
    assert set(variables) == {"params", "batch_stats"}  # which checkpoints hold
    assert model.maps == ("stage1", "stage2", "stage3")
    plain = jax.jit(model.apply)(variables, IMAGES)
    unused = jax.jit(lambda v, x: layers.run(model, v, x, model.maps)[0])(variables, IMAGES)
    for one, other in zip(plain, unused, strict=True):
        np.testing.assert_array_equal(one, other)  # to the last bit
    names = ("stage3", "stage1", "features")
    (logits, features), shown = jax.jit(lambda v, x: layers.run(model, v, x, names))(
        variables, IMAGES
    )
    np.testing.assert_allclose(logits, plain[0], atol=1e-6)
    assert [*layers.run(model, variables, IMAGES, names)[1]] == [*names]
    assert shown["stage1"].shape == (5, 8, 8, 4) and shown["stage3"].shape == (5, 2, 2, 16)
    np.testing.assert_allclose(jnp.mean(shown["stage3"], axis=(1, 2)), features, atol=1e-6)
    np.testing.assert_array_equal(shown["features"], features)


def test_the_network_goes_on_with_what_is_added(network):
    model, variables = network

    @jax.jit
    def run(added):
        return layers.run(model, variables, IMAGES, ("stage2", "stage3"), added)

    (logits, features), shown = run({"stage2": jnp.zeros((5, 4, 4, 8))})
    (same, _), _ = run(None)
    np.testing.assert_allclose(logits, same, atol=1e-6)
    # Without what an inner layer gives, all images are one to what follows.
    (alike, _), rest = run({"stage2": -shown["stage2"]})
    assert not rest["stage2"].any() and np.ptp(alike, axis=0).max() < 1e-6 < np.ptp(logits)
    head = variables["params"]["head"]
    (moved, _), _ = run({"features": jnp.ones_like(features)})
    np.testing.assert_allclose(moved - logits, np.tile(head["kernel"].sum(0), (5, 1)), atol=1e-5)
    zeros = {"stage2": jnp.zeros((5, 4, 4, 8)), "features": jnp.zeros_like(features)}
    slope = jax.grad(lambda added: jnp.sum(run(added)[0][0][:, 0]))(zeros)
    np.testing.assert_allclose(slope["features"], np.tile(head["kernel"][:, 0], (5, 1)), atol=1e-6)
    step = 1e-3 * np.sign(slope["stage2"])
    ahead, back = (np.sum(run({"stage2": way * step})[0][0][:, 0]) for way in (1, -1))
    np.testing.assert_allclose((ahead - back) / 2, np.sum(step * slope["stage2"]), rtol=0.05)


def test_layers_that_the_network_does_not_show(network):
    model, variables = network
    for names, added in ((("stage4",), None), ((), {"stem": jnp.zeros((5, 8, 8, 4))})):
        words = "shows no layer '(stage4|stem)'; it shows .*stage1.*features"
        with pytest.raises(ValueError, match=words):
            layers.run(model, variables, IMAGES, names, added)
