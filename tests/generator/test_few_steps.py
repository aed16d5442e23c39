"""Schedulers and folders of generators that paint in a few steps."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import FlaxUNet2DConditionModel
from flax.serialization import msgpack_restore, msgpack_serialize

from dream_jax.errors import UserError
from dream_jax.generator.denoising import denoise, with_guidance
from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator
from dream_jax.generator.schedulers import check_steps, make_scheduler

NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
SHAPE = (2, 4, 3, 3)


def output_of(sample, time):
    """What stands for the UNet: any function of its input and the time."""
    return np.sin(3 * sample + time / 200).astype(np.float32)


def picture_of(output, sample, alpha, prediction):
    if prediction == "v_prediction":
        return alpha**0.5 * sample - (1 - alpha) ** 0.5 * output
    return (sample - (1 - alpha) ** 0.5 * output) / alpha**0.5


def run(name, config, steps, noises):
    """The latents after each step of ours, and its timesteps."""
    scheduler, state = make_scheduler(name, NOISE | config)
    state = scheduler.set_timesteps(state, num_inference_steps=steps, shape=SHAPE)
    latents, found = noises[0] * state.init_noise_sigma, []
    for index, time in enumerate(np.asarray(state.timesteps)):
        sample = scheduler.scale_model_input(state, latents, time)
        more = {"noise": noises[index + 1]} if scheduler.draws else {}
        output = output_of(np.asarray(sample), time)
        latents, state = scheduler.step(state, output, time, latents, **more).to_tuple()
        found.append(np.asarray(latents))
    return found, np.asarray(state.timesteps).tolist()


@pytest.fixture
def noises():
    return np.random.default_rng(0).normal(size=(9, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("steps", "times"), [(1, [999]), (4, [999, 759, 499, 259])])
def test_lcm_is_the_papers(noises, steps, times, prediction):
    """Equation 9 and algorithm 3 of Luo et al. (2023), in NumPy."""
    found, own_times = run("lcm", {"prediction_type": prediction}, steps, noises)
    assert own_times == times
    latents = noises[0].astype(float)
    for index, time in enumerate(times):
        scaled = 10.0 * time
        skip = 0.5**2 / (scaled**2 + 0.5**2)
        out = scaled / (scaled**2 + 0.5**2) ** 0.5
        output = output_of(latents.astype(np.float32), time)
        latents = skip * latents + out * picture_of(output, latents, ALPHAS[time], prediction)
        if index + 1 < len(times):
            alpha = ALPHAS[times[index + 1]]
            latents = alpha**0.5 * latents + (1 - alpha) ** 0.5 * noises[index + 1]
        np.testing.assert_allclose(found[index], latents, atol=2e-3)


def test_lcm_at_the_first_moment_is_the_identity():
    """The boundary condition: at time 0, what goes in comes out."""
    scheduler, state = make_scheduler("lcm", NOISE | {"original_inference_steps": 1000})
    state = state.replace(timesteps=jnp.int32([0]))
    sample = np.ones(SHAPE, np.float32)
    made = scheduler.step(state, 5 * sample, jnp.int32(0), sample, noise=sample).prev_sample
    np.testing.assert_allclose(made, sample)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("spacing", "times"),
    [
        ("trailing", [999, 749, 499, 249]),
        ("leading", [751, 501, 251, 1]),
        ("linspace", [999, 666, 333, 0]),
    ],
)
def test_euler_follows_the_folders_spacing(noises, spacing, times, prediction):
    """DDIM's step from noise to noise, which in the scale of the noise is Euler's; in NumPy."""
    config = {"timestep_spacing": spacing, "steps_offset": 1, "prediction_type": prediction}
    found, own_times = run("euler", config, 4, noises)
    assert own_times == times
    scales = ((1 - ALPHAS[times]) / ALPHAS[times]) ** 0.5
    start = (scales[0] ** 2 + (spacing == "leading")) ** 0.5
    latents = noises[0] * start * ALPHAS[times[0]] ** 0.5  # in the scale of variance 1
    for index, time in enumerate(times):
        alpha = ALPHAS[time]
        output = output_of(latents.astype(np.float32), time)
        picture = picture_of(output, latents, alpha, prediction)
        noise = (latents - alpha**0.5 * picture) / (1 - alpha) ** 0.5
        following = ALPHAS[times[index + 1]] if index < 3 else 1.0
        latents = following**0.5 * picture + (1 - following) ** 0.5 * noise
        np.testing.assert_allclose(found[index] * following**0.5, latents, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "theirs", "config", "steps"),
    [
        ("lcm", "LCMScheduler", {}, 4),
        ("lcm", "LCMScheduler", {"original_inference_steps": 40, "timestep_scaling": 1.0}, 7),
        ("euler", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, 1),
        ("euler", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, 7),
        ("euler", "EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}, 6),
        ("euler", "EulerDiscreteScheduler", {"timestep_spacing": "linspace"}, 4),
    ],
)
def test_steps_are_those_of_pytorch(noises, monkeypatch, name, theirs, config, steps):
    torch = pytest.importorskip("torch")
    import diffusers
    from diffusers.schedulers import scheduling_lcm

    drawn = iter(noises[1:])
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_, **__: torch.tensor(next(drawn)))
    plain = {"clip_sample": False} if name == "lcm" else {}
    scheduler = getattr(diffusers, theirs)(**NOISE, **config, **plain)
    scheduler.set_timesteps(steps)
    latents = torch.tensor(noises[0]) * scheduler.init_noise_sigma
    found, times = run(name, config, steps, noises)
    assert times == scheduler.timesteps.tolist()
    for ours, time in zip(found, scheduler.timesteps, strict=True):
        sample = scheduler.scale_model_input(latents, time)
        output = torch.tensor(output_of(sample.numpy(), time.item()))
        latents = scheduler.step(output, time, latents).prev_sample
        np.testing.assert_allclose(ours, latents, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "config", "steps", "found"),
    [
        ("lcm", {}, 51, "at least 1 and at most 50"),
        ("lcm", {"original_inference_steps": 20}, 21, "at least 1 and at most 20"),
        ("lcm", {"original_inference_steps": 0}, 4, "original_inference_steps is 0"),
        ("lcm", {"original_inference_steps": 2000}, 4, "original_inference_steps is 2000"),
        ("lcm", {"timestep_scaling": "10"}, 4, "timestep_scaling is '10'"),
        ("euler", {}, 1001, "at least 1 and at most 1000"),
        ("euler", {"timestep_spacing": "linspace"}, 1, "at least 2 and at most 1000"),
        ("euler", {"timestep_spacing": "leading"}, 1, "at least 2 and at most 500"),
        ("euler", {"timestep_spacing": "karras"}, 4, "timestep_spacing is 'karras'"),
        ("euler", {"steps_offset": -3}, 4, "steps_offset is -3"),
    ],
)
def test_steps_that_cannot_be_taken_are_refused(name, config, steps, found):
    with pytest.raises(UserError) as caught:
        check_steps(name, NOISE | config, steps)
    assert found in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def told_folder(toy_folder, tmp_path_factory):
    """A latent consistency model: a folder whose UNet is told its guidance, in 8 features."""
    folder = tmp_path_factory.mktemp("told") / "pipeline"
    shutil.copytree(toy_folder, folder)
    edit(folder / "model_index.json", _class_name="LatentConsistencyModelPipeline")
    edit(folder / "unet" / "config.json", time_cond_proj_dim=8)
    weights = folder / "unet" / "diffusion_flax_model.msgpack"
    params = msgpack_restore(weights.read_bytes())
    kernel = np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32)
    params["time_embedding"]["cond_proj"] = {"kernel": kernel}
    weights.write_bytes(msgpack_serialize(params))
    return folder


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_unet_is_told_its_guidance_in_one_pass():
    """As if the guidance's features had moved the first bias of the time's embedding."""
    unet = FlaxUNet2DConditionModel(
        sample_size=4,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(unet.init_weights, jax.random.key(0))
    shapes = with_guidance(shapes, {**unet.config, "time_cond_proj_dim": 8})
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
    scheduler, fresh = make_scheduler("lcm", NOISE)
    states = rng.normal(size=(2, 5, 8)).astype(np.float32)
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 2))
    options = {"scheduler": scheduler, "steps": 1}

    def made(params, guidance):
        given = (params, fresh, states, states[:1], latents, keys)
        return denoise(SimpleNamespace(unet=unet), *given, guidance=guidance, **options)

    latents = rng.normal(size=(2, 4, 4, 4)).astype(np.float32)
    # Features of w = 8 - 1: sines and cosines of 1000 w by four rates from 1 to 1/10,000.
    angles = 7000 * 10.0 ** (-4 / 3 * np.arange(4))
    features = np.concatenate([np.sin(angles), np.cos(angles)])
    embedding = dict(params["time_embedding"])
    added = features @ embedding.pop("cond_proj")["kernel"]
    first = embedding["linear_1"]
    moved = {"kernel": first["kernel"], "bias": first["bias"] + added @ first["kernel"]}
    by_hand = {**params, "time_embedding": {**embedding, "linear_1": moved}}
    eight, one = jax.jit(lambda tree: (made(tree, 8.0), made(tree, 1.0)))(params)
    expected = jax.jit(lambda tree: made(tree, 1.0))(by_hand)
    np.testing.assert_allclose(eight, expected, atol=1e-3)
    assert np.abs(eight - one).max() > 0.05
    program = str(jax.make_jaxpr(lambda tree: made(tree, 8.0))(params))
    assert "f32[2,4,4,32]" in program and "f32[4,4,4,32]" not in program  # two images, one pass


def test_weights_by_which_a_unet_is_told_must_be_there(toy_folder, told_folder, tmp_path):
    lacking = shutil.copytree(toy_folder, tmp_path / "lacking")
    edit(lacking / "unet" / "config.json", time_cond_proj_dim=8)
    odd = shutil.copytree(toy_folder, tmp_path / "odd")
    edit(odd / "unet" / "config.json", time_cond_proj_dim="8")
    unasked = shutil.copytree(told_folder, tmp_path / "unasked")
    edit(unasked / "unet" / "config.json", time_cond_proj_dim=None)
    for folder, reason in (
        (lacking, "its weights lack 'time_embedding.cond_proj.kernel'"),
        (odd, "time_cond_proj_dim is '8'"),
        (unasked, "the model has no 'time_embedding.cond_proj.kernel'"),
    ):
        with pytest.raises(UserError, match=reason):
            load_generator(str(folder))


def test_each_picture_draws_its_own_noise_at_each_step(toy):
    """A picture is the same whatever others are painted with it."""
    prompt = toy.prompt_ids(toy.name_ids("a picture of the dog"))
    keys = jax.random.split(jax.random.key(3), 3)
    sampling = Sampling("lcm", steps=3, guidance=1.0, batch_size=2, vae_batch_size=2)
    of_three = np.concatenate(list(toy.decode(np.stack([prompt] * 3), None, keys, sampling)))
    alone = np.concatenate(list(toy.decode(prompt[None], None, keys[2:], sampling)))
    np.testing.assert_allclose(of_three[2:], alone, atol=1e-5)
    assert np.abs(of_three[0] - of_three[1]).max() > 0.01
