"""How good is a compressed picture, and how many bits did it cost?

Every figure here is about pixels a viewer gets and bytes really written. A decoded picture is first rounded
to 8 bits, as a PNG of it would be; a bit rate is the size of the whole file, header included.

| word    | here                    | unit                                                    |
|---------|-------------------------|---------------------------------------------------------|
| PSNR    | `psnr`                  | dB, larger is better                                    |
| MS-SSIM | `ms_ssim`               | 0..1, larger is better; `decibel` spreads its upper end |
| texture | `gradient_energy_ratio` | 1 = as much fine detail as the original                 |
| rate    | `bits_per_pixel`        | bits of the file / pixels of the picture                |
| BD-rate | `bd_rate`               | % of bits more (+) or less (-) at equal quality         |

MS-SSIM: Wang, Simoncelli & Bovik 2003, doi:10.1109/ACSSC.2003.1292216. BD-rate: Bjontegaard, VCEG-M33, 2001,
with piecewise cubic interpolation (pchip).
"""

from __future__ import annotations

import math

import pytorch_msssim
import torch
from torch import Tensor

MS_SSIM_MIN_SIDE = 161  # five scales of an 11-pixel window: (11 - 1) * 2**4 + 1 pixels
RAW_BITS_PER_PIXEL = 24  # three channels of 8 bits, before any compression
LUMA_BT601 = (0.299, 0.587, 0.114)


def round_to_8_bits(x: Tensor) -> Tensor:
    """x, of any shape, clamped to [0, 1] and rounded to the 256 levels of an 8-bit file."""
    return (x.clamp(0, 1) * 255).round() / 255


def psnr(x_hat: Tensor, x: Tensor, *, rounded: bool = True) -> Tensor:
    """Peak signal-to-noise ratio of each picture, -10 log10(MSE) over all pixels and channels.

    Args:
        x_hat, x: decoded and original pictures, (B, C, H, W) in [0, 1].
        rounded: compare what 8-bit files would hold (default); False compares the floats as they are.

    Returns:
        (B,) float64 in dB; `inf` for identical pictures.

    Raises:
        ValueError: the shapes differ or are not (B, C, H, W).
    """
    _check_pair(x_hat, x)
    if rounded:
        x_hat, x = round_to_8_bits(x_hat), round_to_8_bits(x)
    mse = (x_hat.double() - x.double()).square().mean(dim=(1, 2, 3))  # (B,)
    return -10 * mse.log10()


def ms_ssim(x_hat: Tensor, x: Tensor, *, rounded: bool = True) -> Tensor:
    """Multi-scale structural similarity of each picture (Wang 2003), by `pytorch_msssim`.

    Args:
        x_hat, x: decoded and original pictures, (B, C, H, W) in [0, 1], H and W at least 161.
        rounded: as in `psnr`.

    Returns:
        (B,) in 0..1, of x's dtype; 1 for identical pictures. In float32, as published figures are, flat areas
        cost up to 5e-5 of precision. Sides that are not multiples of 16 get the library's zero padding at
        coarse scales.

    Raises:
        ValueError: the shapes differ, or a side is below 161 pixels: five scales do not fit, and fewer scales
            would give figures that compare with nothing published.
    """
    _check_pair(x_hat, x)
    if min(x.shape[-2:]) < MS_SSIM_MIN_SIDE:
        size = " x ".join(map(str, x.shape[-2:]))
        raise ValueError(
            f"MS-SSIM needs sides of at least {MS_SSIM_MIN_SIDE} pixels, got {size}; use psnr for it"
        )
    if rounded:
        x_hat, x = round_to_8_bits(x_hat), round_to_8_bits(x)
    return pytorch_msssim.ms_ssim(x_hat, x, data_range=1.0, size_average=False)


def decibel(ms_ssim: float) -> float:
    """MS-SSIM in 0..1 as dB, -10 log10(1 - MS-SSIM), on which its curves are nearly straight; `inf` at 1."""
    return math.inf if ms_ssim >= 1 else -10 * math.log10(1 - ms_ssim)


def gradient_energy(x: Tensor) -> Tensor:
    """Sum of squared differences between neighbouring pixels of the BT.601 luma.

    Args:
        x: (B, 3, H, W) in [0, 1].

    Returns:
        (B,) float64.
    """
    luma = torch.einsum("bchw,c->bhw", x.double(), x.new_tensor(LUMA_BT601, dtype=torch.float64))
    return luma.diff(dim=1).square().sum(dim=(1, 2)) + luma.diff(dim=2).square().sum(dim=(1, 2))


def gradient_energy_ratio(x_hat: Tensor, x: Tensor, *, rounded: bool = True) -> Tensor:
    """Texture kept: the gradient energy of each decoded picture over its original's.

    Args:
        x_hat, x: decoded and original pictures, (B, 3, H, W) in [0, 1].
        rounded: as in `psnr`.

    Returns:
        (B,) float64, 0 or more. Below 1: smoother than the original; 1: as much texture; above: noise or
        ringing was added. For a flat original: 1 if the decoded picture is flat too, else `inf`.

    Raises:
        ValueError: the shapes differ or are not (B, C, H, W).
    """
    _check_pair(x_hat, x)
    if rounded:
        x_hat, x = round_to_8_bits(x_hat), round_to_8_bits(x)
    kept, original = gradient_energy(x_hat), gradient_energy(x)
    return torch.where((kept == 0) & (original == 0), torch.ones_like(kept), kept / original)


def bits_per_pixel(n_bytes: int, height: int, width: int) -> float:
    """The bit rate 8 * n_bytes / (height * width) in bits per pixel; n_bytes is that of the whole file."""
    return 8 * n_bytes / (height * width)


def compression_ratio(n_bytes: int, height: int, width: int) -> float:
    """The size of the raw 24-bit picture over the size of its file."""
    return RAW_BITS_PER_PIXEL * height * width / (8 * n_bytes)


def _check_pair(x_hat: Tensor, x: Tensor) -> None:
    if x_hat.shape != x.shape or x.ndim != 4:
        shapes = f"{tuple(x_hat.shape)} and {tuple(x.shape)}"
        raise ValueError(f"both pictures must have one shape (B, C, H, W), got {shapes}")
