"""CLIP (Radford et al., ICML 2021) from a folder or from the hub's cache, by Flax; no torch.

Its image encoder is a vision transformer. Next to an image's embedding it gives one for each place
of the image, as GL-MCM: the last layer's values in place of what its attention makes of them.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from dream_jax.data.images import Images
from dream_jax.errors import UserError
from dream_jax.generator.vocabulary import whole_words
from dream_jax.generator.weights import leaves_of
from dream_jax.training.devices import MappedFunction
from dream_jax.training.finite import Origin, is_finite
from dream_jax.vectors import unit
from dream_jax.zero_shot.folder import WEIGHTS

# Of the images that CLIP was trained on.
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEXTS_AT_ONCE = 256


class Clip:
    """CLIP's two encoders.

    Args:
      model: a FlaxCLIPModel without parameters.
      params: its parameters.
      tokenizer: of its texts.
      batch_size: images at once over the devices of all processes.
    """

    def __init__(self, model: Any, params: dict, tokenizer: Any, batch_size: int):
        self._model, self._params, self._tokenizer = model, params, tokenizer
        self._batch_size = batch_size
        self._origin = Origin("CLIP")

    def words(self) -> list[str]:
        """Returns the words that are one token of its texts; see `whole_words`.

        Raises:
          UserError: there is none.
        """
        words = whole_words(self._tokenizer.get_vocab())
        if not words:
            raise UserError(
                "config.zero_shot.words is '', and CLIP's tokenizer has no whole words; give a "
                "file of words, one a line"
            )
        return words

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Returns the unit embeddings of texts; one that is too long is cut off."""
        positions = self._model.config.text_config.max_position_embeddings
        # No token looks at those after it, so padding to the longest text is enough.
        own = {"padding": "longest", "max_length": positions, "truncation": True}
        tokens = self._tokenizer(list(texts), return_tensors="np", **own)

        def encode(params: dict, batch: dict) -> jax.Array:
            found = self._model.get_text_features(batch["ids"], batch["attention"], params=params)
            return unit(found)

        size = min(len(texts), TEXTS_AT_ONCE)
        mapped = MappedFunction(encode, self._params, size, self._origin)
        return mapped({"ids": tokens["input_ids"], "attention": tokens["attention_mask"]})

    def score(self, program: Any, images: Images, texts: Any) -> Any:
        """Returns what a function makes of the embeddings of images, batch by batch.

        Args:
          program: (unit embeddings (n, d), those of their places (n, places, d), texts) → a pytree
            of arrays (n, ...); traced.
          texts: a pytree of arrays that it uses, such as embeddings of texts.
        """

        def run(variables: tuple, batch: dict) -> Any:
            params, own = variables
            return program(*encode_images(self._model, params, batch["images"]), own)

        variables = (self._params, texts)
        return MappedFunction(run, variables, self._batch_size, self._origin)({"images": images})


def encode_images(
    model: Any, params: dict, images: Float[Array, "n H W C"]
) -> tuple[Float[Array, "n d"], Float[Array, "n places d"]]:
    """Returns the unit embeddings of images in [0, 1], of one channel or three, and of places.

    Images of another size than CLIP's are resized, bicubic and antialiased.
    """
    size = model.config.vision_config.image_size
    pixels = jax.image.resize(images, (len(images), size, size, images.shape[-1]), "cubic")
    pixels = jnp.broadcast_to(jnp.clip(pixels, 0, 1), (*pixels.shape[:3], 3))
    pixels = (pixels - jnp.array(MEAN)) / jnp.array(DEVIATION)
    whole, local = model.module.apply({"params": params}, pixels, method=_features)
    return unit(whole), unit(local)


def _features(module: Any, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    vision = module.vision_model
    outputs = vision(pixel_values=pixels, output_hidden_states=True, return_dict=True)
    before = outputs.hidden_states[-2]  # what the last layer is given
    layer = vision.encoder.layers.layers[-1]
    values = layer.self_attn.v_proj(layer.layer_norm1(before))
    local = before + layer.self_attn.out_proj(values)
    local = local + layer.mlp(layer.layer_norm2(local))
    local = vision.post_layernorm(local[:, 1:])  # without the class token
    return module.visual_projection(outputs.pooler_output), module.visual_projection(local)


def load(folder: Path, batch_size: int) -> Clip:
    """Loads CLIP from a folder that `find` has found.

    Raises:
      UserError: a file cannot be read, or its weights are not the model's, or not finite.
    """
    from transformers import CLIPConfig, CLIPTokenizer, FlaxCLIPModel  # slow to import

    with _reading(folder):
        config = CLIPConfig(**json.loads((folder / "config.json").read_text("utf-8")))
        model = FlaxCLIPModel(config, _do_init=False)
        params = _read(folder, model.params_shape_tree)
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    return Clip(model, params, tokenizer, batch_size)


def _read(folder: Path, shapes: Any) -> dict:
    file = next(folder / name for name in WEIGHTS if (folder / name).is_file())
    wanted = {path: leaf.shape for path, leaf in flatten_dict(shapes).items()}
    found = {}
    for name, path, array in leaves_of(file, wanted):
        if name.endswith("position_ids"):  # no parameter
            continue
        if path is None or array.shape != wanted[path]:
            raise UserError(f"zero_shot.path: {file}: {name!r} {array.shape} is not the model's")
        if not is_finite(array):
            raise UserError(f"zero_shot.path: {file}: {name!r} has numbers that are not finite")
        found[path] = np.asarray(array, np.float32)
    missing = next((path for path in wanted if path not in found), None)
    if missing:
        raise UserError(f"zero_shot.path: {file} lacks {'.'.join(missing)!r}")
    return unflatten_dict(found)


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turns any error into one line that names the folder."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # transformers and the readers of files raise any
        reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
        raise UserError(f"zero_shot.path: {folder} cannot be loaded: {reason}") from error
