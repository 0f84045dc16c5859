r"""Entropy models for latents that a codec has made already, fitted in seconds, measured in bytes.

All of them code the same latents y, given in quantiser steps. They differ in the distribution that they
assume of a latent:

    FactorisedPrior       a table for each channel, the same at every place of every picture
    SmallHyperprior       y --h_a--> z --h_s--> a scale for each latent            (Ballé et al. 2018)
      with_mean=True      y --h_a--> z --h_s--> a mean and a scale                 (Minnen et al. 2018)

| paper           | here                                     | shape                               |
|-----------------|------------------------------------------|-------------------------------------|
| y / Delta       | ``y``                                    | (B, M, h, w), h and w any           |
| z               | ``h_a(y)``                               | (B, N, h/4, w/4), rounded up        |
| mu, sigma       | ``SmallHyperprior.predict``              | as y, in quantiser steps            |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dhp_lab.codec.bits.rans import CoderTables, coder_tables, rans_decode, rans_encode
from dhp_lab.codec.bits.scales import LEVELS, LOG2_SCALE_MIN, PER_OCTAVE, SCALES
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.hyper_transforms import HYPER
from dhp_lab.codec.networks.layers import zero_init
from dhp_lab.core.compressai_imports import (
    EntropyBottleneck,
    GaussianConditional,
    pmf_to_quantized_cdf,
)
from dhp_lab.core.seeding import temporary_seed
from dhp_lab.core.tensors import pad_to_multiple

PRECISION = 16  # a table's frequencies add up to 2^16
SPREAD_MIN = 0.05  # steps; a channel may be all zeros in the photos that a model is fitted to
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Coded:
    """A picture's latents, coded and decoded.

    Attributes:
        y, z: bytes of both.
        y_hat: (1, M, h, w) the decoded latents in quantiser steps.
    """

    y: bytes
    z: bytes
    y_hat: Tensor


@torch.no_grad()
def latents_in_steps(model: DiffusionHyperprior, x: Tensor, lambda_rate: float) -> Tensor:
    """The latents y / Delta that the encoder rounds.

    Args:
        x: (B, 3, H, W) in [0, 1].
        lambda_rate: 1e-6 .. 1e-1.

    Returns:
        (B, M, ceil(H/16), ceil(W/16)).

    Raises:
        ValueError: lambda_rate outside [1e-6, 1e-1].
    """
    delta = model.step_size(lambda_rate)
    return model.analyse(x, x.new_full((len(x),), delta).log2()) / delta


@torch.no_grad()
def picture(model: DiffusionHyperprior, y_hat: Tensor, lambda_rate: float, size: tuple[int, int]) -> Tensor:
    """g_s: decoded latents in steps, (B, M, h, w) -> pictures (B, 3, *size) in [0, 1], without diffusion."""
    delta = model.step_size(lambda_rate)
    return model.synthesise(y_hat * delta, y_hat.new_full((len(y_hat),), delta).log2(), size).clamp(0, 1)


def augmented(x: Tensor) -> list[Tensor]:
    """A picture (1, 3, H, W) as it is, mirrored, transposed, and both: four to fit to."""
    return [x, x.flip(-1), x.transpose(-1, -2), x.transpose(-1, -2).flip(-1)]


class FactorisedPrior:
    """A probability table for each channel: the frequencies of its values, half a count added to each.

    Args:
        latents: of the pictures to fit to, each (1, M, h, w) in steps.
    """

    def __init__(self, latents: Sequence[Tensor]) -> None:
        rounded = torch.cat([y.round().transpose(0, 1).flatten(1) for y in latents], 1)
        values = rounded.int().cpu().numpy()  # (M, n)
        self.lows = values.min(1) - 1
        self.counts, self.tables = [], []
        for row, low in zip(values, self.lows, strict=True):
            count = np.bincount(row - low, minlength=row.max() - low + 2)
            smoothed = np.append(count + 0.5, 0.5)  # the last one is the escape
            table = pmf_to_quantized_cdf(torch.from_numpy(smoothed / smoothed.sum()), PRECISION)
            self.counts.append(count)
            self.tables.append(table.tolist())

    def encode(self, y: Tensor) -> Coded:
        """Round and code the latents of one picture, (1, M, h, w); there is no z."""
        symbols = y.round().int().cpu()
        rows = torch.arange(y.shape[1]).view(-1, 1, 1).expand(y.shape[1:])
        lengths = [len(table) for table in self.tables]
        tables = CoderTables(self.tables, lengths, self.lows.tolist())
        data = rans_encode(symbols.flatten(), rows.flatten(), tables)
        return Coded(data, b"", symbols.to(y))


class SmallHyperprior(nn.Module):
    """h_a, h_s and the densities whose parameters they predict, for frozen latents.

    Args:
        spread: (M,) standard deviation of each channel, in steps; h_s predicts scales in units of it.
        with_mean: whether h_s predicts a mean too; without it h_a sees |y|, as in Ballé et al. 2018.
        N: channels of z.
        width: channels in between.
    """

    def __init__(self, spread: Tensor, *, with_mean: bool, N: int = 24, width: int = 48) -> None:
        super().__init__()
        M = len(spread)
        self.with_mean = with_mean
        self.register_buffer("spread", spread.clamp(min=SPREAD_MIN).view(-1, 1, 1))
        self.h_a = nn.Sequential(
            nn.Conv2d(M, width, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, N, 4, stride=2, padding=1),
        )
        self.h_s = nn.Sequential(
            nn.Conv2d(N, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            zero_init(nn.Conv2d(width, (2 if with_mean else 1) * M, 1)),
        )
        self.bottleneck = EntropyBottleneck(N, init_scale=4)
        self.gaussian = GaussianConditional(SCALES, scale_bound=SCALES[0])

    def analyse(self, y: Tensor) -> Tensor:
        """h_a: (B, M, h, w) -> z (B, N, ceil(h/4), ceil(w/4))."""
        padded = pad_to_multiple(y, HYPER)
        return self.h_a(torch.asinh((padded if self.with_mean else padded.abs()) / self.spread))

    def predict(self, z_hat: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """h_s: z after rounding -> mean and scale of latents of (h, w) places, in steps; the mean is 0
        without one.
        """
        out = self.h_s(z_hat)[..., : size[0], : size[1]]
        mean, log2_scale = out.chunk(2, 1) if self.with_mean else (torch.zeros_like(out), out)
        return mean * self.spread, log2_scale.clamp(-10, 10).exp2() * self.spread

    def bits(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Estimated bits of y and of z, scalars: with noise in train mode, rounded in eval mode."""
        z_hat, p_z = self.bottleneck(self.analyse(y))
        mean, scale = self.predict(z_hat, y.shape[-2:])
        p_y = self.gaussian(y, scale, mean)[1]
        return -p_y.log2().sum(), -p_z.log2().sum()

    def update(self) -> None:
        """Make the probability tables; call it after training."""
        self.bottleneck.update(force=True, update_quantiles=True)
        self.gaussian.update_scale_table(SCALES, force=True)

    @torch.no_grad()
    def encode(self, y: Tensor) -> Coded:
        """Code the latents of one picture, (1, M, h, w), and decode them again from the bytes alone.

        Raises:
            ValueError: no tables yet, see ``update``.
        """
        z = self.analyse(y)
        z_bytes = self.bottleneck.compress(z)
        mean, scale = self.predict(self.bottleneck.decompress(z_bytes, z.shape[-2:]), y.shape[-2:])
        tables = coder_tables(self.gaussian)
        indexes = ((scale.log2() - LOG2_SCALE_MIN) * PER_OCTAVE).round().clamp(0, LEVELS - 1).int().flatten()
        coded = indexes.nonzero().squeeze(1)  # as in the codec: row 0 stands for a zero
        symbols = (y - mean).round().flatten()[coded].int()
        data = rans_encode(symbols, indexes[coded], tables)
        decoded = torch.zeros_like(y).flatten()
        decoded[coded] = rans_decode(data, indexes[coded].cpu(), tables).to(y)
        return Coded(data, z_bytes[0], decoded.view_as(y) + mean)


