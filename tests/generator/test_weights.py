"""Weights in PyTorch layout against the same in Flax layout, and files that are refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_restore, to_bytes
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from dream_jax.errors import UserError
from dream_jax.generator.load import load_generator
from dream_jax.generator.weights import STEMS, weights_file

FLAX = {part: f"{flax}.msgpack" for part, (flax, _) in STEMS.items()}
TORCH = {part: f"{torch}.safetensors" for part, (_, torch) in STEMS.items()}
LISTS = "down_blocks|up_blocks|attentions|resnets|transformer_blocks|downsamplers|upsamplers"
VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def torch_tensors(folder: Path, part: str) -> dict[str, np.ndarray]:
    """A part's Flax weights as PyTorch names and lays them out, float16 as they are stored."""
    tensors = {}
    params = msgpack_restore((folder / part / FLAX[part]).read_bytes())
    for path, array in flatten_dict(params).items():
        *modules, leaf = path
        if part == "vae":
            modules = [VAE_ATTENTION.get(module, module) for module in modules]
        if part != "text_encoder":
            modules = [re.sub(rf"^({LISTS}|net|to_out)_(\d+)$", r"\1.\2", m) for m in modules]
        if leaf == "kernel":
            array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
        name = leaf if leaf == "bias" else "weight"
        tensors[".".join([*modules, name])] = np.ascontiguousarray(array)
    return tensors


@pytest.fixture
def torch_folder(toy_folder, tmp_path):
    """The toy pipeline in PyTorch layout."""
    folder = tmp_path / "torch"
    shutil.copytree(toy_folder, folder, ignore=shutil.ignore_patterns("*.msgpack"))
    for part, name in TORCH.items():
        save_file(torch_tensors(toy_folder, part), folder / part / name)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("Flax", ""))
    return folder


def rewrite(folder: Path, part: str, change) -> None:
    """Replaces a part's tensors by `change(tensors)`."""
    path = folder / part / TORCH[part]
    save_file(change(load_file(path)), path)


def load(folder: Path):
    return load_generator(str(folder))


def assert_same(generator, toy):
    expected = {k: v for k, v in toy.params.items() if k != "scheduler"}
    found = {k: v for k, v in generator.params.items() if k != "scheduler"}
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(generator.table, toy.table)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith("generator.path: ") and "\n" not in message
    return message


def test_pytorch_layout_gives_the_parameters_of_flax(torch_folder, toy):
    assert_same(load(torch_folder), toy)


def former_names(tensors):
    """The autoencoder's attention as checkpoints of 2022 have it: other names, 1×1 convolutions."""
    renamed = {v: k for k, v in VAE_ATTENTION.items()}
    out = {}
    for name, array in tensors.items():
        *modules, leaf = re.sub(r"to_out\.0", "to_out_0", name).split(".")
        attention = modules[-1].replace("to_out_0", "to_out.0")
        if attention in renamed:
            name = ".".join([*modules[:-1], renamed[attention], leaf])
            array = array[..., None, None] if array.ndim == 2 else array
        out[name] = array
    assert out.keys() != tensors.keys()
    return out


def matrices(tensors):
    """The projections of the UNet's transformers as matrices instead of 1×1 convolutions."""
    projections = [name for name in tensors if re.search(r"proj_(in|out)\.weight", name)]
    assert projections and all(tensors[name].ndim == 4 for name in projections)
    return tensors | {name: tensors[name][..., 0, 0] for name in projections}


def without_prefix(tensors):
    """The text encoder's names without their prefix, and with the buffer of former versions."""
    tensors = {name.removeprefix("text_model."): array for name, array in tensors.items()}
    return tensors | {"embeddings.position_ids": np.arange(12)[None]}


@pytest.mark.parametrize(
    ("part", "change"),
    [("vae", former_names), ("unet", matrices), ("text_encoder", without_prefix)],
)
def test_former_and_other_forms(torch_folder, toy, part, change):
    rewrite(torch_folder, part, change)
    assert_same(load(torch_folder), toy)


