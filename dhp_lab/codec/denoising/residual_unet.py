r"""The realism denoiser: a U-Net near the pixels that models what the decoded picture lacks.

    residual r = (x - x_hat) / e,      e: the expected error of the place (``expected_error``)

g_s decodes x_hat, the mean of the photos that fit the bytes; r is what a photo has beyond it, in units in
which it has about unit variance everywhere. So a noise level sigma of r is sigma e in the picture: much where
the entropy model expects texture that was not sent, next to nothing in a flat sky.

The U-Net works on blocks of 2 x 2 pixels, from whose 12 numbers it sees the state and x_hat, and beside them
log2 of e in all and in eight bands, log2(Delta) and the noise level. It is preconditioned as in EDM (Karras
et al. 2022, table 1 and eq. 7, with sigma_data = 1):

    D(u, sigma) = c_skip u + c_out F(c_in u, c_noise, ...)          ``dhp_lab.diffusion.edm``

| paper      | here                | shape, range                              |
|------------|---------------------|-------------------------------------------|
| x + n      | ``u``               | (B, 3, H, W), residual + sigma * noise    |
| sigma      | ``sigma``           | (B,), above 0, in units of e              |
| D          | ``forward``         | (B, 3, H, W), the estimate of r           |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.denoising.expected_error import BANDS
from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.codec.networks.layers import residual_blocks, scaled_log2_delta, zero_init
from dhp_lab.core.precision import autocast
from dhp_lab.diffusion.edm import preconditioning

PIXELS = 2  # side of the blocks whose numbers become channels
WIDTHS = (48, 80, 128)  # channels at 1/2, 1/4 and 1/8 of the picture's sides
UNIT = 8  # the sides of what it takes are multiples of this
START = 3.0  # the noise level that a chain starts at, in units of e
FIRST = 0.16  # that of the schedule's first time: with it two steps are at 3 and 0.7


@dataclass(frozen=True)
class Conditions:
    """What the realism denoiser knows of a picture beside the noisy residual.

    Attributes:
        picture: (B, 3, H, W) x_hat, about [0, 1]; sides multiples of 16.
        errors: (B, 1 + BANDS, H/16, W/16) as of ``expected_errors``.
        log2_delta: (B,) log2 of the quantiser step.
    """

    picture: Tensor
    errors: Tensor
    log2_delta: Tensor

    def window(self, rows: slice, cols: slice) -> Conditions:
        """The same for a rectangle of latents."""
        pixels = [slice(BLOCK * side.start, BLOCK * side.stop) for side in (rows, cols)]
        return Conditions(
            self.picture[..., pixels[0], pixels[1]], self.errors[..., rows, cols], self.log2_delta
        )


class ResidualUNet(nn.Module):
    """D(u, sigma, conditions): the estimate of the residual.

    Args:
        widths: channels at 1/2, 1/4 and 1/8 of the picture's sides.
        start, first: the noise levels of the chain that it is trained for, for whoever makes the schedule.
    """

    def __init__(
        self, widths: tuple[int, int, int] = WIDTHS, *, start: float = START, first: float = FIRST
    ) -> None:
        super().__init__()
        self.widths, self.start, self.first = widths, start, first
        a, b, c = widths
        numbers = 3 * PIXELS**2
        self.entry = nn.Conv2d(2 * numbers + 1 + BANDS + 2, a, 3, padding=1)
        self.down_a = residual_blocks(a, 2)
        self.to_b = nn.Conv2d(a, b, 4, stride=2, padding=1)
        self.down_b = residual_blocks(b, 2)
        self.to_c = nn.Conv2d(b, c, 4, stride=2, padding=1)
        self.middle = residual_blocks(c, 4)
        self.from_c = nn.Sequential(nn.Conv2d(c, 4 * b, 1), nn.PixelShuffle(2))
        self.up_b = residual_blocks(b, 2)
        self.from_b = nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2))
        self.up_a = residual_blocks(a, 2)
        self.exit = zero_init(nn.Conv2d(a, numbers, 3, padding=1))

    def forward(self, u: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Shapes and ranges are in the module's docstring."""
        scalings = preconditioning(sigma.view(-1, 1, 1, 1))
        planes = self._planes(scalings.c_in * u, scalings.c_noise, conditions)
        with autocast(u.device):
            a = self.down_a(self.entry(planes.contiguous(memory_format=torch.channels_last)))
            b = self.down_b(self.to_b(a))
            c = self.middle(self.to_c(b))
            b = self.up_b(b + self.from_c(c))
            a = self.up_a(a + self.from_b(b))
            estimate = F.pixel_shuffle(self.exit(a), PIXELS)
        return scalings.c_skip * u + scalings.c_out * estimate.float()

    def _planes(self, scaled: Tensor, c_noise: Tensor, conditions: Conditions) -> Tensor:
        """What the U-Net sees, (B, C, H/2, W/2)."""
        state, picture = (
            F.pixel_unshuffle(image, PIXELS) for image in (scaled, 4 * (conditions.picture - 0.5))
        )
        errors = F.interpolate((conditions.errors.log2() + 5) / 2, scale_factor=BLOCK // PIXELS)
        step = scaled_log2_delta(conditions.log2_delta).view(-1, 1, 1, 1)
        levels = [plane.expand_as(state[:, :1]) for plane in (step, c_noise)]
        return torch.cat([state, picture, errors, *levels], 1)


def pixel_scale(errors: Tensor) -> Tensor:
    """e of every pixel, (B, 1, H, W): the logarithm of the first plane of ``errors``, interpolated.

    Args:
        errors: (B, 1 + BANDS, H/16, W/16) as of ``expected_errors``.
    """
    log2 = errors[:, :1].log2()
    return F.interpolate(log2, scale_factor=BLOCK, mode="bilinear", align_corners=False).exp2()
