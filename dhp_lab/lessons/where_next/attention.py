r"""Self-attention in the transforms: every place of the latents sees every other one.

    x + W_out softmax(q k^T / sqrt(d)) v,      q, k, v = W norm(x)

(Vaswani et al. 2017, eq. 1, with one head), in front of g_s's blocks and behind g_a's, where the picture is a
sixteenth as wide. W_out has zero initialisation, so that the codec begins as it is without.
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
from dhp_lab.core.seeding import temporary_seed
from dhp_lab.metrics.pixels import bits_per_pixel, psnr
from dhp_lab.training.codec_objective import CodecObjective

BATCH = 4  # crops in a step
MAX_GRADIENT_NORM = 2.0
LEARNING_RATE = 5e-4


class Attention(nn.Module):
    """A residual block of self-attention over all places; the identity until it is trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.exit = zero_init(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, width, h, w) -> the same shape."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).mT.chunk(3, 2)  # (B, h w, width) each
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, h w, width)
        return x + self.exit(attended.mT.unflatten(2, x.shape[-2:]))


def small_codec(attention: bool, seed: int, *, N: int = 16, M: int = 32) -> DiffusionHyperprior:
    """An untrained codec, with or without attention.

    Args:
        attention: whether g_a and g_s have an attention block each.
        seed: of the weights; those that both codecs have are the same for one seed.
        N, M: as for ``create_diffusion_hyperprior_model``.
    """
    with temporary_seed(seed):
        model = create_diffusion_hyperprior_model(N=N, M=M)
        if attention:
            width = model.g_a.rate.out_channels
            model.g_a.tail.append(Attention(width))
            model.g_s.tail.insert(0, Attention(width))
    return model


def crops(photos: Sequence[Tensor], number: int, size: int) -> Tensor:
    """Batch ``number`` of an endless, reproducible stream of crops, (4, 3, size, size).

    Args:
        photos: (1, 3, H, W) each, H and W at least ``size``.
    """
    random, parts = np.random.default_rng(number), []
    for _ in range(BATCH):
        photo = photos[random.integers(len(photos))]
        top, left = (int(random.integers(length - size + 1)) for length in photo.shape[-2:])
        parts.append(photo[..., top : top + size, left : left + size])
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def train(
    model: DiffusionHyperprior, photos: Sequence[Tensor], steps: int, size: int, seed: int
) -> list[float]:
    """Train all but the denoiser, at all lambdas, with cosine decay and gradient clipping; then make tables.

    Args:
        photos, size: as for ``crops``.
        steps: training steps.
        seed: of everything random but the crops.

    Returns:
        The objective at each step.
    """
    objective, losses = CodecObjective(model, None, seed=seed), []
    optimiser = torch.optim.Adam(objective.optimizer_groups("codec", LEARNING_RATE))
    model.train()
    with temporary_seed(seed):  # of the noise that CompressAI's entropy bottleneck draws
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = 0.5 * group["base_lr"] * (1 + math.cos(math.pi * step / steps))
            loss = objective(crops(photos, step, size), "codec")["objective"]
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            losses.append(loss.item())
    model.eval().update(force=True, update_quantiles=True)
    return losses


def coded(model: DiffusionHyperprior, x: Tensor, lambda_rate: float) -> tuple[int, float, float]:
    """A picture (1, 3, H, W) as real bytes and back, K = 0.

    Returns:
        Bytes of y, z and side together; PSNR in dB; 1000 (MSE + lambda bpp).
    """
    strings = model.compress(x, lambda_rate)["strings"]
    x_hat = model.decompress(strings, tuple(x.shape[-2:]), steps=0)["x_hat"]
    n_bytes = sum(len(part[0]) for part in strings)
    mse = (x_hat - x).square().mean().item()
    loss = mse + lambda_rate * bits_per_pixel(n_bytes, *x.shape[-2:])
    return n_bytes, psnr(x_hat, x).item(), 1000 * loss