def split(folder: Path, part: str, index: str, names: tuple[str, str], write, tensors) -> None:
    """A part's tensors in two files with an index, instead of in one."""
    keys = sorted(tensors)
    halves = keys[: len(keys) // 2], keys[len(keys) // 2 :]
    for file, half in zip(names, halves, strict=True):
        write({key: tensors[key] for key in half}, folder / part / file)
    weight_map = {key: file for file, half in zip(names, halves, strict=True) for key in half}
    (folder / part / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


SHARDS = ("a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors")


def test_weights_in_several_files(torch_folder, toy_folder, toy):
    unet = torch_folder / "unet" / TORCH["unet"]
    index = "diffusion_pytorch_model.safetensors.index.json"
    split(torch_folder, "unet", index, SHARDS, save_file, load_file(unet))
    unet.unlink()

    def write(tensors, path):
        path.write_bytes(to_bytes(unflatten_dict(tensors, sep="/")))

    text = msgpack_restore((toy_folder / "text_encoder" / FLAX["text_encoder"]).read_bytes())
    flat = flatten_dict(text, sep="/")
    names = ("flax_model-1.msgpack", "flax_model-2.msgpack")
    split(torch_folder, "text_encoder", "flax_model.msgpack.index.json", names, write, flat)
    (torch_folder / "text_encoder" / TORCH["text_encoder"]).unlink()
    assert_same(load(torch_folder), toy)

    (torch_folder / "unet" / SHARDS[1]).unlink()
    assert f"{SHARDS[1]} is missing" in refusal(torch_folder)
    (torch_folder / "unet" / index).write_text('{"weight_map": {"a": "../vae/b.safetensors"}}')
    assert "outside its folder" in refusal(torch_folder)


def test_bfloat16_weights(torch_folder, toy):
    rewrite(
        torch_folder,
        "unet",
        lambda tensors: {k: v.astype(ml_dtypes.bfloat16) for k, v in tensors.items()},
    )
    found, expected = load(torch_folder).params["unet"], toy.params["unet"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), found, expected)
    assert found["conv_in"]["kernel"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "conv_in.bias"}, "lack 'conv_in.bias'"),
        (lambda t: t | {"class_embedding.weight": t["conv_in.bias"]}, "'class_embedding.weight'"),
        (lambda t: t | {"conv_in.bias": t["conv_in.bias"][1:]}, "'conv_in.bias' is (31,)"),
        (lambda t: t | {"conv_in.bias": np.zeros(32, np.int8)}, "'conv_in.bias' is int8"),
    ],
)
def test_weights_that_are_not_the_models(torch_folder, change, named):
    rewrite(torch_folder, "unet", change)
    message = refusal(torch_folder)
    assert named in message and str(torch_folder / "unet") in message


def test_file_cut_short(torch_folder):
    path = torch_folder / "vae" / TORCH["vae"]
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{torch_folder / 'vae'} cannot be loaded" in refusal(torch_folder)


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt", ".pth"])
def test_pickles_are_refused_with_the_way_to_convert_them(torch_folder, suffix):
    path = torch_folder / "unet" / TORCH["unet"]
    path.rename(path.with_suffix(suffix))
    message = refusal(torch_folder)
    assert f"{path.with_suffix(suffix)} is a pickle" in message
    assert f"from_pretrained('{torch_folder}').save_pretrained('{torch_folder}-safe" in message


def test_single_files_are_refused(tmp_path):
    pickle, other = tmp_path / "sd.ckpt", tmp_path / "sd.safetensors"
    pickle.touch()
    other.touch()
    assert f"from_single_file('{pickle}').save_pretrained(" in refusal(pickle)
    assert "it must be a pipeline's folder" in refusal(other)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [("unet", "norm_num_groups", 16), ("unet", "act_fn", "gelu"), ("vae", "shift_factor", 0.1)],
)
def test_what_flax_models_cannot_do_is_refused(torch_folder, part, field, value):
    path = torch_folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert f"{field} is {value!r}" in refusal(torch_folder)


def test_other_pipelines_are_refused(torch_folder):
    index = torch_folder / "model_index.json"
    index.write_text(index.read_text().replace("DiffusionPipeline", "DiffusionXLPipeline"))
    assert "is of a StableDiffusionXLPipeline" in refusal(torch_folder)


def test_one_file_of_weights_is_chosen():
    torch = ["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"]
    assert weights_file("text_encoder", [*torch, "flax_model.msgpack"]) == "flax_model.msgpack"
    assert weights_file("text_encoder", torch) == "model.safetensors"
    assert weights_file("text_encoder", torch[1:]) == "model.fp16.safetensors"
    assert weights_file("text_encoder", torch[2:]) is None
    ema = "diffusion_pytorch_model.non_ema.safetensors"  # weights without their running average
    assert weights_file("unet", [ema]) is None


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # `import torch` fails
from dream_jax.generator.load import load_generator
generator = load_generator(sys.argv[1])
print(generator.table.shape[1], [name for name in sys.modules if name.startswith("torch.")])
"""


def test_torch_is_not_needed(torch_folder):
    command = [sys.executable, "-c", WITHOUT_TORCH, str(torch_folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[-2] == "16 []"
