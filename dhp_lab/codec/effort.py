"""Effort: latents optimised for one picture, fewer bits for the same quality in more of the encoder's time.

g_a and h_a are trained for all pictures; for a single one better latents exist (Yang, Bamler & Mandt 2020,
"Improving inference for neural image compression"). Format and decoder stay as they are. Yang et al. descend
along the gradient of randomly relaxed rounding, which takes hundreds of iterations; ``latent_optimiser``
makes use of the transform being orthonormal and takes far fewer. Nothing is drawn at random, save for
the fixed noise on which a curvature is measured, so the same picture makes the same file.

Large pictures are optimised in windows that overlap. The file that results is compared with that of effort 0
by its real bytes and its real picture, and the cheaper one is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.entropy_coding import encode_latents
from dhp_lab.codec.latent_optimiser import Window, choose_symbols, measure_curvature, squared_error
from dhp_lab.codec.latents import Latents, check_pictures
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.hyper_transforms import HYPER
from dhp_lab.codec.networks.tiling import tiled
from dhp_lab.core.memory import OutOfMemory, is_out_of_memory
from dhp_lab.core.precision import float32_by_default
from dhp_lab.core.tensors import crop_to

ITERATIONS = (0, 3, 4, 6, 10, 16, 25, 50, 100, 200)  # of each effort
WINDOW = 48  # largest side of what is optimised at once, in latents


@dataclass(frozen=True)
class Progress:
    """How far an optimisation has come.

    Attributes:
        iteration: those done so far, of ``iterations``.
        seconds_left: expected until the last.
        saved: the cost's fall as a share of the bits at effort 0: bits saved at equal quality.
    """

    iteration: int
    iterations: int
    seconds_left: float
    saved: float


Report = Callable[[Progress], None]


def check_effort(effort: int, *, sends_y: bool = True) -> int:
    """Pass an effort that a codec can spend.

    Raises:
        ValueError: outside 0 .. 9, or above 0 for a codec that sends z alone.
    """
    if effort not in range(len(ITERATIONS)):
        raise ValueError(f"effort must be a whole number in 0 .. {len(ITERATIONS) - 1}, got {effort}")
    if effort and not sends_y:
        raise ValueError(f"effort {effort} optimises y, and this model sends z alone: use effort 0")
    return effort


@float32_by_default()
def compress(
    model: DiffusionHyperprior, x: Tensor, lambda_rate: float, effort: int, report: Report | None = None
) -> dict:
    """As ``model.compress``, with an effort: pictures (B, 3, H, W) one by one.

    Arguments and errors as for ``optimise_latents``, with the model in any mode.
    """
    if not check_effort(effort, sends_y=model.sends_y):
        return model.compress(x, lambda_rate=lambda_rate)
    was_training, code = model.training, lambda_code(lambda_rate)
    model.eval()
    try:
        pictures = [optimise_latents(model, one, lambda_rate, effort, report) for one in x.split(1)]
    finally:
        model.train(was_training)
    coded = [encode_latents(model, latents, code) for latents in pictures]
    strings = [[one for part in parts for one in part] for parts in zip(*coded, strict=True)]
    return {"strings": strings, "shape": tuple(x.shape[-2:])}


@torch.no_grad()
@float32_by_default()
def optimise_latents(
    model: DiffusionHyperprior, x: Tensor, lambda_rate: float, effort: int, report: Report | None = None
) -> Latents:
    """Encode one picture with an effort: never at a higher cost than effort 0.

    Ctrl-C ends the optimisation, and what is best so far is returned.

    Args:
        model: in eval mode, with probability tables. x: (1, 3, H, W) in [0, 1], H and W >= 16.
        lambda_rate: 1e-6 .. 1e-1. effort: 0 .. 9. report: receives the progress after every iteration.

    Raises:
        ValueError: a value out of range, or a model that sends z alone. OutOfMemory: with what to do.
    """
    check_pictures(x)
    check_effort(effort, sends_y=model.sends_y)
    code = lambda_code(lambda_rate)
    plain = model.encode(x, [code])
    if not effort:
        return plain
    try:
        least = file_cost(model, x, plain, lambda_rate)
        y, z, curvature = _optimise(model, x, lambda_rate, plain, ITERATIONS[effort], report)
        del plain  # a large picture's latents take a gigabyte

        def quantise(residual: Tensor, log2_scale: Tensor) -> Tensor:
            return choose_symbols(model, residual, log2_scale, curvature)

        better = model.code_latents(y, z, [code], quantise)
        if file_cost(model, x, better, lambda_rate) < least:
            return better
        return model.encode(x, [code])
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"not enough memory for effort {effort}: take a lower effort, or smaller tiles (--low_memory)"
        ) from None


@torch.no_grad()
@float32_by_default()
def file_cost(model: DiffusionHyperprior, x: Tensor, latents: Latents, lambda_rate: float) -> float:
    """n MSE / lambda + bits, of the bytes that these latents become and the picture of K = 0."""
    strings = encode_latents(model, latents, lambda_code(lambda_rate))
    y_hat = model.sampler.sample(model.decoder_state(latents), steps=0)
    x_hat = model.synthesise(y_hat, latents.log2_delta, x.shape[-2:]).clamp(0, 1)
    bits = 8 * sum(len(part[0]) for part in strings)
    return squared_error(x_hat, x).item() / lambda_rate + bits


def _optimise(
    model: DiffusionHyperprior,
    x: Tensor,
    lambda_rate: float,
    plain: Latents,
    iterations: int,
    report: Report | None,
) -> tuple[Tensor, Tensor, float]:
    """y and z after the optimisation, window by window, and the curvature."""
    curvature = measure_curvature(model, plain, x.shape[-2:], lambda_rate)
    side = min(WINDOW, model.tile)
    rows, cols = plain.y.shape[-2:]
    meter = _Meter(iterations * _count_windows(model, rows, cols, side), report)

    def part(rows: slice, cols: slice) -> Tensor:
        window = Window(model, x, plain, rows, cols, lambda_rate, curvature)
        target, z = window.optimise(iterations, meter)
        spread = z.repeat_interleave(HYPER, 2).repeat_interleave(HYPER, 3)
        return torch.cat([target, crop_to(spread, target.shape[-2:])], 1)

    target, spread = tiled(part, rows, cols, 1, side).split([model.M, model.N], 1)
    y = target * plain.log2_delta.exp2().view(-1, 1, 1, 1)
    z = spread[..., ::HYPER, ::HYPER].contiguous(memory_format=torch.channels_last)
    return y, z, curvature


def _count_windows(model: DiffusionHyperprior, rows: int, cols: int, side: int) -> int:
    found: list[slice] = []

    def part(rows: slice, cols: slice) -> Tensor:
        found.append(rows)
        return torch.zeros(1, rows.stop - rows.start, cols.stop - cols.start)

    tiled(part, rows, cols, 1, side)
    return len(found)


class _Meter:
    """Counts iterations over all windows, and reports.

    Args:
        iterations: of all windows. report: receives a ``Progress`` each time; None leaves it.
    """

    def __init__(self, iterations: int, report: Report | None) -> None:
        self.iterations, self.report = iterations, report
        self.done, self.start = 0, time.monotonic()
        self.bits, self.gain = 0.0, 0.0  # of the windows so far
        self.stopped = False

    def enter_window(self, bits: float) -> None:
        """Another window begins, of so many bits at effort 0."""
        self.bits += bits

    def tick(self, gain: float) -> None:
        """One more iteration, which lowered the lowest cost by ``gain``."""
        self.done, self.gain = self.done + 1, self.gain + gain
        seconds = (time.monotonic() - self.start) / self.done * (self.iterations - self.done)
        if self.report:
            self.report(Progress(self.done, self.iterations, seconds, self.gain / max(1.0, self.bits)))
