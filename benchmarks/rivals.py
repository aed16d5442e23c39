"""The same networks in PyTorch, with the weights of ours, so that both do the same work."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.processes import require

torch = require("torch")
nn = torch.nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, as in `dream_jax.models.resnet`."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.norm3 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.shortcut is not None:
            x = self.norm3(self.shortcut(x))
        return torch.relu(x + y)


class ResNet(nn.Module):
    """`dream_jax.models.resnet.ResNet` with the stem of one 3×3 convolution."""

    def __init__(self, stages, width: int, channels: int, stride: int, outputs: int):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential()
        inputs = width
        for stage, blocks in enumerate(stages):
            for block in range(blocks):
                features = width * 2**stage
                self.blocks.append(
                    BasicBlock(inputs, features, 2 if stage > 0 and block == 0 else 1)
                )
                inputs = features
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(2 * x - 1)))
        return self.head(self.blocks(x).mean((2, 3)))


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

    copy_conv(net.stem, params["stem"]["kernel"])
    copy_norm(net.norm, params["BatchNorm_0"], stats["BatchNorm_0"])
    for index, block in enumerate(net.blocks):
        own, running = params[f"BasicBlock_{index}"], stats[f"BasicBlock_{index}"]
        norms = [block.norm1, block.norm2]
        copy_conv(block.conv1, own["conv1"]["kernel"])
        copy_conv(block.conv2, own["conv2"]["kernel"])
        if block.shortcut is not None:
            copy_conv(block.shortcut, own["shortcut"]["kernel"])
            norms.append(block.norm3)
        for number, norm in enumerate(norms):
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
