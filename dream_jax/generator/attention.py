"""Which form the UNet's attention takes, and the precision of other parts' softmax."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from dream_jax.generator import cpu_attention

AUTO = "auto"
SCORES_AT_ONCE = 2**31  # bytes of float32 scores; Stable Diffusion v1.4 has 512 MB an image
# diffusers: its own layer; cpu: `cpu_attention`; xla and cudnn: `jax.nn.dot_product_attention`.
FORMS = ("diffusers", "cpu", "xla", "cudnn")


def best_form(platform: str, capability: str, dtype: Any, head_width: int) -> str:
    """Returns the form of `FORMS` that "auto" means for a layer.

    On NVIDIA's GPUs, cuDNN's flash attention where it is offered: in 16 bits, from compute
    capability 8.0 on, with heads of a multiple of 8 numbers, at most 128, or 256 from 9.0 on. On
    everything else that is not a CPU, XLA's, whose softmax is float32 whatever the precision.

    Args:
      platform: JAX's name of it.
      capability: of a GPU, "9.0" by NVIDIA or "gfx90a" by AMD.
      dtype: in which the layer computes.
      head_width: numbers of a head.
    """
    if platform == "cpu":
        return "cpu"
    if platform != "gpu" or capability.startswith("gfx") or jnp.dtype(dtype).itemsize != 2:
        return "xla"
    version = float(capability or 0)
    widest = 256 if version >= 9 else 128
    offered = version >= 8 and head_width <= widest and head_width % 8 == 0
    return "cudnn" if offered else "xla"


def cudnn_attention(
    queries: Float[Array, "n positions heads d"],
    keys: Float[Array, "n others heads d"],
    values: Float[Array, "n others heads d"],
    scale: float,
) -> Float[Array, "n positions heads d"]:
    """Returns softmax(scale · q kᵀ) v by cuDNN's flash attention, which writes no scores."""
    return jax.nn.dot_product_attention(queries, keys, values, scale=scale, implementation="cudnn")


def xla_attention(
    queries: Float[Array, "n positions heads d"],
    keys: Float[Array, "n others heads d"],
    values: Float[Array, "n others heads d"],
    scale: float,
) -> Float[Array, "n positions heads d"]:
    """Returns softmax(scale · q kᵀ) v with a float32 softmax, some images at a time.

    The scores of those images take `SCORES_AT_ONCE` bytes, unless one image alone has more.
    """

    def one(parts: tuple[Array, Array, Array]) -> Float[Array, "positions heads d"]:
        return jax.nn.dot_product_attention(*parts, scale=scale, implementation="xla")

    count, positions, heads, _ = queries.shape
    at_once = max(1, SCORES_AT_ONCE // (4 * heads * positions * keys.shape[1]))
    if at_once >= count:
        return one((queries, keys, values))
    return jax.lax.map(one, (queries, keys, values), batch_size=at_once)


@contextlib.contextmanager
def attention_form(form: str = AUTO) -> Iterator[None]:
    """Makes diffusers' Flax attention layers that are traced in this context take a form.

    Args:
      form: one of `FORMS`, or "auto": `best_form` of each layer.
    """
    from diffusers.models.attention_flax import FlaxAttention

    device = jax.local_devices()[0]
    hardware = jax.default_backend(), str(getattr(device, "compute_capability", ""))

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> jax.Array:
        layer = context.module
        if not isinstance(layer, FlaxAttention) or context.method_name != "__call__":
            return call(*args, **kwargs)
        own = best_form(*hardware, layer.dtype, layer.dim_head) if form == AUTO else form
        if own == "diffusers":
            return call(*args, **kwargs)
        return _attend(layer, own, *args, **kwargs)

    with nn.intercept_methods(intercept):
        yield


def _attend(
    layer: Any, form: str, hidden: jax.Array, context: Any = None, deterministic: bool = True
) -> jax.Array:
    """Computes a `FlaxAttention` layer: (n, positions, width) → the same."""
    context = hidden if context is None else context
    parts = layer.query(hidden), layer.key(context), layer.value(context)
    if form == "cpu":
        queries, keys, values = map(layer.reshape_heads_to_batch_dim, parts)
        made: Any = cpu_attention.attention(queries, keys, values, layer.scale)
        out = layer.reshape_batch_dim_to_heads(made)
    else:
        queries, keys, values = (part.reshape(*part.shape[:2], layer.heads, -1) for part in parts)
        attend = cudnn_attention if form == "cudnn" else xla_attention
        made = attend(queries, keys, values, layer.scale)
        out = made.reshape(hidden.shape[0], hidden.shape[1], -1)
    return layer.dropout_layer(layer.proj_attn(out), deterministic=deterministic)


@contextlib.contextmanager
def float32_softmax() -> Iterator[None]:
    """Makes attention of text encoder and VAE take its softmax in float32 where they have 16 bits.

    It holds for what is traced in this context: transformers' Flax CLIP and diffusers' Flax VAE,
    whose own softmax is of 16 bits then. In float32 they are left as they are, and so they are on
    CPUs, whose compiler has no product of float16 with a float32 result.
    """
    from diffusers.models.vae_flax import FlaxAttentionBlock
    from transformers.models.clip.modeling_flax_clip import FlaxCLIPAttention

    ours: dict[type, Callable[..., Any]] = {
        FlaxAttentionBlock: _attend_pixels,
        FlaxCLIPAttention: _attend_tokens,
    }
    on_cpu = jax.default_backend() == "cpu"

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        own = ours.get(type(context.module)) if context.method_name == "__call__" else None
        if own is None or on_cpu or jnp.dtype(context.module.dtype).itemsize != 2:
            return call(*args, **kwargs)
        return own(context.module, *args, **kwargs)

    with nn.intercept_methods(intercept):
        yield


def _attend_pixels(
    block: Any, hidden: Float[Array, "n height width channels"]
) -> Float[Array, "n height width channels"]:
    """Computes a `FlaxAttentionBlock`."""
    count, height, width, channels = hidden.shape
    rows = block.group_norm(hidden).reshape(count, height * width, channels)
    parts = (part(rows) for part in (block.query, block.key, block.value))
    queries, keys, values = (part.reshape(*rows.shape[:2], block.num_heads, -1) for part in parts)
    made = xla_attention(queries, keys, values, queries.shape[-1] ** -0.5)
    return hidden + block.proj_attn(made.reshape(rows.shape)).reshape(hidden.shape)


def _attend_tokens(
    layer: Any,
    hidden_states: Float[Array, "n positions width"],
    attention_mask: Int[Array, "n positions"] | None = None,
    **options: Any,
) -> tuple[Float[Array, "n positions width"]]:
    """Computes a `FlaxCLIPAttention`; `options` say how it is trained, which it is not here."""
    parts = (part(hidden_states) for part in (layer.q_proj, layer.k_proj, layer.v_proj))
    queries, keys, values = (p.reshape(*p.shape[:2], layer.num_heads, -1) for p in parts)
    mask = None if attention_mask is None else attention_mask[:, None, None] > 0
    own: dict[str, Any] = {"mask": mask, "scale": layer.scale, "is_causal": layer.causal}
    made = jax.nn.dot_product_attention(queries, keys, values, **own, implementation="xla")
    return (layer.out_proj(made.reshape(hidden_states.shape)),)
