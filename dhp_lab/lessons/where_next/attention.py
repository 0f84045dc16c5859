r"""Lesson 10, attention in the transforms: every place of the latents may look at every other one.

    x + W_out softmax(q k^T / sqrt(d)) v,      q, k, v = W norm(x)

(Vaswani et al. 2017, eq. 1, with one head), in front of g_s's blocks and behind g_a's, where the picture is a
sixteenth as wide. W_out starts at zero, so that the codec begins as it is without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.layers import zero_init
from dhp_lab.metrics.pixels import bits_per_pixel, psnr
from dhp_lab.training.codec_objective import Objective

BATCH, CLIP = 4, 2.0  # crops in a step; largest norm of a gradient
LEARNING_RATE = 5e-4


class Attention(nn.Module):
    """A residual block of self-attention over all places: (B, width, h, w) -> the same; silent until it is
    trained.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.ask = nn.Conv2d(width, 3 * width, 1)
        self.exit = zero_init(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, width, h, w)."""
        q, k, v = self.ask(self.norm(x)).flatten(2).mT.chunk(3, 2)  # (B, h w, width) each
        return x + self.exit(F.scaled_dot_product_attention(q, k, v).mT.unflatten(2, x.shape[-2:]))


def small_codec(attention: bool, seed: int, *, N: int = 16, M: int = 32) -> DiffusionHyperprior:
    """An untrained codec, with or without attention; the weights that both have are the same for one seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_diffusion_hyperprior_model(N=N, M=M)
        if attention:
            width = model.g_a.rate.out_channels
            model.g_a.tail.append(Attention(width))
            model.g_s.tail.insert(0, Attention(width))
    return model


def crops(photos: Sequence[Tensor], number: int, size: int) -> Tensor:
    """Batch ``number`` of an endless, reproducible stream of crops, (4, 3, size, size)."""
    random, parts = np.random.default_rng(number), []
    for _ in range(BATCH):
        photo = photos[random.integers(len(photos))]
        top, left = (int(random.integers(length - size + 1)) for length in photo.shape[-2:])
        parts.append(photo[..., top : top + size, left : left + size])
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def train(
    model: DiffusionHyperprior, photos: Sequence[Tensor], steps: int, size: int, seed: int
) -> list[float]:
    """Train all but the denoiser for some steps, at all lambdas; returns the objective at each step."""
    objective, losses = Objective(model, None), []
    optimiser = torch.optim.Adam(objective.parameter_groups("codec", LEARNING_RATE))
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = 0.5 * group["base_lr"] * (1 + math.cos(math.pi * step / steps))
            loss = objective(crops(photos, step, size), "codec")["objective"]
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
            losses.append(loss.item())
    model.eval().update(force=True, update_quantiles=True)
    return losses


def coded(model: DiffusionHyperprior, x: Tensor, lambda_rate: float) -> tuple[int, float, float]:
    """A picture (1, 3, H, W) as real bytes and back, K = 0: bytes of y, z and side, PSNR in dB, 1000 (MSE +
    lambda bpp).
    """
    strings = model.compress(x, lambda_rate)["strings"]
    x_hat = model.decompress(strings, tuple(x.shape[-2:]), steps=0)["x_hat"]
    n_bytes, mse = sum(len(part[0]) for part in strings), (x_hat - x).square().mean().item()
    return n_bytes, psnr(x_hat, x).item(), 1000 * (mse + lambda_rate * bits_per_pixel(n_bytes, *x.shape[-2:]))
