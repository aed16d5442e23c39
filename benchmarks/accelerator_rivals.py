"""What `benchmarks.accelerator` measures of PyTorch: the same works, as its users write them.

In bfloat16 where ours is (autocast in training), images channels last, without torch.compile.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.accelerator_works import GUIDANCE, KNN_DIMENSION, ROUNDS, Sizes, cluster, pieces


def _model(model: Any, sizes: Sizes, device: str) -> Any:
    import torch

    model = model.eval().to(device, getattr(torch, sizes.precision))
    return model.to(memory_format=torch.channels_last)


def _normal(sizes: Sizes, device: str, *shape: int) -> Any:
    import torch

    return torch.randn(shape, device=device, dtype=getattr(torch, sizes.precision))


def text_encoder(sizes: Sizes, device: str) -> Callable[[], Any]:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(**sizes.parts.text_encoder)
    model = CLIPTextModel(config).eval().to(device, getattr(torch, sizes.precision))
    ids = torch.zeros((sizes.batch, sizes.parts.tokens), dtype=torch.long, device=device)
    return lambda: model(ids)


def unet(sizes: Sizes, device: str) -> Callable[[], Any]:
    """One evaluation at each step, both branches in a batch; no scheduler."""
    from diffusers import UNet2DConditionModel

    model = _model(UNet2DConditionModel(**sizes.parts.unet), sizes, device)
    latents = _normal(sizes, device, 2 * sizes.batch, *sizes.parts.latents)
    width = sizes.parts.unet["cross_attention_dim"]
    states = _normal(sizes, device, 2 * sizes.batch, sizes.parts.tokens, width)

    def call():
        for step in range(sizes.steps):
            model(latents, step, states)

    return call


def vae(sizes: Sizes, device: str) -> Callable[[], Any]:
    from diffusers import AutoencoderKL

    model = _model(AutoencoderKL(**sizes.parts.vae), sizes, device)
    latents = _normal(sizes, device, sizes.batch, *sizes.parts.latents)
    return lambda: model.decode(latents)


def _training(net: Any, shape, classes: int, sizes: Sizes, device: str) -> Callable[[], Any]:
    import torch

    _, batch, size, steps = shape
    net = net.train().to(device, memory_format=torch.channels_last)
    images = torch.rand((batch, 3, size, size), device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (batch,), device=device)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    half = sizes.precision != "float32"

    def call():
        with torch.enable_grad():
            for _ in range(steps):
                optimizer.zero_grad()
                with torch.autocast(device, torch.bfloat16, enabled=half):
                    loss = torch.nn.functional.cross_entropy(net(images), labels)
                loss.backward()
                optimizer.step()

    return call


def resnet34(sizes: Sizes, device: str) -> Callable[[], Any]:
    from benchmarks.rivals import ResNet
    from dream_jax.models.resnet import ARCHITECTURES

    net = ResNet(ARCHITECTURES[sizes.resnet34[0]].stages, 64, 3, "small", 100, "BasicBlock")
    return _training(net, sizes.resnet34, 100, sizes, device)


def resnet50(sizes: Sizes, device: str) -> Callable[[], Any]:
    from torchvision.models import resnet50

    return _training(resnet50(), sizes.resnet50, 1000, sizes, device)


def sampler(sizes: Sizes, device: str) -> Callable[[], Any]:
    """All candidates and all their distances, as the published code, and `kthvalue`."""
    import torch

    features = torch.tensor(cluster(sizes.features, sizes.dimension), device=device)

    def outermost(points):
        return (2 - 2 * points @ features.T).kthvalue(sizes.k, dim=-1).values

    drawn = features[outermost(features).topk(sizes.boundary).indices]

    def call():
        for _ in range(ROUNDS):
            shape = (len(drawn), sizes.candidates, sizes.dimension)
            moved = drawn[:, None] + 0.07 * torch.randn(shape, device=device)
            points = torch.nn.functional.normalize(moved, dim=-1)
            chosen = outermost(points).topk(2, dim=1).indices
            points[torch.arange(len(drawn), device=device)[:, None], chosen].cpu()

    return call


def knn(sizes: Sizes, device: str) -> Callable[[], Any]:
    """One product and `topk`, float32."""
    import torch

    def unit(count):
        vectors = torch.randn((count, KNN_DIMENSION), device=device)
        return torch.nn.functional.normalize(vectors, dim=1)

    points, queries = unit(sizes.points), unit(sizes.queries)

    def call():
        nearest = (queries @ points.T).topk(sizes.neighbour, dim=1).values[:, -1]
        return -(2 - 2 * nearest).clamp(min=0).sqrt()

    return call


def decoding(sizes: Sizes, device: str) -> Callable[[], Any]:
    """diffusers' StableDiffusionPipeline with DDIM, from hidden states to arrays, no files."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    from benchmarks.architectures import NOISE

    pipeline = StableDiffusionPipeline(
        vae=_model(AutoencoderKL(**sizes.parts.vae), sizes, device),
        text_encoder=None,
        tokenizer=None,
        unet=_model(UNet2DConditionModel(**sizes.parts.unet), sizes, device),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    width = sizes.parts.unet["cross_attention_dim"]
    states = _normal(sizes, device, sizes.batch, sizes.parts.tokens, width)

    def call():
        for _ in range(0, sizes.images, sizes.batch):
            pipeline(
                prompt_embeds=states,
                negative_prompt_embeds=states,
                num_inference_steps=sizes.steps,
                guidance_scale=GUIDANCE,
                output_type="np",
            )

    return call


RIVALS = {
    made.__name__: made
    for made in (knn, sampler, resnet34, resnet50, text_encoder, vae, unet, decoding)
}


def in_turn(names: list[str], sizes: Sizes, device: str, seconds: float) -> Callable[[], dict]:
    """Returns a call that measures one work after the other: its figures."""
    import torch

    from benchmarks.accelerator import reason, time_calls

    waiting = iter(names)

    def synchronised(call):
        with torch.no_grad():
            call()
        if device == "cuda":
            torch.cuda.synchronize()

    def measure() -> dict:
        name = next(waiting)
        if device == "cuda" and not torch.cuda.is_available():
            return {"missing": "a GPU that PyTorch sees"}
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        try:
            call = functools.partial(synchronised, RIVALS[name](sizes, device))
            first, taken = time_calls(call, seconds)
        except ModuleNotFoundError as error:
            return {"missing": error.name}
        except Exception as error:  # of any library; shown, and the next is measured
            return {"failed": reason(error)}
        memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
        return {
            "seconds": float(np.median(taken)) / pieces(name, sizes),
            "calls": len(taken),
            "first_call_seconds": first,
            "memory": memory,
            "measuring": time.perf_counter() - begin,
        }

    return measure
