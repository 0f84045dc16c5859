"""EfficientNet-Lite0, trained on ImageNet: 1280 features of a picture that no loss here has seen.

Tan & Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks", table 1, in the
variant "Lite" of TensorFlow's authors: ReLU6, no squeeze-and-excitation. Each stage is a row of STAGES:

    x, 3 channels --3 x 3, stride 2--> 32 --STAGES--> 320 --1 x 1--> 1280 --mean over places--> features

The names of the tensors are those of the package efficientnet-lite-pytorch, to which tests compare it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhp_lab.metrics import network_files
from dhp_lab.metrics.network_files import Tensors

FEATURES = 1280
STEM, LAST = 32, 320
STAGES = (  # blocks, side of the kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, LAST),
)
EPSILON = 1e-3  # of the batch normalisations
BATCH = 64  # pictures at once


class _Convolution(nn.Conv2d):
    """Padded as TensorFlow does it: to ceil(size / stride) outputs, the odd pixel at the right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        (side, _), (stride, _) = self.kernel_size, self.stride
        pads = [max((-(-size // stride) - 1) * stride + side - size, 0) for size in x.shape[-2:]]
        rows, columns = pads
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(x)


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> _Convolution:
    return _Convolution(inputs, outputs, side, stride, groups=groups, bias=False)


class _Block(nn.Module):
    """Widen, see each channel's neighbourhood, narrow; add what came in where shapes agree."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = _convolution(inputs, width, 1)
            self._bn0 = nn.BatchNorm2d(width, EPSILON)
        self._depthwise_conv = _convolution(width, width, side, stride, groups=width)
        self._bn1 = nn.BatchNorm2d(width, EPSILON)
        self._project_conv = _convolution(width, outputs, 1)
        self._bn2 = nn.BatchNorm2d(outputs, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return h + x if self.adds else h


class EfficientNetLite0(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] to features (B, 1280), each in [0, 6].

    Args:
        tensors: its state, without the last layer and the counters of batches; None leaves it untrained.
    """

    def __init__(self, tensors: Tensors | None = None) -> None:
        super().__init__()
        self._conv_stem = _convolution(3, STEM, 3, 2)
        self._bn0 = nn.BatchNorm2d(STEM, EPSILON)
        blocks, inputs = [], STEM
        for count, side, stride, expansion, outputs in STAGES:
            for number in range(count):
                blocks.append(_Block(inputs, outputs, side, 1 if number else stride, expansion))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _convolution(LAST, FEATURES, 1)
        self._bn1 = nn.BatchNorm2d(FEATURES, EPSILON)
        if tensors is not None:
            self.load_state_dict(tensors | {n: v for n, v in self.state_dict().items() if v.ndim == 0})
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 1280) of pictures (B, 3, H, W) in [0, 1], which are scaled as in its training."""
        h = F.relu6(self._bn0(self._conv_stem((255 * x - 127) / 128)))
        for block in self._blocks:
            h = block(h)
        return F.relu6(self._bn1(self._conv_head(h))).mean((2, 3))


@lru_cache(maxsize=1)
def efficientnet_lite0() -> EfficientNetLite0:
    """Return the trained network, loaded once in a process.

    Raises:
        MissingNetwork: its file is not there; the message names it and the command that brings it.
    """
    return EfficientNetLite0(network_files.load("efficientnet-lite0"))


@torch.no_grad()
def efficientnet_features(pictures: Tensor, network: nn.Module | None = None) -> Tensor:
    """Features (N, 1280) of pictures (N, 3, H, W) in [0, 1], some at a time; N may be 0.

    Raises:
        MissingNetwork: as `efficientnet_lite0`, where no network is given.
    """
    network = (network or efficientnet_lite0()).to(pictures.device)
    return torch.cat([network(part) for part in pictures.split(BATCH)])
