"""The weights of a pipeline's parts: finding their files and reading them, but never a pickle.

A part has its weights in Flax layout (msgpack) or in PyTorch layout (safetensors), in one file or
in several with an index.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped
from safetensors import safe_open

from dream_jax.errors import UserError
from dream_jax.generator.torch_weights import BUFFERS, LeafPath, flax_layout, flax_path
from dream_jax.git_lfs import ADVICE, is_pointer
from dream_jax.training.finite import REMEDIES, is_finite

STEMS = {  # of the files in Flax and in PyTorch layout
    "text_encoder": ("flax_model", "model"),
    "unet": ("diffusion_flax_model", "diffusion_pytorch_model"),
    "vae": ("diffusion_flax_model", "diffusion_pytorch_model"),
}
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
CONVERT = (
    'python -c "from diffusers import StableDiffusionPipeline as P; '
    "P.{load}('{source}').save_pretrained('{target}')\""
)


def weights_file(part: str, names: Collection[str]) -> str | None:
    """Returns which of the names in a part's folder is the file of its weights, or of their index.

    Prefers Flax's layout, then full precision; returns None where no file can be read.
    """
    flax, torch = STEMS[part]
    wanted = [f"{flax}.msgpack", f"{flax}.msgpack.index.json"]
    for variant in ("", ".fp16", ".bf16"):
        wanted += [f"{torch}{variant}.safetensors", f"{torch}.safetensors.index{variant}.json"]
    return next((name for name in wanted if name in names), None)


def check_weights(folder: Path, part: str) -> None:
    """Checks that a part has weights that can be read.

    Raises:
      UserError: it has none; the message names the pickle and how to convert it, or the file that
        is missing.
    """
    for path in _files(folder, part):
        if not path.is_file():
            raise UserError(f"generator.path: {path} is missing, which the part's index names")
        if is_pointer(path):
            raise UserError(f"generator.path: {path} is a Git LFS pointer; {ADVICE}")


def _files(folder: Path, part: str) -> list[Path]:
    """Returns the files of a part's weights; see `check_weights`."""
    names = sorted(path.name for path in (folder / part).iterdir())
    name = weights_file(part, names)
    if name is None:
        pickle = next((n for n in names if n.endswith(PICKLES)), None)
        if pickle:
            raise refused_pickle(folder / part / pickle, folder)
        flax, torch = STEMS[part]
        raise UserError(
            f"generator.path: {folder / part} lacks weights; allowed: {flax}.msgpack (Flax) or "
            f"{torch}.safetensors (PyTorch)"
        )
    return shards(folder / part / name)


def refused_pickle(path: Path, source: Path) -> UserError:
    """Returns the error for a pickle, with the command that converts `source`.

    Args:
      path: the pickle.
      source: a pipeline's folder, or a single file that holds a pipeline.
    """
    load = "from_pretrained" if source.is_dir() else "from_single_file"
    target = source.with_name(f"{source.stem}-safetensors")
    command = CONVERT.format(load=load, source=source, target=target)
    return UserError(
        f"generator.path: {path} is a pickle, which may run any code and is never loaded; where "
        f"torch is installed, convert it by {command} and give {target}"
    )


def shards(path: Path) -> list[Path]:
    """Returns the files of weights behind `path`: itself, or those that it names as an index.

    Raises:
      UserError: the index cannot be read.
    """
    if path.suffix != ".json":
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
        if any(PurePath(name).name != name for name in names):
            raise ValueError("it names files outside its folder")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"generator.path: {path} cannot be read as an index: {error}") from error
    return [path.with_name(name) for name in names]


def read_weights(
    folder: Path, part: str, shapes: Mapping[str, Any], dtype: np.dtype
) -> dict[str, Any]:
    """Reads the parameters of a part.

    Args:
      folder: the pipeline's; see `check_weights`.
      shapes: the model's parameter tree, whose leaves have a `shape`.
      dtype: of the result; each leaf is converted as soon as it is read.

    Returns:
      A tree of NumPy arrays like `shapes`.

    Raises:
      UserError: a leaf is missing or unexpected, has another shape, is no float, or is not finite
        in the file or in `dtype`.
    """
    from flax.traverse_util import flatten_dict, unflatten_dict  # Flax: slow to import

    wanted = {path: leaf.shape for path, leaf in flatten_dict(shapes).items()}
    params = {}
    for file in _files(folder, part):
        for name, path, array in leaves_of(file, wanted):
            if path is None:
                raise UserError(f"generator.path: {file}: the model has no {name!r}")
            if array.shape != wanted[path]:
                raise UserError(
                    f"generator.path: {file}: {name!r} is {array.shape} in Flax's layout, the "
                    f"model needs {wanted[path]}"
                )
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise UserError(
                    f"generator.path: {file}: {name!r} is {array.dtype}; allowed: float32, "
                    f"float16, bfloat16"
                )
            if not is_finite(array):
                raise UserError(
                    f"generator.path: {file}: {name!r} has numbers that are NaN or infinite; the "
                    f"file is damaged, or its training failed: get it again, or another"
                )
            params[path] = in_precision(array, dtype, f"{file}: {name!r}")
    missing = next((path for path in wanted if path not in params), None)
    if missing:
        raise UserError(
            f"generator.path: {folder / part}: its weights lack {'.'.join(missing)!r}, which its "
            f"config.json asks for"
        )
    return unflatten_dict(params)


def in_precision(array: Shaped[np.ndarray, "..."], dtype: np.dtype, name: str) -> np.ndarray:
    """Returns a finite leaf in another precision.

    Raises:
      UserError: its numbers are too large for that; names the leaf.
    """
    with np.errstate(over="ignore"):
        made = np.asarray(array, dtype, order="C")
    if made.dtype != array.dtype and not is_finite(made):
        raise UserError(
            f"generator.path: {name} has numbers up to {np.max(np.abs(array)):.3g}; "
            f"config.generator.precision is {made.dtype.name}: {REMEDIES[made.dtype.name]}"
        )
    return made


def leaves_of(
    file: Path, wanted: Mapping[LeafPath, tuple[int, ...]]
) -> Iterator[tuple[str, LeafPath | None, Shaped[np.ndarray, "..."]]]:
    """Yields (name in the file, path in the model or None, array in Flax's layout) of each leaf."""
    if file.suffix == ".msgpack":
        from flax.serialization import msgpack_restore
        from flax.traverse_util import flatten_dict

        for path, array in flatten_dict(msgpack_restore(file.read_bytes())).items():
            yield ".".join(path), path if path in wanted else None, array
        return
    with safe_open(file, "np") as tensors:
        for name in tensors.keys():  # noqa: SIM118, the file is no dict
            if name in BUFFERS:
                continue
            path, array = flax_path(name, wanted), tensors.get_tensor(name)
            if path is not None:
                array = flax_layout(array, path, len(wanted[path]))
            yield name, path, array
