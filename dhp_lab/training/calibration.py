r"""The gain curve of a trained codec, by measuring: for each lambda the step Delta whose files cost least.

    Delta(lambda) = argmin over Delta of  mean over pictures of  MSE(Delta) + lambda * bpp(Delta)

The networks see Delta and never lambda, so one sweep over a grid of steps gives MSE and bits for every lambda
(as Lagrangian optimisation picks from one operational rate-distortion curve: Shoham & Gersho 1988). Gradients
find the minimum badly: straight-through rounding and uniform noise are proxies, and what they leave out
depends on Delta itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate.utils import broadcast
from torch import Tensor

from dhp_lab.codec.bits.lambdas import CODES_PER_OCTAVE, OCTAVE_OFFSET, check_lambda
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.gain import KNOT_CODES
from dhp_lab.core.memory import is_out_of_memory

log = logging.getLogger(__name__)

GRID = 4  # steps measured in an octave of Delta
MARGIN = 1.5  # octaves of Delta that are measured beyond the present curve
KNOT_SLACK = 0.5  # octaves of lambda by which a knot may lie outside the model's range and still be measured
SLOPE = 0.5  # octaves of Delta in an octave of lambda, where nothing is measured: Delta ~ sqrt(lambda)
OCTAVES_A_KNOT = KNOT_CODES / CODES_PER_OCTAVE  # of lambda


class CalibrationError(ValueError):
    """No gain curve follows from what was measured; the message says at which lambda."""


@dataclass(frozen=True)
class Sweep:
    """What a codec does to pictures at many steps, with K = 0.

    Attributes:
        log2_delta: (n,) the steps, 1 / GRID of an octave apart, rising.
        mse: (n,) mean over the pictures, of pixels in [0, 1].
        bpp: (n,) estimated bits for each pixel, likewise.
    """

    log2_delta: Tensor
    mse: Tensor
    bpp: Tensor

    def best(self, lambda_rate: float) -> float:
        """log2 of the step with the least MSE + lambda * bpp: the vertex of the parabola through the least
        measured value and its neighbours.

        Raises:
            CalibrationError: the least value is the first or the last.
        """
        cost = self.mse + lambda_rate * self.bpp
        least = int(cost.argmin())
        place = self.log2_delta[least].item()
        if not 0 < least < len(cost) - 1:
            raise CalibrationError(
                f"at lambda {lambda_rate:.3g} no step from 2^{self.log2_delta[0].item():g} to "
                f"2^{self.log2_delta[-1].item():g} is the best: the codec needs more training first"
            )
        left, middle, right = cost[least - 1 : least + 2].tolist()
        curvature = left - 2 * middle + right
        return place + ((left - right) / curvature / 2 / GRID if curvature > 0 else 0.0)


@torch.no_grad()
def sweep(model: DiffusionHyperprior, pictures: Sequence[Tensor], low: float, high: float) -> Sweep:
    """Measure a codec at the steps 2^low .. 2^high, as in eval mode: real rounding, estimated bits, K = 0.

    Args:
        model: on its device; its mode, weights and tables stay as they are. Where weights were changed in
            place since, call ``update`` before.
        pictures: (B, 3, H, W) in [0, 1], or a list of (3, H, W) of several sizes; H, W >= 16.
        low, high: log2 of the first and last step; the grid begins and ends at multiples of 1 / GRID around
            them.

    Raises:
        ValueError: no picture, or one that the codec refuses.
    """
    if len(pictures) == 0:
        raise ValueError("there are no pictures to measure the codec on: give at least one")
    steps = torch.arange(math.floor(low * GRID), math.ceil(high * GRID) + 1, dtype=torch.float64) / GRID
    was_training = model.training
    model.eval()
    try:
        mse, bpp = _measure_all(model, pictures, steps.tolist()).mean(1).unbind(1)
    finally:
        model.train(was_training)
    return Sweep(steps, mse, bpp)


def _measure_all(model: DiffusionHyperprior, pictures: Sequence[Tensor], steps: list[float]) -> Tensor:
    """(steps, pictures, 2): ``_measure`` at each step, all pictures at once where they are one tensor that
    the memory suffices for.
    """
    if isinstance(pictures, Tensor):
        try:
            return torch.stack([_measure(model, pictures, step) for step in steps])
        except (RuntimeError, MemoryError) as error:
            if len(pictures) == 1 or not is_out_of_memory(error):
                raise
            log.info("%d pictures at once need too much memory: they are measured singly", len(pictures))
    rows = [torch.cat([_measure(model, picture[None], step) for picture in pictures]) for step in steps]
    return torch.stack(rows)


def _measure(model: DiffusionHyperprior, x: Tensor, log2_delta: float) -> Tensor:
    """(B, 2) MSE and estimated bpp of pictures (B, 3, H, W) at one step, float64 on the CPU."""
    x = x.to(model.log2_spread.device)
    with model.gain.held_at(log2_delta):
        out = model(x, steps=0)
    mse = (out["x_hat"] - x).double().square().mean((1, 2, 3))
    bits = -sum(likelihood.double().log2().sum((1, 2, 3)) for likelihood in out["likelihoods"].values())
    return torch.stack([mse, bits / x[0, 0].numel()], 1).cpu()


@torch.no_grad()
def calibrate(
    model: DiffusionHyperprior, pictures: Sequence[Tensor], lambda_rate: float | None = None
) -> None:
    """Move the gain curve of a codec to the best steps, in place; nothing else changes.

    Each knot in the model's ``lambda_range`` (or half an octave beyond it) gets the step with the least mean
    of MSE + lambda * bpp; the knots further out go on from there with Delta ~ sqrt(lambda). A codec that
    sends z alone keeps its curve: its bits hardly depend on Delta.

    Args:
        model, pictures: as for ``sweep``.
        lambda_rate: of a codec that was trained for this one, 1e-6 .. 1e-1: the curve is shifted as a whole,
            until its step there is the best.

    Raises:
        CalibrationError: a best step lies outside what is measured, MARGIN octaves around the present curve;
            or the new curve would not rise. The old curve stays.
        ValueError: lambda_rate out of range; and as for ``sweep``.
    """
    if lambda_rate is not None:
        check_lambda(lambda_rate)
    if not model.sends_y:
        return
    knots = model.gain.knots.detach()
    if lambda_rate is None:
        knots.copy_(_best_knots(model, pictures))
        return
    now = math.log2(model.step_size(lambda_rate))
    measured = sweep(model, pictures, now - MARGIN, now + MARGIN)
    knots += measured.best(lambda_rate) - now


def _best_knots(model: DiffusionHyperprior, pictures: Sequence[Tensor]) -> Tensor:
    """All knots of the curve, from the best steps in the model's range. Errors as for ``calibrate``."""
    knots = model.gain.knots.detach().double().cpu()
    log2_lambda = torch.arange(len(knots)) * OCTAVES_A_KNOT - OCTAVE_OFFSET
    least, most = (math.log2(end) for end in model.config.lambda_range)
    inside = (log2_lambda >= least - KNOT_SLACK) & (log2_lambda <= most + KNOT_SLACK)
    places = inside.nonzero().flatten()
    measured = sweep(model, pictures, knots[inside].min() - MARGIN, knots[inside].max() + MARGIN)
    best = torch.tensor([measured.best(2.0 ** log2_lambda[i].item()) for i in places], dtype=torch.float64)
    if not bool((best.diff() > 0).all()):
        steps = ", ".join(f"2^{step:.2f}" for step in best.tolist())
        first, last = (2.0 ** log2_lambda[places[i]].item() for i in (0, -1))
        raise CalibrationError(
            f"the best steps must rise with lambda, but from lambda {first:.3g} to {last:.3g} they are "
            f"{steps}: measure on more pictures, or train the codec for longer"
        )
    beyond = SLOPE * OCTAVES_A_KNOT * (torch.arange(len(knots)) - places[-1]).clamp(min=0)
    before = SLOPE * OCTAVES_A_KNOT * (places[0] - torch.arange(len(knots))).clamp(min=0)
    nearest = (torch.arange(len(knots)) - places[0]).clamp(0, len(places) - 1)
    return best[nearest] + beyond - before


def calibrate_both(
    model: DiffusionHyperprior,
    average: DiffusionHyperprior,
    pictures: Sequence[Tensor],
    lambda_rate: float | None = None,
) -> None:
    """Give a model and its EMA the gain curve that is best for the EMA; the log shows the knots.

    Where no curve follows, as from a codec that has hardly been trained, a warning says why and the old one
    stays: a training goes on. Of several processes the first one's curve counts.

    Args:
        average: with ``update`` called since its weights were changed. All else as for ``calibrate``.

    Raises:
        ValueError: as for ``calibrate``, but for CalibrationError.
    """
    before = average.gain.knots.tolist()
    try:
        calibrate(average, pictures, lambda_rate)
    except CalibrationError as error:
        log.warning("the gain curve stays as it is: %s", error)
    knots = broadcast(average.gain.knots.detach())
    for one in (model, average):
        one.gain.knots.detach().copy_(knots)
    old, new = (" ".join(f"{knot:.3f}" for knot in row) for row in (before, knots.tolist()))
    log.info("gain curve, log2(Delta) at its knots: %s before the calibration, %s after", old, new)
