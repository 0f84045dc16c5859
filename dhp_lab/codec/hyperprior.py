r"""The mean-scale hyperprior that the codec is built on (Minnen et al. 2018), with one set of weights for
every rate.

    x --g_a--> y --/Delta--> h_a --> z --entropy bottleneck--> z_hat --h_s--> mean, scale
               |                                                             |
               +---> q = round(y/Delta - mean) ---- Gaussian conditional ----+--> bytes

| paper        | here                            | shape                                              |
|--------------|---------------------------------|----------------------------------------------------|
| y, z         | ``Latents.y``, ``Latents.z``    | (B, M, H/16, W/16), (B, N, H/64, W/64), rounded up |
| Delta        | ``2 ** Latents.log2_delta``     | (B,)                                               |
| q            | ``Latents.symbols``             | as y                                               |
| mu, sigma    | ``Latents.mean``, ``.scale``    | as y, in quantiser steps                           |

Where there are later passes (``context``) they correct mean and scale; a dead zone (``entropy.bin_width``)
widens the bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models import CompressionModel
from torch import Tensor, nn

from dhp_lab.codec.bits.lambdas import FRACTION_BITS, lambda_code
from dhp_lab.codec.bits.scales import SCALES, bin_width, is_coded, log2_scale_in_steps
from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.networks.context import LatentGroup, ContextModel
from dhp_lab.codec.networks.exact import ACTIVATION_BITS
from dhp_lab.codec.networks.gain import GainCurve
from dhp_lab.codec.networks.hyper_transforms import HYPER, HyperAnalysis, HyperSynthesis
from dhp_lab.codec.networks.layers import _pad, round_through
from dhp_lab.codec.networks.tiling import tiled


@dataclass(frozen=True)
class Latents:
    """A batch of pictures as the encoder sees it; see the table in the module's docstring."""

    y: Tensor
    z: Tensor
    first: tuple[Tensor, Tensor]
    mean: Tensor
    log2_scale: Tensor
    residual: Tensor
    symbols: Tensor
    z_symbols: Tensor
    log2_delta: Tensor
    std: Tensor
    z_likelihood: Tensor | None

    @property
    def scale(self) -> Tensor:
        """The standard deviation that each latent was coded with, in quantiser steps."""
        return scale_from_log2(self.log2_scale)


def scale_from_log2(log2_scale: Tensor) -> Tensor:
    """2^octaves, kept within 2^-20 .. 2^20."""
    return log2_scale.clamp(-20, 20).exp2()