def fit(
    model: SmallHyperprior,
    latents: Sequence[Tensor],
    *,
    steps: int,
    count: int = 4,
    side: int = 16,
    lr: float = 5e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, bits: None,
) -> SmallHyperprior:
    """Minimise the estimated bits of random windows of latents by Adam with cosine decay; then make tables.

    Args:
        latents: each (1, M, h, w) in steps, h and w at least ``side``.
        steps: training steps.
        count, side: windows in a step, of side x side latents.
        lr: learning rate at the start; it decays to 0.
        seed: of windows and noise; the global random state is left as it was.
        progress: called after each step with its number from 1 and its bits for each place of 16 x 16 pixels.
    """
    trained = [p for name, p in model.named_parameters() if not name.endswith("quantiles")]
    optimiser = torch.optim.Adam(trained, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with temporary_seed(seed):
        model.train()
        for step in range(1, steps + 1):
            bits = sum(model.bits(_windows(latents, count, side))) / (count * side**2)
            optimiser.zero_grad()
            bits.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            progress(step, bits.item())
    model.eval().update()
    return model


def _windows(latents: Sequence[Tensor], count: int, side: int) -> Tensor:
    """(count, M, side, side), drawn from torch's global generator."""
    parts = []
    for _ in range(count):
        y = latents[int(torch.randint(len(latents), ()))]
        top, left = (int(torch.randint(length - side + 1, ())) for length in y.shape[-2:])
        parts.append(y[..., top : top + side, left : left + side])
    return torch.cat(parts)
