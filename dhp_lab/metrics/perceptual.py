"""LPIPS and DISTS: how unlike a pair of pictures looks, by the layers of a network trained on photos.

| class   | trunk             | compares of each channel              | source                     |
|---------|-------------------|---------------------------------------|----------------------------|
| `LPIPS` | AlexNet or VGG-16 | squared difference at each place      | Zhang et al. 2018, eq. 1   |
| `DISTS` | VGG-16            | means, variances and their covariance | Ding et al. 2020, eq. 4..6 |

Both are differentiable modules of pictures in [0, 1], and take any size of at least `smallest_side`. LPIPS is
version 0.1 of the package `lpips`, DISTS that of `dists-pytorch`, to the last digits: tests compare both.

    x --layers--> [features]  ;  between(layers(a), layers(b)) = distance, so that one original serves many

Weights come from `network_files` (`dhp download metric-networks`). Where torchvision's own files lie in
torch's folder of weights, those are the trunks, and torchmetrics' package has heads, alpha and beta.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhp_lab.core.pickled_arrays import read_tensors
from dhp_lab.metrics import network_files
from dhp_lab.metrics.network_files import HEADS, Tensors

SMALLEST_LENGTH = 1e-8  # added to the squared length of a place's features, as torchmetrics does
STABLE = 1e-6  # c1 and c2 of DISTS


class _Layout(NamedTuple):
    """Convolutions by torchvision's numbers; a layer ends each group, a pool comes before those named."""

    groups: tuple[tuple[int, ...], ...]
    pooled: tuple[int, ...]
    pool: int  # side of the window, moved by 2
    stride: int  # of the first convolution


LAYOUTS = {
    "alexnet": _Layout(((0,), (3,), (6,), (8,), (10,)), (1, 2), 3, 4),
    "vgg16": _Layout(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), (1, 2, 3, 4), 2, 1),
}


class _Trunk(nn.Module):
    """The convolutions of AlexNet or VGG-16, each followed by a ReLU; any widths."""

    def __init__(self, name: str, tensors: Tensors, *, smooth: bool = False) -> None:
        super().__init__()
        self.layout = LAYOUTS[name]
        self.smooth = smooth
        self.groups = nn.ModuleList(
            nn.ModuleList(
                _convolution(tensors, place, self.layout.stride if place == 0 else 1) for place in group
            )
            for group in self.layout.groups
        )

    def forward(self, x: Tensor, count: int | None = None) -> list[Tensor]:
        layers = []
        for number, group in enumerate(self.groups[:count]):
            if number in self.layout.pooled:
                x = _root_mean_square(x) if self.smooth else F.max_pool2d(x, self.layout.pool, 2)
            for convolution in group:
                x = F.relu(convolution(x), inplace=True)
            layers.append(x)
        return layers


def _convolution(tensors: Tensors, place: int, stride: int) -> nn.Conv2d:
    weight = tensors[f"features.{place}.weight"]
    outputs, inputs, side, _ = weight.shape
    padding = 2 if stride > 1 else side // 2  # AlexNet's first, 11 wide, has 2
    layer = nn.Conv2d(inputs, outputs, side, stride, padding)
    layer.load_state_dict({"weight": weight, "bias": tensors[f"features.{place}.bias"]})
    return layer


def _root_mean_square(x: Tensor) -> Tensor:
    """The L2 pooling of DISTS: the root of x^2 weighted (1, 2, 1) x (1, 2, 1) / 16, stride 2."""
    row = x.new_tensor([0.25, 0.5, 0.25])
    window = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