class Hyperprior(CompressionModel):
    """Transforms, gain curve, entropy models: everything but the diffusion. See ``DiffusionHyperprior``.

    Args:
        config: what it is made of. ``N`` is the number of z's channels, ``M`` here that of y's.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.N, self.M, self.block, self.tile = config.N, config.channels, config.block, config.tile
        self.sends_y, self.dead_zone = config.transmit == "z+y", config.dead_zone
        self._tables_stale = False  # whether training has moved on since the last update
        self.g_a, self.g_s = config.transforms()
        hyper = config.N, config.channels, config.hyper_width
        self.h_a, self.h_s = HyperAnalysis(*hyper), HyperSynthesis(*hyper)
        self.passes = ContextModel(config.N, config.channels, config.passes)
        self.gain = GainCurve()
        self.log2_spread = nn.Parameter(config.log2_spread())
        self.entropy_bottleneck = EntropyBottleneck(config.N)
        self.gaussian_conditional = GaussianConditional(SCALES, scale_bound=SCALES[0])

    def step_size(self, lambda_rate: float) -> float:
        """Delta: the quantiser step that a trade-off stands for, in latent units.

        Raises:
            ValueError: lambda_rate outside [1e-6, 1e-1].
        """
        return 2.0 ** (self.gain.fixed_point(lambda_code(lambda_rate)) / 2**FRACTION_BITS)

    def analyse(self, x: Tensor, log2_delta: Tensor, tile: int | None = None) -> Tensor:
        """g_a on pictures of any size: (B, 3, H, W) -> y (B, M, ceil(H/block), ceil(W/block)); tile: largest
        side, in latents.
        """
        x, block = _pad(x, self.block), self.block
        std, rows, cols = self.log2_spread.exp2(), x.shape[-2] // block, x.shape[-1] // block

        def part(r: slice, c: slice) -> Tensor:
            window = x[..., block * r.start : block * r.stop, block * c.start : block * c.stop]
            return self.g_a(window.contiguous(memory_format=torch.channels_last), log2_delta, std)

        return tiled(part, rows, cols, 1, tile or self.tile)

    def synthesise(
        self, y_hat: Tensor, log2_delta: Tensor, size: tuple[int, int], tile: int | None = None
    ) -> Tensor:
        """g_s: latents -> picture (B, 3, *size), about [0, 1]."""
        std = self.log2_spread.exp2()
        whole = tiled(
            lambda r, c: self.g_s(y_hat[..., r, c], log2_delta, std),
            *y_hat.shape[-2:],
            self.block,
            tile or self.tile,
        )
        return whole[..., : size[0], : size[1]]

    def hyper_analyse(self, y: Tensor, log2_delta: Tensor) -> Tensor:
        """h_a: y -> z (B, N, ceil(h/4), ceil(w/4))."""
        steps = y / log2_delta.exp2().view(-1, 1, 1, 1)
        return self.h_a(_pad(steps, HYPER).contiguous(memory_format=torch.channels_last), log2_delta)

    def medians(self) -> Tensor:
        """(1, N, 1, 1) float64 centres of z's bins, in whole multiples of 2^-10 so that every device adds the
        same.
        """
        medians = self.entropy_bottleneck._get_medians().detach().double().view(1, -1, 1, 1)
        return torch.round(medians * 2**ACTIVATION_BITS) / 2**ACTIVATION_BITS

    def predict(self, z_symbols: Tensor, codes: list[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What z says of y, the same on every device as far as the entropy decoder looks.

        Args:
            z_symbols: (B, N, h/4, w/4) whole numbers. codes: B lambda codes. size: (h, w) of y.

        Returns:
            mean (B, M, h, w) float32 in quantiser steps, and octaves likewise: log2 of the scale in steps,
            exact.
        """
        fixed = [self.gain.fixed_point(code) for code in codes]
        log2_delta = torch.tensor(fixed, dtype=torch.float64, device=z_symbols.device) / 2**FRACTION_BITS
        z_hat = z_symbols.double() + self.medians()

        def part(r: slice, c: slice) -> Tensor:
            window = z_hat[
                ..., r.start // HYPER : -(-r.stop // HYPER), c.start // HYPER : -(-c.stop // HYPER)
            ]
            mean, log2_scale = self.h_s.exact(window, log2_delta)[
                ..., : r.stop - r.start, : c.stop - c.start
            ].chunk(2, 1)
            log2_scale = [
                log2_scale_in_steps(log2_scale[i : i + 1], self.log2_spread, fixed[i])
                for i in range(len(fixed))
            ]
            return torch.cat(
                [mean.float() * self._unit(log2_delta.float()).exp2(), torch.cat(log2_scale).float()], 1
            )

        return tiled(part, *size, 1).chunk(2, 1)

    def _unit(self, log2_delta: Tensor) -> Tensor:
        """(B, M, 1, 1) log2 of the channels' spread in quantiser steps."""
        return self.log2_spread.view(-1, 1, 1) - log2_delta.view(-1, 1, 1, 1)

    def latents(self, x: Tensor, lambda_rate: Tensor) -> Latents:
        """Encode pictures with a trade-off each, (B,): differentiable, with training's stand-in for rounding."""
        self._tables_stale = True
        return self._latents(x, self.gain(lambda_rate), None)

    def encode(self, x: Tensor, codes: list[int]) -> Latents:
        """Encode pictures with a lambda code each: the numbers that the entropy coder sends. For eval mode."""
        return self._latents(
            x, x.new_tensor([self.gain.fixed_point(code) / 2**FRACTION_BITS for code in codes]), codes
        )

    def _latents(self, x: Tensor, log2_delta: Tensor, codes: list[int] | None) -> Latents:
        y = self.analyse(x, log2_delta)
        z = self.hyper_analyse(y, log2_delta)
        medians = self.medians().float()
        z_symbols = round_through(z - medians)
        z_likelihood = self.entropy_bottleneck(z)[1]
        if codes is None:
            out = self.h_s(z_symbols + medians, log2_delta)[..., : y.shape[-2], : y.shape[-1]]
            mean, log2_scale = out.chunk(2, 1)
            first = mean * self._unit(log2_delta).exp2(), log2_scale + self._unit(log2_delta)
        else:
            first = self.predict(z_symbols, codes, y.shape[-2:])
        steps = y / log2_delta.exp2().view(-1, 1, 1, 1)

        def symbols_at(part: LatentGroup, mean: Tensor, log2_scale: Tensor) -> Tensor:
            residual = part.take(steps) - mean
            symbols = self.normalised_residual(residual, log2_scale).round() * is_coded(log2_scale)
            return residual + (symbols - residual).detach() if codes is None else symbols

        mean, log2_scale, symbols = self.passes.run_passes(
            *first, log2_delta, symbols_at, exact=codes is not None
        )
        return Latents(
            y,
            z,
            first,
            mean,
            log2_scale,
            steps - mean,
            symbols,
            z_symbols,
            log2_delta,
            self.log2_spread.exp2(),
            z_likelihood,
        )

    def likelihoods(self, latents: Latents) -> dict[str, Tensor]:
        """Probabilities of y's and z's symbols; the bits they add up to are an estimate of the file's."""
        if not self.sends_y:
            return {"y": torch.ones_like(latents.y), "z": latents.z_likelihood}
        coded = self.normalised_residual(latents.residual, latents.log2_scale)
        at = coded + torch.rand_like(coded) - 0.5 if self.training else latents.symbols
        y = self.gaussian_conditional._likelihood(at, latents.scale)
        return {"y": self.gaussian_conditional.likelihood_lower_bound(y), "z": latents.z_likelihood}

    def normalised_residual(self, residual: Tensor, log2_scale: Tensor) -> Tensor:
        """y/Delta - mean, counted in the widths of the symbols' bins."""
        return residual / bin_width(scale_from_log2(log2_scale.detach()), self.dead_zone)

    def decoder_state(self, latents: Latents, decoded: bool | None = None) -> DecoderState:
        """What the decoder of these latents holds; ``decoded=False`` leaves it z alone."""
        if self.sends_y if decoded is None else decoded:
            return self.make_decoder_state(
                latents.symbols, 1.0, latents.mean, latents.log2_scale, latents.log2_delta
            )
        return self.make_decoder_state(
            torch.zeros_like(latents.symbols), 0.0, *latents.first, latents.log2_delta
        )

    def make_decoder_state(
        self, symbols: Tensor, decoded: float, mean: Tensor, log2_scale: Tensor, log2_delta: Tensor
    ) -> DecoderState:
        """A ``DecoderState`` of latents that are all decoded, 1.0, or all not, 0.0."""
        mask = torch.full_like(symbols[:, :1], decoded)
        return DecoderState(
            symbols, mask, mean, scale_from_log2(log2_scale), log2_delta, self.log2_spread.exp2()
        )

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True):
        """As in torch; probability tables of any size are taken over as they are stored."""
        for tables in (self.entropy_bottleneck, self.gaussian_conditional):
            for name in ("_quantized_cdf", "_offset", "_cdf_length"):
                setattr(tables, name, torch.IntTensor().to(self.log2_spread.device))
        self._tables_stale = False
        return super().load_state_dict(state_dict, strict)

    def update(self, scale_table=None, force: bool = False, update_quantiles: bool = False) -> bool:
        """Make the probability tables, as CompressAI's ``update`` does; the Gaussian ones never depend on the
        weights.
        """
        changed = self.gaussian_conditional.update_scale_table(SCALES, force=force)
        force, self._tables_stale = force or self._tables_stale, False
        return self.entropy_bottleneck.update(force=force, update_quantiles=update_quantiles) or changed


def check_pictures(x: Tensor) -> None:
    """Pass pictures that a codec can take.

    Raises:
        ValueError: another type or shape.
    """
    if x.dtype != torch.float32 or x.ndim != 4 or len(x) == 0 or x.shape[1] != 3 or min(x.shape[-2:]) < 16:
        raise ValueError(
            f"pictures must be float32 of shape (B, 3, H, W) with H, W >= 16, got {tuple(x.shape)}, {x.dtype}"
        )


def check_sampling(steps: int, gamma: float) -> None:
    """Pass numbers of steps and weights that a decoder can take.

    Raises:
        ValueError: one out of range.
    """
    if not 0 <= steps <= 1000:
        raise ValueError(f"steps must lie in 0 .. 1000, got {steps}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
