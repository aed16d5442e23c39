"""Images against PyTorch diffusers': the golden files, and a pipeline that PyTorch writes here."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dream_jax.decoding.prompts import plain_prompt, prompt_with_placeholder
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


@pytest.mark.parametrize("linear", [False, True])
def test_pipeline_that_pytorch_wrote(monkeypatch, tmp_path, tokenizer, linear):
    """Saved and run by PyTorch diffusers, where that is installed."""
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
        use_linear_projection=linear,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        sample_size=16,
    )
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    parts = (vae.eval(), text_encoder.eval(), tokenizer, unet.eval(), scheduler)
    pipeline = diffusers.StableDiffusionPipeline(
        *parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
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
