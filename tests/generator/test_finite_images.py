"""A generator whose numbers leave the range of its precision is named, and writes no picture."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.serialization import msgpack_restore, msgpack_serialize
from flax.traverse_util import flatten_dict, unflatten_dict

from dream_jax.data.images import Images
from dream_jax.decoding.pictures import Order, decode_pictures, plan_pictures
from dream_jax.decoding.prompts import plain_prompt
from dream_jax.decoding.round_trips import write_round_trips
from dream_jax.errors import UserError
from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator, load_vocabulary
from dream_jax.training.finite import NotFinite

SAMPLING = Sampling("ddim", steps=1, guidance=1.0, batch_size=2, vae_batch_size=2)
PROMPT = "a picture of the {name}"
STEMS = {"text_encoder": "flax_model", "unet": "diffusion_flax_model"}


@pytest.fixture
def changed(toy_folder, tmp_path):
    """`changed(part, ending, change)`: a generator's folder with one leaf of its weights changed.

    Args:
      ending: of the leaf's path.
      change: leaf → what takes its place.
    """

    def copy(part: str, ending: str, change) -> Path:
        folder = tmp_path / "generator"
        shutil.copytree(toy_folder, folder)
        file = folder / part / f"{STEMS.get(part, 'diffusion_flax_model')}.msgpack"
        leaves = flatten_dict(msgpack_restore(file.read_bytes()))
        (path,) = [path for path in leaves if ".".join(path).endswith(ending)]
        leaves[path] = change(np.asarray(leaves[path], np.float32))
        file.write_bytes(msgpack_serialize(unflatten_dict(leaves)))
        return folder

    return copy


@pytest.fixture
def overflowing(changed) -> Path:
    """Its pixels are above 65504 before they are clipped, and finite in bfloat16 and float32."""
    return changed("vae", "decoder.conv_out.kernel", lambda leaf: 60000 * leaf / np.abs(leaf).max())


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def decoded(generator) -> np.ndarray:
    ids = np.stack([plain_prompt(generator, PROMPT, name) for name in ("dog", "seven", "dog")])
    keys = jax.random.split(jax.random.key(0), 3)
    return np.concatenate(list(generator.decode(ids, None, keys, SAMPLING)))


def test_pictures_that_overflow_float16_are_refused(overflowing, tmp_path):
    generator = load_generator(str(overflowing), precision="float16")
    with pytest.raises(NotFinite) as caught:
        decoded(generator)
    assert one_line(caught) == (
        "image 0: the generator gives latents or pixels that are not finite (NaN or infinity); "
        "config.generator.precision is float16: numbers above 65504 are infinite in it; try "
        "bfloat16 or float32"
    )
    images = Images.of(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), np.uint8))
    with pytest.raises(UserError, match=r"^image 0 of an array: the generator gives .* float16:"):
        write_round_trips(tmp_path / "trips" / "images.npy", generator, images, 2, "test")
    assert not (tmp_path / "trips" / "images.npy").exists()


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_what_overflows_float16_is_decoded_in_other_precisions(overflowing, precision):
    pictures = decoded(load_generator(str(overflowing), precision=precision))
    assert np.isfinite(pictures).all() and len(pictures) == 3


@pytest.mark.parametrize(("faulty", "kept"), [(0, 0), (1, 0), (3, 2), (4, 4)])
def test_pictures_before_one_that_is_not_finite_stay(toy_folder, decoding, tmp_path, faulty, kept):
    """An embedding that float16 cannot hold, among others that it can."""
    generator = load_generator(str(toy_folder), precision="float16")
    embeddings = np.full((1, 1, 16), 0.5, np.float32)
    order = Order("outliers", 5, ("dog",) * 5, ("dog",) * 5, 0, np.repeat(embeddings, 5, 0))
    order.embeddings[faulty] = 1e5
    pictures = plan_pictures(order, decoding)
    with pytest.raises(UserError) as caught:
        decode_pictures(order, pictures, generator, SAMPLING, (16, 16, 1), tmp_path)
    path = tmp_path / "part-00000" / "dog" / f"{faulty:06d}.png"
    assert one_line(caught).startswith(f"{path}: the generator gives ")
    assert "config.generator.precision is float16" in str(caught.value)
    written = sorted(path.name for path in tmp_path.rglob("*.png"))
    assert written == [f"{number:06d}.png" for number in range(kept)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_embeddings_that_are_not_finite_are_refused_before_any_picture(
    toy, decoding, tmp_path, value
):
    vectors = np.zeros((2, 1, 16), np.float32)
    vectors[1, 0, 3] = value
    order = Order("outliers", 2, ("dog", "seven"), ("dog", "seven"), 0, vectors)
    with pytest.raises(UserError, match=r"^embeddings of the outliers: seven has numbers that are"):
        decode_pictures(order, plan_pictures(order, decoding), toy, SAMPLING, (16, 16, 1), tmp_path)
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("part", "ending"),
    [
        ("text_encoder", "token_embedding.embedding"),
        ("unet", "conv_in.kernel"),
        ("vae", "encoder.conv_in.bias"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_named(changed, part, ending, value):
    def spoilt(leaf):
        leaf.flat[-1] = value
        return leaf

    folder = changed(part, ending, spoilt)
    with pytest.raises(UserError) as caught:
        load_generator(str(folder), precision="bfloat16")
    message = one_line(caught)
    assert message.startswith(f"generator.path: {folder / part}/")
    assert ending in message and "NaN or infinite" in message
    if part == "text_encoder":
        with pytest.raises(UserError, match="NaN or infinite"):
            load_vocabulary(str(folder))


@pytest.mark.parametrize(
    ("part", "ending"),
    [("text_encoder", "position_embedding.embedding"), ("vae", "decoder.conv_in.kernel")],
)
def test_weights_that_float16_cannot_hold_are_named(changed, part, ending):
    folder = changed(part, ending, lambda leaf: 70000 * leaf / np.abs(leaf).max())
    with pytest.raises(UserError) as caught:
        load_generator(str(folder), precision="float16")
    message = one_line(caught)
    assert str(folder / part) in message and ending in message
    assert "has numbers up to 7e+04; config.generator.precision is float16: " in message
    load_generator(str(folder), precision="bfloat16")
