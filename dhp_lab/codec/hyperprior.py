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

A context model (``networks.context``) corrects mean and scale in later passes; dead-zone quantisation widens
the bins (``scales.bin_width``). There are two ways through: ``encode`` is what files are made of, in exact
arithmetic where the decoder must agree; ``training_latents`` is differentiable.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dhp_lab.codec.bits.lambdas import FRACTION_BITS, lambda_code
from dhp_lab.codec.bits.scales import SCALES, bin_width, is_coded, log2_scale_in_steps
from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.latents import Latents, in_steps, probability, scale_from_log2
from dhp_lab.codec.networks.context import ContextModel, Gaussian
from dhp_lab.codec.networks.exact import ACTIVATION_BITS, ExactNetwork
from dhp_lab.codec.networks.gain import GainCurve
from dhp_lab.codec.networks.hyper_transforms import HYPER, HyperAnalysis, HyperSynthesis
from dhp_lab.codec.networks.layers import round_through
from dhp_lab.codec.networks.tiling import tiled
from dhp_lab.codec.parts import CodecParts
from dhp_lab.codec.symbol_tables import SymbolTables, conditional_of
from dhp_lab.codec.trellis_latents import symbol_probabilities, trellis_symbols
from dhp_lab.core.compressai_imports import CompressionModel, EntropyBottleneck
from dhp_lab.core.precision import StaysFloat32
from dhp_lab.core.tensors import crop_to, pad_to_multiple

EXACT_TILE = 64  # largest side, in latents, of what h_s is evaluated on at once: float64 takes much memory