class _PairDistance(nn.Module):
    """A distance of two pictures that compares their layers."""

    smallest_side = 16

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) of pictures (B, 3, H, W) in [0, 1], 0 for equal ones.

        Raises:
            ValueError: two shapes, or a side below `smallest_side`.
        """
        if a.shape != b.shape:
            raise ValueError(f"both pictures must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
        return self.between(self.layers(a), self.layers(b))

    def layers(self, x: Tensor) -> list[Tensor]:
        """What of pictures (B, 3, H, W) in [0, 1] is compared: features (B, C, h, w) of each layer."""
        raise NotImplementedError

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """The distances (B,) of pictures, from their layers."""
        raise NotImplementedError

    def _check(self, x: Tensor) -> None:
        if min(x.shape[-2:]) < self.smallest_side:
            raise ValueError(
                f"{type(self).__name__} needs sides of at least {self.smallest_side} pixels, got "
                f"{x.shape[-2]} x {x.shape[-1]}; enlarge both pictures alike"
            )


class LPIPS(_PairDistance):
    """sum_l mean_places sum_c w_lc (f_lc(a) - f_lc(b))^2, f of unit length at each place (Zhang et al. 2018).

    Args:
        trunk: alexnet or vgg16.
        tensors: its convolutions `features.*`, and `heads.0` .. `heads.4`, the w of each layer.
    """

    def __init__(self, trunk: str, tensors: Tensors) -> None:
        super().__init__()
        self.smallest_side = {"alexnet": 31, "vgg16": 16}[trunk]  # what the pools leave a pixel of
        self.trunk = _Trunk(trunk, tensors)
        self.heads = nn.ParameterList(tensors[f"heads.{number}"] for number in range(HEADS))
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))
        self.requires_grad_(False).eval()

    def layers(self, x: Tensor) -> list[Tensor]:
        """Five layers of pictures (B, 3, H, W) in [0, 1], (B, C, h, w), of unit length at each place."""
        self._check(x)
        found = self.trunk((2 * x - 1 - self.shift) / self.scale)
        return [layer / (layer.square().sum(1, keepdim=True) + SMALLEST_LENGTH).sqrt() for layer in found]

    def features(self, x: Tensor, count: int) -> list[Tensor]:
        """The trunk's first ``count`` layers of pictures (B, 3, H, W) in [0, 1], as they are."""
        return self.trunk((2 * x - 1 - self.shift) / self.scale, count)

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """The distances (B,) of pictures, from their layers."""
        parts = [
            torch.einsum("bchw,c->bhw", (x - y).square(), head).mean((1, 2))
            for x, y, head in zip(a, b, self.heads, strict=True)
        ]
        return torch.stack(parts).sum(0)


class DISTS(_PairDistance):
    """1 - sum_lc (alpha_lc l(a, b) + beta_lc s(a, b)), structure and texture (Ding et al. 2020).

    l compares the means of a channel, s its variances and covariance, as SSIM does but over the whole
    picture; alpha and beta sum to 1. The layers are the picture itself and five of VGG-16 with L2 pooling.

    Args:
        tensors: VGG-16's convolutions `features.*`, and `alpha` and `beta`, (sum of all channels,).
    """

    smallest_side = 1

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.trunk = _Trunk("vgg16", tensors, smooth=True)
        total = tensors["alpha"].sum() + tensors["beta"].sum()
        self.register_buffer("alpha", tensors["alpha"].flatten() / total)
        self.register_buffer("beta", tensors["beta"].flatten() / total)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.requires_grad_(False).eval()

    def layers(self, x: Tensor) -> list[Tensor]:
        """The pictures (B, 3, H, W) in [0, 1], and five layers (B, C, h, w)."""
        self._check(x)
        return [x, *self.trunk((x - self.mean) / self.deviation)]

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """The distances (B,) of pictures, from their layers."""
        means, structures = [], []
        for x, y in zip(a, b, strict=True):
            mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))  # (B, C)
            spread = x.var((2, 3), correction=0) + y.var((2, 3), correction=0)
            covariance = (x * y).mean((2, 3)) - mean_x * mean_y
            means.append((2 * mean_x * mean_y + STABLE) / (mean_x.square() + mean_y.square() + STABLE))
            structures.append((2 * covariance + STABLE) / (spread + STABLE))
        return 1 - torch.cat(means, 1) @ self.alpha - torch.cat(structures, 1) @ self.beta


@lru_cache(maxsize=2)
def lpips_network(trunk: str = "alexnet") -> LPIPS:
    """Return LPIPS on alexnet or vgg16, loaded once in a process.

    Raises:
        MissingNetwork: its file is not there; the message names it and the command that brings it.
        DownloadError: a file of torchvision's name is another.
    """
    tensors = network_files.usual_trunk(f"lpips-{trunk}")
    if tensors is None:
        tensors = network_files.load(f"lpips-{trunk}")
    else:
        found = read_tensors(_torchmetrics(f"lpips_models/{'alex' if trunk == 'alexnet' else 'vgg'}.pth"))
        tensors |= {f"heads.{n}": found[f"lin{n}.model.1.weight"].flatten() for n in range(HEADS)}
    return LPIPS(trunk, tensors)


@lru_cache(maxsize=1)
def dists_network() -> DISTS:
    """Return DISTS, loaded once in a process; errors as for `lpips_network`."""
    trunk = network_files.usual_trunk("lpips-vgg16")
    if trunk is None:
        trunk = network_files.load("lpips-vgg16")
        return DISTS(trunk | network_files.load("dists"))
    found = read_tensors(_torchmetrics("dists_models/weights.pt"))
    return DISTS(trunk | {name: value.flatten() for name, value in found.items()})


def _torchmetrics(name: str) -> Path:
    """A file of weights in torchmetrics' package; finding it imports nothing."""
    return Path(importlib.util.find_spec("torchmetrics").origin).parent / "functional" / "image" / name
