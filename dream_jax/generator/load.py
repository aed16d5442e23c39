"""Finding, checking and loading a pipeline, from a folder or from the hub."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dream_jax.errors import UserError
from dream_jax.generator import hub
from dream_jax.generator.hub import PARTS
from dream_jax.generator.interface import Generator, Vocabulary
from dream_jax.generator.weights import (
    PICKLES,
    STEMS,
    check_weights,
    read_weights,
    refused_pickle,
)

SCHEDULERS = ("dpmsolver++", "ddim", "plms")
PRECISIONS = ("float32", "bfloat16", "float16")
PIPELINES = ("FlaxStableDiffusionPipeline", "StableDiffusionPipeline")
# What PyTorch's models can be told to do otherwise, and Flax's always do like this.
FIXED = {
    "unet": {
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "center_input_sample": False,
        "class_embed_type": None,
        "encoder_hid_dim_type": None,
        "resnet_time_scale_shift": "default",
    },
    "vae": {"act_fn": "silu", "latents_mean": None, "latents_std": None, "shift_factor": None},
    "scheduler": {"rescale_betas_zero_snr": False},
}
REPOSITORY = Path(__file__).resolve().parents[2]


def generator_folder(path: str, revision: str = "") -> Path:
    """The folder of a pipeline, checked to hold every part; a hub's is downloaded.

    Args:
      path: a folder as it is, else below the project's own folder, else owner/name on the hub.
      revision: of a name on the hub, where it must be a commit or a tag.

    Raises:
      UserError: the folder or a part of it is missing, parts do not fit together, weights are
        pickles, or the hub has none or cannot be reached.
    """
    folder = check_generator(path, revision)
    if folder is None:
        folder = hub.download(path, revision)
        check_folder(folder)
    return folder


def check_generator(path: str, revision: str = "") -> Path | None:
    """As `generator_folder`, without any download: None where one is needed."""
    folder = next((p for p in (Path(path), REPOSITORY / path) if p.is_dir()), None)
    if folder is None and Path(path).is_file():
        if path.endswith(PICKLES):
            raise refused_pickle(Path(path), Path(path))
        raise UserError(f"generator.path: {path} is a file; it must be a pipeline's folder")
    if folder is None and hub.is_name(path):
        hub.check_revision(path, revision)
        folder = hub.cached(path, revision)
        if folder is None or not _is_whole(folder):
            return None
    elif folder is None:
        raise UserError(f"generator.path: there is no folder {path!r}; it must hold a pipeline")
    check_folder(folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether a download has brought every file: a hub's cache shows only those that are whole."""
    try:
        check_folder(folder)
    except UserError:
        return False
    return True