class Hyperprior(StaysFloat32, CompressionModel):
    """Transforms, gain curve, entropy models: everything but the diffusion. See ``DiffusionHyperprior``.

    Args:
        config: its settings. parts: the transforms, and the numbers that go with them.
    """

    def __init__(self, config: CodecConfig, parts: CodecParts) -> None:
        super().__init__()
        self.N, self.M, self.block, self.tile = config.N, parts.channels, parts.block, parts.tile
        self.sends_y, self.dead_zone = config.transmit == "z+y", config.dead_zone
        self._tables_stale = False  # whether training has moved on since the last update
        self.g_a, self.g_s = parts.g_a, parts.g_s
        self.h_a = HyperAnalysis(config.N, parts.channels, parts.hyper_width)
        self.h_s = HyperSynthesis(config.N, parts.channels, parts.hyper_width)
        self.context = ContextModel(config.N, parts.channels, config.passes)
        self.gain = GainCurve()
        self.log2_spread = nn.Parameter(parts.log2_spread)
        self.entropy_bottleneck = EntropyBottleneck(config.N)
        self.trellis = config.trellis
        self.gaussian_conditional = conditional_of(config)
        self._forget_tables()

    # transforms, on pictures of any size

    def step_size(self, lambda_rate: float) -> float:
        """Delta: the quantiser step that a trade-off stands for, in latent units.

        Raises:
            ValueError: lambda_rate outside [1e-6, 1e-1].
        """
        return 2.0 ** (self.gain.fixed_point(lambda_code(lambda_rate)) / 2**FRACTION_BITS)

    def analyse(self, x: Tensor, log2_delta: Tensor, tile: int | None = None) -> Tensor:
        """g_a on pictures of any size.

        Args:
            x: (B, 3, H, W) in [0, 1]. log2_delta: (B,). tile: largest side of a tile, in latents.

        Returns:
            y (B, M, ceil(H/block), ceil(W/block)).
        """
        block, std = self.block, self.log2_spread.exp2()
        x = pad_to_multiple(x, block)

        def part(rows: slice, cols: slice) -> Tensor:
            window = x[..., block * rows.start : block * rows.stop, block * cols.start : block * cols.stop]
            return self.g_a(window.contiguous(memory_format=torch.channels_last), log2_delta, std)

        height, width = x.shape[-2:]
        return tiled(part, height // block, width // block, 1, tile or self.tile)

    def synthesise(
        self, y_hat: Tensor, log2_delta: Tensor, size: tuple[int, int], tile: int | None = None
    ) -> Tensor:
        """g_s: latents -> picture (B, 3, *size), about [0, 1]. Arguments as for ``analyse``."""
        std = self.log2_spread.exp2()

        def part(rows: slice, cols: slice) -> Tensor:
            return self.g_s(y_hat[..., rows, cols], log2_delta, std)

        return crop_to(tiled(part, *y_hat.shape[-2:], self.block, tile or self.tile), size)

    def hyper_analyse(self, y: Tensor, log2_delta: Tensor) -> Tensor:
        """h_a: y -> z (B, N, ceil(h/4), ceil(w/4))."""
        steps = pad_to_multiple(in_steps(y, log2_delta), HYPER)
        return self.h_a(steps.contiguous(memory_format=torch.channels_last), log2_delta)

    # the entropy model of y

    def medians(self) -> Tensor:
        """(1, N, 1, 1) float64 centres of z's bins, whole multiples of 2^-10 so that every device adds the
        same.
        """
        medians = self.entropy_bottleneck._get_medians().detach().double().view(1, -1, 1, 1)
        return torch.round(medians * 2**ACTIVATION_BITS) / 2**ACTIVATION_BITS

    def predict(self, z_symbols: Tensor, codes: list[int], size: tuple[int, int]) -> Gaussian:
        """Mean and scale that z predicts of y: the scale is the same on every device.

        Args:
            z_symbols: (B, N, h/4, w/4) whole numbers. codes: B lambda codes. size: (h, w) of y.

        Returns:
            mean (B, M, h, w) float32 in quantiser steps, and log2 of the scale in steps likewise, exact.
        """
        fixed = [self.gain.fixed_point(code) for code in codes]
        log2_delta = torch.tensor(fixed, dtype=torch.float64, device=z_symbols.device) / 2**FRACTION_BITS
        z_hat = z_symbols.double() + self.medians()

        def part(rows: slice, cols: slice) -> Tensor:
            of_z = [slice(side.start // HYPER, -(-side.stop // HYPER)) for side in (rows, cols)]
            out = self.h_s.exact(z_hat[..., of_z[0], of_z[1]], log2_delta)
            out = crop_to(out, (rows.stop - rows.start, cols.stop - cols.start))
            mean, log2_scale = out.chunk(2, 1)
            mean = mean.float() * self._log2_spread_in_steps(log2_delta.float()).exp2()
            pairs = zip(log2_scale.split(1), fixed, strict=True)
            predicted = [log2_scale_in_steps(one, self.log2_spread, delta) for one, delta in pairs]
            both = torch.cat([mean, torch.cat(predicted).float()], 1)
            return both.contiguous(memory_format=torch.channels_last)  # it is read place by place

        return Gaussian(*tiled(part, *size, 1, min(self.tile, EXACT_TILE)).chunk(2, 1))

    def predict_in_floats(self, z_symbols: Tensor, log2_delta: Tensor, size: tuple[int, int]) -> Gaussian:
        """``predict`` with gradients, and equal to it but for rounding; log2_delta: (B,)."""
        z_hat = z_symbols + self.medians().float()
        mean, log2_scale = crop_to(self.h_s(z_hat, log2_delta), size).chunk(2, 1)
        spread = self._log2_spread_in_steps(log2_delta)
        return Gaussian(mean * spread.exp2(), log2_scale + spread)

    def _log2_spread_in_steps(self, log2_delta: Tensor) -> Tensor:
        """(B, M, 1, 1) log2 of the channels' spread in quantiser steps."""
        return self.log2_spread.view(-1, 1, 1) - log2_delta.view(-1, 1, 1, 1)

    def normalised_residual(self, residual: Tensor, log2_scale: Tensor) -> Tensor:
        """y/Delta - mean, in units of the width of the symbols' bins."""
        return residual / bin_width(scale_from_log2(log2_scale.detach()), self.dead_zone)

    def _quantise(self, residual: Tensor, log2_scale: Tensor) -> Tensor:
        """The symbols of residuals (B, n, C): rounded, or a trellis's values, and 0 where the scale is so
        small that nothing is coded.
        """
        if self.trellis:
            return trellis_symbols(residual, log2_scale, self.tables.level_bits)
        return self.normalised_residual(residual, log2_scale).round() * is_coded(log2_scale)

    # pictures to latents, for files and in training

    def encode(self, x: Tensor, codes: list[int]) -> Latents:
        """Encode pictures with a lambda code each: the numbers that are written. For eval mode."""
        fixed = [self.gain.fixed_point(code) / 2**FRACTION_BITS for code in codes]
        log2_delta = x.new_tensor(fixed)
        y = self.analyse(x, log2_delta)
        return self.code_latents(y, self.hyper_analyse(y, log2_delta), codes, self._quantise)

    def code_latents(
        self, y: Tensor, z: Tensor, codes: list[int], quantise: Callable[[Tensor, Tensor], Tensor]
    ) -> Latents:
        """The numbers that are written for latents y (B, M, h, w) and z (B, N, ceil(h/4), ceil(w/4)).

        Args:
            codes: B lambda codes.
            quantise: from y/Delta - mean and log2(scale), (B, n, C) each, to symbols: 0 where the scale is so
                small that nothing is coded.
        """
        fixed = [self.gain.fixed_point(code) / 2**FRACTION_BITS for code in codes]
        log2_delta = y.new_tensor(fixed)
        z_symbols = torch.round(z - self.medians().float())
        first = self.predict(z_symbols, codes, y.shape[-2:])
        delta = log2_delta.exp2().view(-1, 1, 1)
        mean, log2_scale, symbols = (
            torch.empty_like(t, memory_format=torch.channels_last) for t in (y, y, y)
        )
        seen = self.context.nothing_seen(first)
        for group in self.context.groups(first):
            gaussian, shift = self.context.predict(group, first, seen, log2_delta, exact=True)
            coded = quantise(group.gather(y) / delta - gaussian.mean, gaussian.log2_scale)
            self.context.observe(group, first, seen, coded, shift)
            group.scatter_all((mean, log2_scale, symbols), (*gaussian, coded))
        return self._latents(y, z, z_symbols, symbols, first, Gaussian(mean, log2_scale), log2_delta)

    def training_latents(
        self, x: Tensor, lambda_rate: Tensor, z_noise: Callable[[Tensor], Tensor] | None = None
    ) -> Latents:
        """Encode pictures with a trade-off each, (B,): differentiable, rounding with the straight-through
        gradient. z_noise: as for ``probability``, of z.
        """
        self._tables_stale = True
        log2_delta = self.gain(lambda_rate)
        y = self.analyse(x, log2_delta)
        z = self.hyper_analyse(y, log2_delta)
        z_symbols = round_through(z - self.medians().float())
        first = self.predict_in_floats(z_symbols, log2_delta, y.shape[-2:])
        steps = in_steps(y, log2_delta)
        mean, log2_scale, symbols = (
            torch.empty_like(t, memory_format=torch.channels_last) for t in (y, y, y)
        )
        seen = self.context.nothing_seen(first)
        for group in self.context.groups(first):
            gaussian, shift = self.context.predict(group, first, seen, log2_delta, exact=False)
            residual = group.gather(steps) - gaussian.mean
            rounded = self._quantise(residual.detach(), gaussian.log2_scale)
            self.context.observe(group, first, seen, rounded, shift)
            coded = residual + (rounded - residual).detach()
            group.scatter_all((mean, log2_scale, symbols), (*gaussian, coded))
        return self._latents(y, z, z_symbols, symbols, first, Gaussian(mean, log2_scale), log2_delta, z_noise)

    def _latents(
        self,
        y: Tensor,
        z: Tensor,
        z_symbols: Tensor,
        symbols: Tensor,
        first: Gaussian,
        coded_with: Gaussian,
        log2_delta: Tensor,
        z_noise: Callable[[Tensor], Tensor] | None = None,
    ) -> Latents:
        return Latents(
            y=y,
            z=z,
            z_symbols=z_symbols,
            symbols=symbols,
            first=first,
            mean=coded_with.mean,
            log2_scale=coded_with.log2_scale,
            log2_delta=log2_delta,
            std=self.log2_spread.exp2(),
            z_likelihood=probability(self.entropy_bottleneck, z, z_noise),
        )

    def likelihoods(self, latents: Latents, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities of y's and z's symbols; the bits they add up to are an estimate of the file's.

        Args:
            noise: for training, uniform in [-1/2, 1/2], as y: the proxy of rounding (Ballé et al. 2017) in
                the place of symbols; None, in train mode, draws it from torch's own generator, as CompressAI
                does.
        """
        if not self.sends_y:
            return {"y": torch.ones_like(latents.y), "z": latents.z_likelihood}
        if self.trellis and not self.training:
            return {"y": self._trellis_probabilities(latents), "z": latents.z_likelihood}
        values = latents.symbols
        if self.training:
            noise = torch.rand_like(values) - 0.5 if noise is None else noise
            values = self.normalised_residual(latents.residual, latents.log2_scale) + noise
        y = self.gaussian_conditional._likelihood(values, latents.scale)
        return {"y": self.gaussian_conditional.likelihood_lower_bound(y), "z": latents.z_likelihood}

    @torch.no_grad()
    def _trellis_probabilities(self, latents: Latents) -> Tensor:
        """Of y's symbols (B, M, h, w), as the coder's tables have them."""
        found = torch.empty_like(latents.symbols, memory_format=torch.channels_last)
        for group in self.context.groups(latents.first):
            of_group = (group.gather(values) for values in (latents.symbols, latents.log2_scale))
            group.scatter(found, symbol_probabilities(*of_group, self.tables.level_bits))
        return found

    # what the decoder holds

    def decoder_state(self, latents: Latents, decoded: bool | None = None) -> DecoderState:
        """What the decoder of these latents holds; ``decoded=False`` leaves it z alone."""
        if self.sends_y if decoded is None else decoded:
            coded_with = Gaussian(latents.mean, latents.log2_scale)
            return self.make_decoder_state(latents.symbols, coded_with, latents.log2_delta, decoded=True)
        nothing = torch.zeros_like(latents.symbols)
        return self.make_decoder_state(nothing, latents.first, latents.log2_delta, decoded=False)

    def make_decoder_state(
        self, symbols: Tensor, gaussian: Gaussian, log2_delta: Tensor, *, decoded: bool
    ) -> DecoderState:
        """The ``DecoderState`` of latents that are all decoded, or all not."""
        mask = torch.full_like(symbols[:, :1], float(decoded))
        scale = scale_from_log2(gaussian.log2_scale)
        std = self.log2_spread.exp2()
        return DecoderState(symbols, mask, gaussian.mean, scale, log2_delta, std, self.trellis)

    # probability tables

    def _forget_tables(self) -> None:
        self.tables = SymbolTables(self.gaussian_conditional, self.entropy_bottleneck)

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True):
        """As in torch; probability tables of any size are taken over as they are stored."""
        for tables in (self.entropy_bottleneck, self.gaussian_conditional):
            for name in ("_quantized_cdf", "_offset", "_cdf_length"):
                setattr(tables, name, torch.IntTensor().to(self.log2_spread.device))
        self._tables_stale = False
        self._forget_tables()
        return super().load_state_dict(state_dict, strict)

    def update(self, scale_table=None, force: bool = False, update_quantiles: bool = False) -> bool:
        """Make the probability tables, as CompressAI's ``update`` does, and drop copies made of earlier
        weights.

        The Gaussian tables never depend on the weights.
        """
        changed = self.gaussian_conditional.update_scale_table(SCALES, force=force)
        force, self._tables_stale = force or self._tables_stale, False
        self._forget_tables()
        for module in self.modules():
            if isinstance(module, ExactNetwork):
                module.refresh()
        return self.entropy_bottleneck.update(force=force, update_quantiles=update_quantiles) or changed

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that training treats alike: "transforms", "lapped" (the linear filters), "context".

        No gradient trains z's quantiles (found by ``update``) and the gain (by ``training.calibration``).
        """
        linear = [part.linear for part in (self.g_a, self.g_s) if hasattr(part, "linear")]
        lapped = [p for part in linear for p in part.parameters()]
        context = list(self.context.parameters())
        apart = {id(p) for p in (*lapped, *context, self.entropy_bottleneck.quantiles)}
        modules = (self.g_a, self.g_s, self.h_a, self.h_s, self.entropy_bottleneck)
        transforms = [self.log2_spread, *(p for module in modules for p in module.parameters())]
        return {
            "transforms": [p for p in transforms if id(p) not in apart],
            "lapped": lapped,
            "context": context,
        }
