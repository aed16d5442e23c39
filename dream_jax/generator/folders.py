"""Finding the folder of a pipeline, and checking that its parts are there and can be used."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dream_jax.errors import UserError
from dream_jax.fingerprint import of_files
from dream_jax.generator import hub
from dream_jax.generator.hub import PARTS
from dream_jax.generator.weights import PICKLES, STEMS, check_weights, refused_pickle

PIPELINES = (
    "FlaxStableDiffusionPipeline",
    "StableDiffusionPipeline",
    "LatentConsistencyModelPipeline",
)
PREDICTIONS = ("epsilon", "v_prediction")
# Options of PyTorch's models for which Flax's models know one value.
FIXED: Mapping[str, Mapping[str, Any]] = {
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
    """Returns the folder of a pipeline, checked; downloads it from the hub if need be.

    Args:
      path: a folder; or a folder relative to the project's; or owner/name on the hub.
      revision: of a name on the hub, where it must be a commit or a tag.

    Raises:
      UserError: the folder or a part of it is missing, parts do not fit together, weights are
        pickles, or the hub lacks the pipeline or cannot be reached.
    """
    folder = check_generator(path, revision)
    if folder is None:
        folder = hub.download(path, revision)
        check_folder(folder)
    return folder


def check_generator(path: str, revision: str = "") -> Path | None:
    """Does what `generator_folder` does without a download; returns None where one is needed."""
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


def fingerprint(path: str, revision: str = "") -> dict[str, Any]:
    """Returns the fingerprint of a pipeline's parts, weights included; {} before a download."""
    folder = check_generator(path, revision)
    if folder is None:
        return {}
    files = [file for part in PARTS for file in sorted((folder / part).iterdir()) if file.is_file()]
    return of_files(folder, [file.relative_to(folder).as_posix() for file in files])


def _is_whole(folder: Path) -> bool:
    """Returns whether a download is complete: the hub's cache shows only files that are whole."""
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
    _check_parts(folder)
    for part in STEMS:
        check_weights(folder, part)
    configs = {part: read_config(folder, part) for part in (*STEMS, "scheduler")}
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
    if prediction not in PREDICTIONS:
        raise UserError(
            f"generator.path: {folder / 'scheduler'}: prediction_type is {prediction!r}; allowed: "
            f"{', '.join(PREDICTIONS)}"
        )


def _check_parts(folder: Path) -> None:
    """Checks that a folder is of a pipeline that can be read, and has a folder for each part."""
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


def read_config(folder: Path, part: str) -> dict[str, Any]:
    """Reads the configuration of a part.

    Raises:
      UserError: the file cannot be read, or holds no object.
    """
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    return _read_json(folder / part / name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"generator.path: {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"generator.path: {path} cannot be read: it holds no JSON object")
    return content
