"""Weights of no worth for the networks of metrics, drawn from a seed, and files that hold them."""

from __future__ import annotations

import hashlib
import json

import torch
from oracles import seeded
from safetensors.torch import save
from torch import Tensor

from dhp_lab.metrics import network_files
from dhp_lab.metrics.efficientnet import EfficientNetLite0

KERNELS = {"alexnet": (11, 5, 3, 3, 3), "vgg16": (3,) * 13}
WIDTHS = {
    "alexnet": (64, 192, 384, 256, 256),
    "vgg16": (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
}
LAST_OF_GROUP = {"alexnet": (0, 1, 2, 3, 4), "vgg16": (1, 3, 6, 9, 12)}
PLACES = {"alexnet": network_files.ALEXNET_CONVOLUTIONS, "vgg16": network_files.VGG16_CONVOLUTIONS}


def made_trunk(trunk: str, seed: int = 7, thinner: int = 1) -> dict[str, Tensor]:
    """LPIPS, and on vgg16 DISTS: layers as in the real one, with 1 of `thinner` channels."""
    generator, tensors, inputs = seeded(seed), {}, 3
    widths = [width // thinner for width in WIDTHS[trunk]]
    for place, side, width in zip(PLACES[trunk], KERNELS[trunk], widths, strict=True):
        shape = (width, inputs, side, side)
        scale = (2 / (inputs * side * side)) ** 0.5
        tensors[f"features.{place}.weight"] = torch.randn(shape, generator=generator) * scale
        tensors[f"features.{place}.bias"] = torch.randn(width, generator=generator) * 0.1
        inputs = width
    layers = [widths[number] for number in LAST_OF_GROUP[trunk]]
    for number, width in enumerate(layers):
        tensors[f"heads.{number}"] = torch.rand(width, generator=generator)
    if trunk == "vgg16":
        for name in ("alpha", "beta"):
            tensors[name] = torch.rand(3 + sum(layers), generator=generator)
    return tensors


def made_efficientnet(seed: int = 7) -> dict[str, Tensor]:
    """EfficientNet-Lite0 in its real size."""
    generator, tensors = seeded(seed), {}
    for name, value in EfficientNetLite0().state_dict().items():
        if value.ndim == 4:
            scale = (2 / value[0].numel()) ** 0.5
            tensors[name] = torch.randn(value.shape, generator=generator) * scale
        elif name.endswith(("running_var", ".weight")):
            tensors[name] = torch.rand(value.shape, generator=generator) + 0.5
        elif value.ndim:
            tensors[name] = torch.randn(value.shape, generator=generator) * 0.1
    return tensors


def lay(name: str, tensors: dict[str, Tensor]) -> None:
    """Write a network's file where `network_files` looks for it."""
    data = save(tensors)
    path = network_files.path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps({"sha256": hashlib.sha256(data).hexdigest()}))


def lay_all() -> None:
    """Write small networks for every metric."""
    vgg = made_trunk("vgg16", thinner=16)
    dists = {name: vgg.pop(name) for name in ("alpha", "beta")}
    lay("lpips-alexnet", made_trunk("alexnet", thinner=16))
    lay("lpips-vgg16", vgg)
    lay("dists", dists)
    lay("efficientnet-lite0", made_efficientnet())
