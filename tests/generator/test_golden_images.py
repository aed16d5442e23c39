"""Images against PyTorch diffusers': the golden files, and a pipeline that PyTorch writes here."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax.decoding.prompts import plain_prompt, prompt_with_placeholder
from dream_jax.generator import denoising
from dream_jax.generator import stable_diffusion as decoding
from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator
from dream_jax.generator.stable_diffusion import encode_prompts

GOLDEN = Path(__file__).parents[1] / "golden"
SHARED = os.environ.get("DREAM_JAX_SHARED")


def given_noise(monkeypatch, latents: np.ndarray) -> jax.Array:
    """Keys for `decode` with which its images start from the latents, one after the other."""
    monkeypatch.setattr(decoding, "draw_noise", lambda _, keys: jnp.asarray(latents)[keys[:, 1]])
    return jax.random.wrap_key_data(np.uint32([(0, index) for index in range(len(latents))]))


@pytest.mark.skipif(not SHARED, reason="DREAM_JAX_SHARED does not name the folder with the weights")
@pytest.mark.parametrize("scheduler", ["plms", "ddim"])
def test_golden_files(monkeypatch, scheduler):
    folder = Path(SHARED) / "golden" / "tiny-stable-diffusion"
    generator = load_generator(str(folder))
    with np.load(GOLDEN / f"decode_{scheduler}.npz") as file:
        golden = dict(file)
    prompt, embeddings = str(golden["prompt"]).replace("{}", "{name}"), golden["outlier_embeddings"]
    ids = np.stack([prompt_with_placeholder(generator, prompt, n) for n in golden["names"]])
    assert [len(generator.name_ids(name)) for name in golden["names"]] == [1, 1, 1, 1]

    text = generator.params["text_encoder"]
    states = encode_prompts(generator.pipeline, text, ids, embeddings)
    np.testing.assert_allclose(states, golden["hidden_states"], atol=1e-5)
    steps, guidance = int(golden["steps"]), float(golden["guidance_scale"])
    keys = given_noise(monkeypatch, golden["latents"])
    images = generator.decode(ids, embeddings, keys, Sampling(scheduler, steps, guidance, 4, 2))
    difference = np.abs(np.concatenate(list(images)) - golden["images"]).max()
    print(f"{scheduler}: largest difference {difference:.1e}")
    assert difference < 2e-4  # the issue asks for 1e-3


def pytorch_parts(tokenizer, scheduler, **unet_options):
    """The parts of a PyTorch pipeline with random weights, and what it is made with."""
    torch = pytest.importorskip("torch")
    import diffusers
    import transformers

    torch.manual_seed(0)
    text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            initializer_factor=5.0,
        )
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 4),
        cross_attention_dim=16,
        **unet_options,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        sample_size=16,
    )
    parts = (vae.eval(), text_encoder.eval(), tokenizer, unet.eval(), scheduler)
    options = {"safety_checker": None, "feature_extractor": None}
    return parts, options | {"requires_safety_checker": False}


NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("linear", [False, True])
def test_pipeline_that_pytorch_wrote(monkeypatch, tmp_path, tokenizer, linear):
    """Saved and run by PyTorch diffusers, where that is installed."""
    torch = pytest.importorskip("torch")
    import diffusers

    scheduler = diffusers.PNDMScheduler(**NOISE, skip_prk_steps=True, steps_offset=1)
    parts, options = pytorch_parts(tokenizer, scheduler, use_linear_projection=linear)
    pipeline = diffusers.StableDiffusionPipeline(*parts, **options)
    pipeline.save_pretrained(tmp_path / "pipeline")
    latents = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    prompts = ["a picture of the dog", "the black cat"]
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompts,
        num_inference_steps=7,
        guidance_scale=6.0,
        latents=torch.tensor(latents),
        output_type="np",
    ).images

    generator = load_generator(str(tmp_path / "pipeline"))
    ids = np.stack([plain_prompt(generator, "{name}", prompt) for prompt in prompts])
    keys = given_noise(monkeypatch, latents)
    images = generator.decode(ids, None, keys, Sampling("plms", 7, 6.0, 2, 2))
    np.testing.assert_allclose(np.concatenate(list(images)), expected, atol=5e-4)
    assert expected.std() > 0.05


@pytest.mark.parametrize(
    ("name", "theirs", "told", "kind", "guidance"),
    [
        ("lcm", "LCMScheduler", 16, "LatentConsistencyModelPipeline", 8.0),
        ("euler", "EulerDiscreteScheduler", None, "StableDiffusionPipeline", 1.0),
    ],
)
def test_few_steps_of_a_pipeline_that_pytorch_wrote(
    monkeypatch, tmp_path, tokenizer, name, theirs, told, kind, guidance
):
    """A latent consistency model that is told its guidance, and Turbo's way without guidance."""
    torch = pytest.importorskip("torch")
    import diffusers
    from diffusers.schedulers import scheduling_lcm

    settings = {"timestep_spacing": "trailing"} if name == "euler" else {"clip_sample": False}
    scheduler = getattr(diffusers, theirs)(**NOISE, **settings)
    parts, options = pytorch_parts(tokenizer, scheduler, time_cond_proj_dim=told)
    pipeline = getattr(diffusers, kind)(*parts, **options)
    pipeline.save_pretrained(tmp_path / "pipeline")
    latents, *noises = np.random.default_rng(0).normal(size=(4, 2, 4, 8, 8)).astype(np.float32)
    drawn = iter(noises)
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_, **__: torch.tensor(next(drawn)))
    prompts = ["a picture of the dog", "the black cat"]
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": 3, "guidance_scale": guidance, "output_type": "np"}
    expected = pipeline(prompts, latents=torch.tensor(latents), **arguments).images

    generator = load_generator(str(tmp_path / "pipeline"))
    ids = np.stack([plain_prompt(generator, "{name}", prompt) for prompt in prompts])
    keys = given_noise(monkeypatch, latents)

    def given(keys, index, latents):
        return jnp.asarray(np.stack(noises))[index][keys[:, 1]]

    monkeypatch.setattr(denoising, "_noise_of", given)
    images = generator.decode(ids, None, keys, Sampling(name, 3, guidance, 2, 2))
    difference = np.abs(np.concatenate(list(images)) - expected).max()
    print(f"{name}: largest difference {difference:.1e}")
    assert difference < 1e-3
