"""Loading a pipeline, or its vocabulary alone, from a folder or from the hub."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dream_jax.errors import UserError
from dream_jax.generator.folders import generator_folder, read_config
from dream_jax.generator.interface import Generator, Vocabulary
from dream_jax.generator.vocabulary import TokenTable
from dream_jax.generator.weights import in_precision, read_weights
from dream_jax.programs import shared

PRECISIONS = ("float32", "bfloat16", "float16")


def load_vocabulary(path: str, revision: str = "") -> Vocabulary:
    """Loads the tokenizer and the token embeddings of a pipeline, and nothing else.

    Args:
      path, revision: see `generator_folder`.

    Raises:
      UserError: see `load_generator`.
    """
    folder = generator_folder(path, revision)
    _, params = _load_text_encoder(folder, np.dtype(np.float32))
    return TokenTable(_load_tokenizer(folder), _token_table(params))


def load_generator(path: str, revision: str = "", precision: str = "float32") -> Generator:
    """Loads a pipeline in Flax or PyTorch layout; torch is not needed for either.

    Args:
      path, revision: see `generator_folder`.
      precision: one of `PRECISIONS`, in which the parameters are held and text encoder, UNet and
        VAE compute. Latents and the scheduler's arithmetic are float32 in any case.

    Raises:
      UserError: see `generator_folder`; or a file cannot be read, or its weights are not the
        model's, or not finite in this precision.
    """
    # diffusers is slow to import, and `load_vocabulary` does not need it.
    from diffusers import FlaxStableDiffusionPipeline

    from dream_jax.generator.schedulers import make_scheduler
    from dream_jax.generator.stable_diffusion import StableDiffusion

    folder = generator_folder(path, revision)
    dtype = jnp.dtype(precision)
    text_encoder, text = _load_text_encoder(folder, dtype)

    def converted(path: Any, leaf: np.ndarray) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return in_precision(leaf, dtype, f"{folder / 'text_encoder'}: {name!r}")

    params = {"text_encoder": jax.tree_util.tree_map_with_path(converted, text)}
    models: dict[str, Any] = {}
    for part in ("unet", "vae"):
        with reading(folder, part):
            models[part], shapes = _network(part, read_config(folder, part), dtype)
            params[part] = read_weights(folder, part, shapes, dtype)
    with reading(folder, "scheduler"):
        noise = read_config(folder, "scheduler")
        scheduler, _ = make_scheduler("ddim", noise)  # a pipeline holds one; `decode` makes its own
    pipeline = FlaxStableDiffusionPipeline(
        models["vae"],
        text_encoder,
        _load_tokenizer(folder),
        models["unet"],
        scheduler,
        safety_checker=None,
        feature_extractor=None,
        dtype=dtype,
    )
    return StableDiffusion(pipeline, params, _token_table(text), noise)


@shared
def _network(part: str, config: dict[str, Any], dtype: np.dtype) -> tuple[Any, Any]:
    """Returns a UNet or VAE and the shapes of its parameters."""
    from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel

    from dream_jax.generator.denoising import with_guidance

    kind = {"unet": FlaxUNet2DConditionModel, "vae": FlaxAutoencoderKL}[part]
    network = kind.from_config(config, dtype=dtype)
    shapes = jax.eval_shape(network.init_weights, jax.random.key(0))
    return network, with_guidance(shapes, network.config) if part == "unet" else shapes


@shared
def _text_encoder(config: dict[str, Any], dtype: np.dtype) -> Any:
    """Returns a text encoder without parameters."""
    from transformers import CLIPTextConfig, FlaxCLIPTextModel  # slow to import

    return FlaxCLIPTextModel(CLIPTextConfig(**config), dtype=dtype, _do_init=False)


def _load_text_encoder(folder: Path, dtype: np.dtype) -> tuple[Any, dict[str, Any]]:
    """Returns the text encoder, which computes in `dtype`, and its float32 parameters."""
    with reading(folder, "text_encoder"):
        encoder = _text_encoder(read_config(folder, "text_encoder"), dtype)
        shapes = encoder.params_shape_tree
        params = read_weights(folder, "text_encoder", shapes, np.dtype(np.float32))
    return encoder, params


def _token_table(params: dict[str, Any]) -> Float[np.ndarray, "vocabulary width"]:
    return params["text_model"]["embeddings"]["token_embedding"]["embedding"]


def _load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer  # slow to import

    with reading(folder, "tokenizer"):
        return CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)


@contextlib.contextmanager
def reading(folder: Path, part: str) -> Iterator[None]:
    """Turns any error into one line that names the part whose files were being read."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # diffusers, transformers and the readers of files raise any
        reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
        raise UserError(f"generator.path: {folder / part} cannot be loaded: {reason}") from error
