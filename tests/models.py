"""Small codecs, pictures, and views of latents that several tests share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.context import Gaussian

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
        if weight.ndim == 4 and ".linear." not in name:
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


def parts(coded: dict) -> tuple[bytes, bytes, bytes]:
    """y, z and side of a single picture."""
    return tuple(strings[0] for strings in coded["strings"])


def coded_by(codec, x, lambda_rate=1e-3):
    """What a codec writes, and the latents that it wrote."""
    coded = codec.compress(x, lambda_rate)
    return coded, codec.encode(x, [lambda_code(lambda_rate)] * len(x))


def marked(order, channels, rows, cols):
    """For each pass, bool (M, rows, cols): the latents that it sends."""
    found = [
        torch.zeros(1, channels, rows, cols).contiguous(memory_format=torch.channels_last) for _ in order
    ]
    for part, whole in zip(order, found, strict=True):
        part.scatter(whole, torch.ones(1, len(part.places), part.channels.stop - part.channels.start))
    return [whole[0].bool() for whole in found]


def run_passes(context, mean, log2_scale, log2_delta, symbols_at, *, exact):
    """Mean, log2(scale) and symbols of all latents, with symbols of the test's own choice in each pass."""
    first = Gaussian(mean, log2_scale)
    seen = context.nothing_seen(first)
    found = [torch.empty_like(mean, memory_format=torch.channels_last) for _ in range(3)]
    for group in context.groups(first):
        gaussian, shift = context.predict(group, first, seen, log2_delta, exact=exact)
        symbols = symbols_at(group, *gaussian)
        context.observe(group, first, seen, symbols, shift)
        for whole, values in zip(found, (*gaussian, symbols), strict=True):
            group.scatter(whole, values)
    return found


def decoder_state(
    symbols: torch.Tensor, scale: torch.Tensor, decoded: float = 1.0, channels: int = 1
) -> DecoderState:
    """The state of a decoder of latents laid out as (B, channels, h, w), with mean 0 and Delta = 1."""
    mask = torch.full_like(symbols[:, :1], decoded)
    return DecoderState(
        symbols * mask, mask, torch.zeros_like(scale), scale, torch.zeros(len(symbols)), torch.ones(channels)
    )
