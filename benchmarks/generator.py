"""One denoising step of a UNet and one decoding of a VAE against PyTorch diffusers.

    python -m benchmarks.generator [--rounds 5]

The UNet has 64, 128 and 256 channels, cross-attention of width 768 and 32×32 latents at batch 8;
the VAE has 64, 128 and 256 channels and decodes as many. PyTorch runs in a process of its own. The
architectures are those of the libraries' own classes with the same configuration, with random
weights on both sides: the numbers of parameters are compared, the outputs are not.
"""

import functools
import os

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import jax
import numpy as np

from benchmarks.paired import compare, parser
from benchmarks.processes import InOwnProcess, check_installed
from dream_jax.generator.attention import attention_form
from dream_jax.training import devices

CHANNELS = (64, 128, 256)
BATCH, SIZE, TOKENS, WIDTH = 8, 32, 77, 768


def size(tree) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(tree))


UNET = {
    "sample_size": SIZE,
    "block_out_channels": CHANNELS,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 8,
    "layers_per_block": 2,
}
VAE = {
    "block_out_channels": CHANNELS,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "latent_channels": 4,
    "sample_size": 4 * SIZE,
}


def unet(rng):
    """(ours, PyTorch's) calls of one denoising step."""
    from diffusers import FlaxUNet2DConditionModel

    ours = FlaxUNet2DConditionModel(**UNET)
    latents = rng.normal(size=(BATCH, 4, SIZE, SIZE)).astype(np.float32)
    states = rng.normal(size=(BATCH, TOKENS, WIDTH)).astype(np.float32)
    params = jax.jit(ours.init_weights)(jax.random.key(0))

    def step(params, batch):
        with attention_form():
            return ours.apply(
                {"params": params}, batch["x"], np.int32(10), encoder_hidden_states=batch["states"]
            ).sample

    batch = devices.put(devices.shard({"x": latents, "states": states}))
    run = functools.partial(devices.pmap(step), devices.replicate(params), batch)
    return run, InOwnProcess("benchmarks.rivals:unet", UNET, size(params), latents, states)


def vae(rng):
    """(ours, PyTorch's) calls of one decoding."""
    from diffusers import FlaxAutoencoderKL

    ours = FlaxAutoencoderKL(**VAE)
    latents = rng.normal(size=(BATCH, 4, SIZE, SIZE)).astype(np.float32)
    params = jax.jit(ours.init_weights)(jax.random.key(0))

    def decode(params, batch):
        return ours.apply({"params": params}, batch["x"], method=ours.decode).sample

    batch = devices.put(devices.shard({"x": latents}))
    run = functools.partial(devices.pmap(decode), devices.replicate(params), batch)
    return run, InOwnProcess("benchmarks.rivals:vae", VAE, size(params), latents)


def main():
    args = parser(__doc__).parse_args()
    check_installed("torch")
    devices.use_cores()
    rng = np.random.default_rng(0)
    sizes = {"channels": CHANNELS, "latents": (4, SIZE, SIZE), "batch": BATCH}
    sizes["devices"] = jax.local_device_count()
    for name, make, title in (
        ("unet", unet, "UNet denoising step"),
        ("vae", vae, "VAE decoding"),
    ):
        ours, rival = make(rng)
        title = f"{title}, {CHANNELS} channels, {SIZE}×{SIZE} latents, batch {BATCH}"
        contenders = {"dream_jax": ours, "PyTorch diffusers": rival}
        compare(name, title, contenders, args.rounds, sizes, (BATCH, "images"))


if __name__ == "__main__":
    main()
