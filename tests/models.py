"""Small codecs and pictures that several tests share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.codec.model import DiffusionHyperprior

N, M = 16, 32


def untrained(**settings) -> DiffusionHyperprior:
    """A codec as it is created, in eval mode, always the same; settings as for
    ``create_diffusion_hyperprior_model``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_diffusion_hyperprior_model(**{"N": N, "M": M, "diffusion_steps": 10} | settings).eval()


@torch.no_grad()
def woken(**settings) -> DiffusionHyperprior:
    """The same with noise in every layer, so that what starts silent or at a symmetric place speaks as after
    training.
    """
    model, generator = untrained(**settings), torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if weight.ndim == 4 and not name.endswith("lapped"):
            weight += 0.5 / weight[0].numel() ** 0.5 * torch.randn(weight.shape, generator=generator)
        elif name.endswith("bias") or name in ("log2_spread", "gain.knots", "denoiser.posterior_weight"):
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    model.entropy_bottleneck.quantiles += 0.3  # medians that are no whole numbers
    model.update(force=True)
    return model


def picture(height: int, width: int, *, count: int = 1, seed: int = 0) -> Tensor:
    """Smooth random colours with a little grain, (count, 3, height, width) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, height // 12 + 2, width // 12 + 2, generator=generator)
    grain = 0.03 * torch.randn(count, 3, height, width, generator=generator)
    return (F.interpolate(coarse, size=(height, width), mode="bicubic") + grain).clamp(0, 1)