def check_folder(folder: Path) -> None:
    """Checks that a folder holds every part of a pipeline and that the parts fit together.

    Raises:
      UserError: see `generator_folder`.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"generator.path: {folder} lacks model_index.json, so is no pipeline folder"
        )
    name = _read_json(index).get("_class_name")
    if name not in PIPELINES:
        raise UserError(f"generator.path: {index} is of a {name}; allowed: {', '.join(PIPELINES)}")
    for part in PARTS:
        if not (folder / part).is_dir() or not any((folder / part).iterdir()):
            raise UserError(
                f"generator.path: {folder} lacks the part {part}; allowed: a folder with "
                f"{', '.join(PARTS)}"
            )
    for part in STEMS:
        check_weights(folder, part)
    configs = {part: _read_config(folder, part) for part in (*STEMS, "scheduler")}
    text, unet = configs["text_encoder"], configs["unet"]
    if text.get("hidden_size") != unet.get("cross_attention_dim"):
        raise UserError(
            f"generator.path: {folder}: the text encoder's hidden_size {text.get('hidden_size')} "
            f"is not the UNet's cross_attention_dim {unet.get('cross_attention_dim')}"
        )
    for part, fixed in FIXED.items():
        for field, value in fixed.items():
            found = configs[part].get(field, value)
            if found != value:
                raise UserError(
                    f"generator.path: {folder / part}: {field} is {found!r}; Flax's models can "
                    f"only do {value!r}"
                )
    prediction = configs["scheduler"].get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise UserError(
            f"generator.path: {folder / 'scheduler'}: prediction_type is {prediction!r}; allowed: "
            f"epsilon, v_prediction"
        )


def _read_config(folder: Path, part: str) -> dict:
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    return _read_json(folder / part / name)


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"generator.path: {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"generator.path: {path} cannot be read: it holds no JSON object")
    return content


def load_vocabulary(path: str, revision: str = "") -> Vocabulary:
    """Loads the tokenizer and the token embeddings of a pipeline, and nothing else.

    Args:
      path, revision: see `generator_folder`.

    Raises:
      UserError: see `load_generator`.
    """
    from dream_jax.generator.vocabulary import TokenTable

    folder = generator_folder(path, revision)
    _, text = _text_encoder(folder, np.dtype(np.float32))
    return TokenTable(_tokenizer(folder), _table(text))


def load_generator(path: str, revision: str = "", precision: str = "float32") -> Generator:
    """Loads a pipeline in Flax or PyTorch layout; torch is not needed for either.

    Args:
      path, revision: see `generator_folder`.
      precision: one of `PRECISIONS`, in which the parameters are held and text encoder, UNet and
        VAE compute. Latents and the scheduler's arithmetic are float32 in any case.

    Raises:
      UserError: see `generator_folder`; a file cannot be read or its weights are not the model's.
    """
    from diffusers import FlaxAutoencoderKL, FlaxStableDiffusionPipeline, FlaxUNet2DConditionModel

    from dream_jax.generator.schedulers import make_scheduler
    from dream_jax.generator.stable_diffusion import StableDiffusion

    folder = generator_folder(path, revision)
    dtype = jax.numpy.dtype(precision)
    text_encoder, text = _text_encoder(folder, dtype)
    params = {"text_encoder": jax.tree.map(lambda leaf: leaf.astype(dtype), text)}
    models = {}
    for part, kind in (("unet", FlaxUNet2DConditionModel), ("vae", FlaxAutoencoderKL)):
        with _reading(folder, part):
            models[part] = kind.from_config(_read_config(folder, part), dtype=dtype)
            shapes = jax.eval_shape(models[part].init_weights, jax.random.key(0))
            params[part] = read_weights(folder, part, shapes, dtype)
    with _reading(folder, "scheduler"):
        noise = _read_config(folder, "scheduler")
        scheduler, _ = make_scheduler("ddim", noise)  # a pipeline holds one; `decode` makes its own
    pipeline = FlaxStableDiffusionPipeline(
        models["vae"],
        text_encoder,
        _tokenizer(folder),
        models["unet"],
        scheduler,
        safety_checker=None,
        feature_extractor=None,
        dtype=dtype,
    )
    return StableDiffusion(pipeline, params, _table(text), noise)


def _text_encoder(folder: Path, dtype: np.dtype) -> tuple[Any, dict]:
    """Returns the text encoder, which computes in `dtype`, and its float32 parameters."""
    from transformers import CLIPTextConfig, FlaxCLIPTextModel

    with _reading(folder, "text_encoder"):
        config = CLIPTextConfig(**_read_config(folder, "text_encoder"))
        encoder = FlaxCLIPTextModel(config, dtype=dtype, _do_init=False)
        text = read_weights(folder, "text_encoder", encoder.params_shape_tree, np.dtype(np.float32))
    return encoder, text


def _table(text: dict) -> np.ndarray:
    return text["text_model"]["embeddings"]["token_embedding"]["embedding"]


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    with _reading(folder, "tokenizer"):
        return CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)


@contextlib.contextmanager
def _reading(folder: Path, part: str) -> Iterator[None]:
    """Names the part whose files diffusers, transformers and the readers of weights complain of."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of many kinds
        reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
        raise UserError(f"generator.path: {folder / part} cannot be loaded: {reason}") from error
