"""Stable Diffusion v1.4 at its real size, with random weights: one image of 512×512 on the CPU.

    python -m benchmarks.full_size [--precision float32]

Builds the text encoder (CLIP ViT-L/14's), the UNet and the VAE with the sizes of v1.4's published
configuration, and runs the project's own decoding with classifier-free guidance: two denoising
steps of DDIM at 64×64 latents. Prints and writes to `benchmarks/results/full_size.json`, per part:

- `parameters`, and `flops` by XLA's own count, a multiplication and an addition each 1, of the
  plain form of the program (without this project's CPU forms); the UNet's are those of one step;
- `seconds` of a run after compilation, and `compile_seconds`;
- `program_bytes`: XLA's arguments, results and temporaries;
- `plain_temporary_bytes`: XLA's temporaries in the plain form, as an accelerator would run it;
- `peak_bytes`: the process's most memory until the part's end, compiling included.
"""

import argparse
import functools
import json
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.architectures import NOISE, V1_4, build
from benchmarks.paired import RESULTS, environment
from dream_jax.generator.load import PRECISIONS
from dream_jax.generator.schedulers import make_scheduler
from dream_jax.generator.stable_diffusion import decode_latents, denoise, draw_noise, encode_prompts
from dream_jax.training import devices

STEPS, GUIDANCE = 2, 7.5


def draw(shapes: dict, dtype: np.dtype, rng: np.random.Generator) -> dict:
    """Random weights on the device, (1, ...) each, leaf by leaf: never a second copy of all."""

    def leaf(path, shape):
        if path[-1].key in ("scale", "bias"):
            values = np.full(shape.shape, path[-1].key == "scale", dtype)
        else:
            spread = np.float32(np.prod(shape.shape[:-1]) ** -0.5)
            values = (rng.standard_normal(shape.shape, np.float32) * spread).astype(dtype)
        return devices.put(values[None])

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def plain(function, *arguments) -> dict[str, float]:
    """XLA's figures for a program as plain Flax writes it, without a loop, which it counts once."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), arguments)
    lowered = jax.jit(function).lower(*shapes)
    temporaries = lowered.compile().memory_analysis().temp_size_in_bytes
    return {"flops": lowered.cost_analysis()["flops"], "plain_temporary_bytes": temporaries}


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(function, params, *arguments) -> tuple[jax.Array, dict]:
    """Compiles and runs a part on one device: (its result, what it took)."""
    program = devices.pmap(function)
    start = time.perf_counter()
    compiled = program.lower(params, *arguments).compile()
    compiled_after = time.perf_counter() - start
    start = time.perf_counter()
    result = jax.block_until_ready(compiled(params, *arguments))
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    return result, {
        "seconds": seconds,
        "compile_seconds": compiled_after,
        "program_bytes": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes,
        "peak_bytes": peak_memory(),
    }


def main():
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--precision", choices=PRECISIONS, default="float32")
    dtype = jnp.dtype(flags.parse_args().precision)
    jax.config.update("jax_num_cpu_devices", 1)  # each device holds the whole model
    rng = np.random.default_rng(0)
    pipeline, shapes = build(V1_4, dtype)
    scheduler, state = make_scheduler("ddim", NOISE)
    state = devices.put(jax.tree.map(lambda a: np.asarray(a)[None], state))
    parts, begin = {}, time.perf_counter()

    weights = {name: draw(tree, dtype, rng) for name, tree in shapes.items()}
    print(f"random weights: {time.perf_counter() - begin:.0f} s, {peak_memory() / 1e9:.2f} GB")

    def part(name: str, title: str, function, plain_figures, *arguments):
        params = weights[name]
        result, figures = measure(function, params, *arguments)
        parts[title] = {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
            **figures,
            **plain_figures(params),
        }
        row = parts[title]
        print(
            f"{title:34}{row['parameters'] / 1e6:9.1f} M{row['flops'] / 1e12:10.3f} TFLOP"
            f"{row['seconds']:9.1f} s{row['program_bytes'] / 1e9:9.2f} GB"
            f"{row['peak_bytes'] / 1e9:9.2f} GB",
            flush=True,
        )
        return result

    print(f"{'':34}{'parameters':>11}{'one run':>16}{'time':>11}{'program':>12}{'peak':>12}")
    ids = devices.put(
        rng.integers(0, V1_4.text_encoder["vocab_size"], (1, 2, V1_4.tokens), np.int32)
    )
    own = devices.put(np.zeros((1, 2, V1_4.text_encoder["hidden_size"]), np.float32))
    encode = functools.partial(encode_prompts, pipeline)
    states = part(
        "text_encoder",
        "text encoder, prompt and empty one",
        encode,
        lambda params: plain(encode, params, ids, own),
        ids,
        own,
    )
    keys = devices.put(
        np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), 1)))[None]
    )
    noise = devices.pmap(functools.partial(draw_noise, pipeline))(keys)

    def evaluate(params, latents, states):
        """The UNet on both branches, as `denoise` evaluates it once per timestep."""
        return pipeline.unet.apply(
            {"params": params}, latents, jnp.int32([1, 1]), encoder_hidden_states=states
        ).sample

    both = jax.ShapeDtypeStruct((1, 2, *noise.shape[2:]), noise.dtype)
    run = functools.partial(denoise, pipeline, scheduler=scheduler, steps=STEPS, guidance=GUIDANCE)
    latents = part(
        "unet",
        f"UNet, {STEPS} steps with guidance",
        run,
        lambda params: plain(evaluate, params, both, states),
        state,
        states[:, :1],
        states[:, 1:],
        noise,
    )

    def plain_decode(params, latents):
        return pipeline.vae.apply({"params": params}, latents, method=pipeline.vae.decode).sample

    images, _ = part(
        "vae",
        "VAE decoder",
        functools.partial(decode_latents, pipeline, at_once=1, image_shape=None),
        lambda params: plain(plain_decode, params, latents),
        latents,
        keys,
    )
    assert images.shape == (1, 1, 512, 512, 3) and bool(jnp.isfinite(images).all())
    result = {
        "name": "full_size",
        "precision": str(dtype),
        "sizes": {"image": images.shape[2:], "steps": STEPS, "guidance": GUIDANCE, "batch": 1},
        "parts": parts,
        "seconds": time.perf_counter() - begin,
        "peak_bytes": peak_memory(),
        **environment(),
    }
    print(
        f"all: {result['seconds']:.0f} s with compiling, peak {result['peak_bytes'] / 1e9:.2f} GB"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "full_size.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
