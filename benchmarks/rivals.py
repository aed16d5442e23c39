"""The same networks in PyTorch, with the weights of ours, so that both do the same work."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.processes import require
from dream_jax.models.resnet import DAMPING, patch_transform

torch = require("torch")
nn = torch.nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, as in `dream_jax.models.resnet`, like those below."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))
        if stride > 1 or inputs != channels:
            self.shortcut = nn.Conv2d(inputs, channels, 1, stride, bias=False)
            self.norms.append(nn.BatchNorm2d(channels))

    def forward(self, x):
        y = torch.relu(self.norms[0](self.conv1(x)))
        y = self.norms[1](self.conv2(y))
        if len(self.norms) > 2:
            x = self.norms[2](self.shortcut(x))
        return torch.relu(x + y)


class BottleneckBlock(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        outputs = 4 * channels
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, (channels, channels, outputs)))
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.norms.append(nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = torch.relu(self.norms[0](self.conv1(x)))
        y = torch.relu(self.norms[1](self.conv2(y)))
        y = self.norms[2](self.conv3(y))
        if len(self.norms) > 3:
            x = self.norms[3](self.shortcut(x))
        return torch.relu(x + y)


class PooledBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, channels, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x):
        x = nn.functional.max_pool2d(self.conv1(x), self.stride, ceil_mode=True)
        return torch.relu(self.norms[1](self.conv2(torch.relu(self.norms[0](x)))))


BLOCKS = {kind.__name__: kind for kind in (BasicBlock, BottleneckBlock, PooledBlock)}


class ResNet(nn.Module):
    """`dream_jax.models.resnet.ResNet`; `block` is the name of one of the classes above."""

    def __init__(
        self,
        stages,
        width: int,
        channels: int,
        stem: str,
        outputs: int,
        block: str,
        widths=(1, 2, 4, 8),
        halved: int = 1,
    ):
        super().__init__()
        inputs, kind = width, BLOCKS[block]
        self.pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        self.whitened = stem == "whitened"
        if self.whitened:
            inputs = 8 * channels
            self.stem = nn.Conv2d(channels, inputs // 2, 2, bias=False).requires_grad_(False)
            self.norm = nn.BatchNorm2d(inputs // 2, affine=False, eps=DAMPING)
        else:
            size, stride = (7, 2) if stem == "imagenet" else (3, 2 if stem == "stride2" else 1)
            self.stem = nn.Conv2d(channels, width, size, stride, size // 2, bias=False)
            self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential()
        for stage, (blocks, multiple) in enumerate(zip(stages, widths, strict=False)):
            for index in range(blocks):
                features = width * multiple
                self.blocks.append(kind(inputs, features, 1 + (stage >= halved and index == 0)))
                inputs = features * kind.expansion
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x):
        x = self.norm(self.stem(2 * x - 1))
        x = torch.relu(torch.cat([x, -x], 1) if self.whitened else x)
        return self.head(self.blocks(self.pool(x)).mean((2, 3)))


LAYOUTS = {
    "PyTorch": torch.contiguous_format,
    "PyTorch, channels last": torch.channels_last,
}


def torch_resnet(shape: Mapping[str, Any], variables: Mapping, layout: str) -> ResNet:
    """A PyTorch network with the structure of a `dream_jax` ResNet and its weights.

    Args:
      shape: arguments of `ResNet`.
      variables: the Flax variables {"params", "batch_stats"} of ours.
      layout: one of `LAYOUTS`.
    """
    net = ResNet(**shape)
    params, stats = variables["params"], variables["batch_stats"]

    def copy_conv(conv, kernel):
        conv.weight.data = torch.tensor(np.asarray(kernel).transpose(3, 2, 0, 1).copy())

    def copy_norm(norm, own, running):
        for target, source in (
            (norm.weight, own["scale"]),
            (norm.bias, own["bias"]),
            (norm.running_mean, running["mean"]),
            (norm.running_var, running["var"]),
        ):
            target.data = torch.tensor(np.asarray(source))

    if net.whitened:
        copy_conv(net.stem, patch_transform(net.stem.in_channels))
        running = stats["whitening"]["BatchNorm_0"]
        net.norm.running_mean.data = torch.tensor(np.asarray(running["mean"]))
        net.norm.running_var.data = torch.tensor(np.asarray(running["var"]))
    else:
        copy_conv(net.stem, params["stem"]["kernel"])
        copy_norm(net.norm, params["BatchNorm_0"], stats["BatchNorm_0"])
    for index, block in enumerate(net.blocks):
        name = f"{type(block).__name__}_{index}"
        own, running = params[name], stats[name]
        for part in ("conv1", "conv2", "conv3", "shortcut"):
            if part in own:
                copy_conv(getattr(block, part), own[part]["kernel"])
        for number, norm in enumerate(block.norms):
            copy_norm(norm, own[f"BatchNorm_{number}"], running[f"BatchNorm_{number}"])
    net.head.weight.data = torch.tensor(np.asarray(params["head"]["kernel"]).T.copy())
    net.head.bias.data = torch.tensor(np.asarray(params["head"]["bias"]))
    return net.to(memory_format=LAYOUTS[layout])


def to_torch(images: np.ndarray, layout: str):
    """(n, H, W, C) → a tensor (n, C, H, W) in a memory layout."""
    return torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=LAYOUTS[layout])


def forward(shape, variables, layout: str, images: np.ndarray, batch: int):
    """A call of the bare forward pass, batch by batch: logits (n, classes)."""
    net = torch_resnet(shape, variables, layout).eval()
    batches = to_torch(images, layout).split(batch)

    @torch.no_grad()
    def call():
        return torch.cat([net(images) for images in batches]).numpy()

    return call


def training(shape, variables, layout: str, images: np.ndarray, labels: np.ndarray, steps: int):
    """A call of some training steps: forward, gradients, batch statistics, SGD with momentum."""
    net = torch_resnet(shape, variables, layout).train()
    images, labels = to_torch(images, layout), torch.tensor(labels)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)

    def call():
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()

    return call


def unet(config: Mapping[str, Any], parameters: int, latents: np.ndarray, states: np.ndarray):
    """A call of one denoising step of diffusers' UNet with as many parameters."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(**config).eval()
    assert parameters == sum(p.numel() for p in model.parameters())
    inputs = torch.tensor(latents), 10, torch.tensor(states)

    @torch.no_grad()
    def call():
        model(*inputs)

    return call


def vae(config: Mapping[str, Any], parameters: int, latents: np.ndarray):
    """A call of one decoding by diffusers' VAE with as many parameters."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(**config).eval()
    assert parameters == sum(p.numel() for p in model.parameters())
    inputs = torch.tensor(latents)

    @torch.no_grad()
    def call():
        model.decode(inputs)

    return call
