r"""Descent on the cost of one picture's latents, by steps of majorisation-minimisation.

The cost, in bits, with n pixels:

    n MSE / lambda + bits of y + bits of z

The decoder is frozen. The lapped transform is orthonormal, so that the curvature of the error is known: the
same kappa for every latent, but for what the non-linear part adds. An iteration is a step of
majorisation-minimisation (Hunter & Lange 2004, "A tutorial on MM algorithms"):

    1. choose the symbols for targets v:   argmin_q  kappa/2 (v - mean - q)^2 + w bits(q)
    2. the gradient of the rest of the cost in q: of the picture, and of all later bits by way of the context
    3. the Newton target t = y_hat/Delta - gradient/kappa;   v moves a part of the way to t
    4. z moves along its gradient (Adam), with straight-through rounding

With w = 1 the choice would be the best for one symbol on its own. But a larger symbol also sharpens what the
context model predicts, so w is a little smaller.

| paper   | here                               | unit                                 |
|---------|------------------------------------|--------------------------------------|
| v, z    | ``Window.target``, ``Window.z``    | quantiser steps                      |
| q       | symbols                            | whole numbers                        |
| kappa   | ``curvature``                      | bits for a squared quantiser step    |
| w       | ``RATE_WEIGHT``                    |                                      |
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dhp_lab.codec.bits.scales import is_coded
from dhp_lab.codec.latents import Latents, scale_from_log2
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.context import Gaussian
from dhp_lab.codec.networks.hyper_transforms import HYPER
from dhp_lab.codec.networks.layers import round_through
from dhp_lab.codec.trellis_latents import symbol_bits, trellis_symbols

STRIDE = 0.75  # of the way to the target at first; it falls linearly to 0
RATE_WEIGHT = 0.7  # w
Z_RATE = 0.03  # Adam's learning rate for z at first, in its quantiser steps; it falls likewise
LEAST_LIKELIHOOD = 1e-9


class Meter(Protocol):
    """What counts iterations; see ``effort``."""

    stopped: bool

    def enter_window(self, bits: float) -> None:
        """Another window begins, of so many bits at effort 0."""

    def tick(self, gain: float) -> None:
        """One more iteration, which lowered the lowest cost by ``gain``."""


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """n MSE, with n pixels of three colours each."""
    return (x_hat - x).square().sum() / 3


@torch.no_grad()
def measure_curvature(
    model: DiffusionHyperprior, latents: Latents, size: tuple[int, int], lambda_rate: float
) -> float:
    """kappa, measured on an error as large as that of rounding.

    With an orthonormal transform it is 2 Delta^2 / (3 lambda).
    """
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(latents.y.shape, generator=generator) - 0.5).to(latents.y.device)
    delta = latents.log2_delta.exp2().view(-1, 1, 1, 1)
    pair = (model.synthesise(y, latents.log2_delta, size) for y in (latents.y, latents.y + delta * noise))
    return (2 * squared_error(*pair) / noise.square().sum() / lambda_rate).item()


def choose_symbols(
    model: DiffusionHyperprior, residual: Tensor, log2_scale: Tensor, curvature: float
) -> Tensor:
    """Step 1: the nearest symbol, the next one towards zero, or zero, whichever costs least; with a trellis
    the path of the least cost.

    Args:
        residual: (B, n, C) y/Delta - mean. log2_scale: likewise, of the scales in steps.
        curvature: in bits for a squared step.

    Returns:
        whole numbers, or multiples of 1/2; 0 where nothing is coded.
    """
    if model.trellis:
        price = 0.5 * curvature / RATE_WEIGHT
        return trellis_symbols(residual, log2_scale, model.tables.level_bits, price)
    scale, nearest = scale_from_log2(log2_scale), residual.round()
    best = nearest
    least = _symbol_cost(model, residual, nearest, scale, curvature)
    for candidate in (nearest - nearest.sign(), torch.zeros_like(nearest)):
        cost = _symbol_cost(model, residual, candidate, scale, curvature)
        best, least = torch.where(cost < least, candidate, best), torch.minimum(cost, least)
    return best * is_coded(log2_scale)


def _symbol_cost(
    model: DiffusionHyperprior, residual: Tensor, symbols: Tensor, scale: Tensor, curvature: float
) -> Tensor:
    return 0.5 * curvature * (residual - symbols).square() + RATE_WEIGHT * _bits(model, symbols, scale)


def _bits(model: DiffusionHyperprior, symbols: Tensor, scale: Tensor) -> Tensor:
    likelihood = model.gaussian_conditional._likelihood(symbols, scale)
    return -likelihood.clamp(min=LEAST_LIKELIHOOD).log2()


class Window:
    """The part of a picture that is optimised at once.

    Args:
        x: the whole picture. plain: its latents at effort 0. rows, cols: the part, in latents.
        curvature: as for ``choose_symbols``.
    """

    def __init__(
        self,
        model: DiffusionHyperprior,
        x: Tensor,
        plain: Latents,
        rows: slice,
        cols: slice,
        lambda_rate: float,
        curvature: float,
    ) -> None:
        self.model, self.lambda_rate, self.curvature = model, lambda_rate, curvature
        top, left, block = model.block * rows.start, model.block * cols.start, model.block
        self.x = x[..., top : block * rows.stop, left : block * cols.stop]
        self.log2_delta = plain.log2_delta
        self.delta = plain.log2_delta.exp2().view(-1, 1, 1, 1)
        target = plain.y[..., rows, cols] / self.delta
        self.target = target.contiguous(memory_format=torch.channels_last)
        of_z = [slice(side.start // HYPER, -(-side.stop // HYPER)) for side in (rows, cols)]
        z = plain.z[..., of_z[0], of_z[1]]
        self.z = z.clone().requires_grad_()
        symbols, y_bits = self._plain_symbols(plain, rows, cols)
        self.plain_bits = (y_bits + self._bits_of_z(torch.round(z - model.medians().float()))).item()
        y_hat = (symbols + plain.mean[..., rows, cols]) * self.delta
        x_hat = model.synthesise(y_hat, plain.log2_delta, self.x.shape[-2:])
        self.plain_cost = squared_error(x_hat, self.x).item() / lambda_rate + self.plain_bits

    def optimise(self, iterations: int, meter: Meter) -> tuple[Tensor, Tensor]:
        """Targets v (1, M, h, w) and z (1, N, h/4, w/4) of the least cost that was met, in steps."""
        adam = torch.optim.Adam([self.z], lr=Z_RATE)
        best, least = (self.target, self.z.detach().clone()), self.plain_cost
        meter.enter_window(self.plain_bits)
        try:
            for iteration in range(0 if meter.stopped else iterations):
                tried = (self.target, self.z.detach().clone())
                cost = self._iterate(adam, 1 - iteration / iterations)
                meter.tick(max(0.0, least - cost))
                if cost < least:
                    best, least = tried, cost
        except KeyboardInterrupt:
            meter.stopped = True
        return best

    def _iterate(self, adam: torch.optim.Adam, share: float) -> float:
        """One iteration from the current targets and z; returns what they cost."""
        with torch.enable_grad():
            squared, bits, groups, steps = self._code()
            cost = squared / self.lambda_rate + bits
            inputs = [symbols for _, symbols in groups]
            *gradients, self.z.grad = torch.autograd.grad(cost, [*inputs, self.z])
        gradient = torch.zeros_like(self.target)
        for (group, _), part in zip(groups, gradients, strict=True):
            group.scatter(gradient, part)
        newton = steps.detach() - gradient / self.curvature
        self.target = torch.lerp(self.target, newton, STRIDE * share)
        adam.param_groups[0]["lr"] = Z_RATE * share
        adam.step()
        return cost.item()

    def _code(self) -> tuple[Tensor, Tensor, list, Tensor]:
        """The symbols for the current targets, and what they cost.

        Returns:
            n MSE; the bits; each group with its symbols, to which gradients lead except by way of their own
            bits; y_hat in steps (1, M, h, w).
        """
        model, size = self.model, self.target.shape[-2:]
        z_symbols = round_through(self.z - model.medians().float())
        first = model.predict_in_floats(z_symbols, self.log2_delta, size)
        steps = torch.zeros_like(self.target)
        seen, bits, groups = model.context.nothing_seen(first), self._bits_of_z(z_symbols), []
        for group in model.context.groups(first):
            gaussian, shift = model.context.predict(group, first, seen, self.log2_delta, exact=False)
            with torch.no_grad():
                residual = group.gather(self.target) - gaussian.mean
                symbols = choose_symbols(model, residual, gaussian.log2_scale, self.curvature)
            bits = bits + self._bits_of_y(symbols, gaussian.log2_scale)
            groups.append((group, symbols.requires_grad_()))
            seen = seen.clone()
            model.context.observe(group, first, seen, symbols, shift)
            group.scatter(steps, symbols + gaussian.mean)
        x_hat = model.synthesise(steps * self.delta, self.log2_delta, self.x.shape[-2:])
        return squared_error(x_hat, self.x), bits, groups, steps

    def _plain_symbols(self, plain: Latents, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
        """The window's symbols at effort 0 (1, M, h, w), and their bits.

        A trellis passes through the window alone here, not through the picture.
        """
        names = ("symbols", "residual", "log2_scale")
        symbols, residual, log2_scale = (getattr(plain, name)[..., rows, cols] for name in names)
        symbols = symbols.contiguous(memory_format=torch.channels_last)
        bits = torch.zeros((), device=symbols.device)
        for group in self.model.context.groups(Gaussian(residual, log2_scale)):
            of_group = group.gather(log2_scale)
            if self.model.trellis:
                found = trellis_symbols(group.gather(residual), of_group, self.model.tables.level_bits)
                group.scatter(symbols, found)
            bits = bits + self._bits_of_y(group.gather(symbols), of_group)
        return symbols, bits

    def _bits_of_y(self, symbols: Tensor, log2_scale: Tensor) -> Tensor:
        if self.model.trellis:
            return symbol_bits(symbols, log2_scale, self.model.tables.level_bits).sum()
        bits = _bits(self.model, symbols.detach(), scale_from_log2(log2_scale))
        return (bits * is_coded(log2_scale)).sum()

    def _bits_of_z(self, z_symbols: Tensor) -> Tensor:
        z_hat = z_symbols + self.model.medians().float()
        channels = z_hat.transpose(0, 1).flatten(1).unsqueeze(1)  # (N, 1, n), as CompressAI has it
        likelihood = self.model.entropy_bottleneck._likelihood(channels)[0]
        return -likelihood.clamp(min=LEAST_LIKELIHOOD).log2().sum()
