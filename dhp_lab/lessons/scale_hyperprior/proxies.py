r"""What training takes for the objective, and what files really cost, for normal latents.

For a latent of standard deviation S and a step Delta, s = S / Delta:

    rounding          error Delta^2 E[(v - round v)^2],  bits E[-log2 P(round v)],        v ~ N(0, s^2)
    noise             error Delta^2 / 12,                bits E[-log2 p~(v + u)],         u uniform
    straight-through  true error with the gradient 2 Delta E[(v - round v)^2] in Delta, bits of the noise

The straight-through gradient follows from x_hat = Delta round(y / Delta), when round counts as the identity:
d x_hat / d Delta = round(v) - v. In the objective errors of an orthonormal transform spread over three
colours: sum of errors / 3 + lambda * bits, per pixel.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from matplotlib.figure import Figure

from dhp_lab.notebook.style import BLUE, CHART_DPI, GREY, ORANGE, style

LOG2_SCALES = np.arange(-5, 9.01, 0.125)  # the table's, in steps
POINTS = 16_001  # of an integral
LOOKS = ((GREY, "-"), (ORANGE, "--"), (BLUE, "-."))
ROUNDING, NOISE, THROUGH = "rounding, as in the file", "noise", "straight-through and noise"


def normal_bits(values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """-log2 of a normal density of mean 0 smeared over a step, at any values; all in steps."""
    size, width = torch.from_numpy(np.abs(values)), torch.as_tensor(scale) * math.sqrt(2)
    near, far = ((size + side) / width for side in (-0.5, 0.5))
    return -((torch.erfc(near) - torch.erfc(far)) / 2).clamp(min=1e-300).log2().numpy()


@cache
def normal_costs() -> dict[str, np.ndarray]:
    """Error in squared steps and bits of a normal latent for each of LOG2_SCALES: "error", "rounded",
    "noisy".
    """
    t = np.linspace(-8, 8, POINTS)
    weight = np.exp(-(t**2) / 2) / np.exp(-(t**2) / 2).sum()
    rows = []
    for scale in 2.0**LOG2_SCALES:
        v = scale * t
        q = np.rint(v)
        at = np.linspace(-8 * scale - 0.5, 8 * scale + 0.5, POINTS)
        bits = normal_bits(at, scale)
        noisy = (2.0**-bits * bits).sum() * (at[1] - at[0])
        rows.append(((weight * (v - q) ** 2).sum(), (weight * normal_bits(q, scale)).sum(), noisy))
    return dict(zip(("error", "rounded", "noisy"), np.array(rows).T, strict=True))


def objectives(log2_spread: np.ndarray, log2_delta: np.ndarray, lambda_rate: float) -> dict[str, np.ndarray]:
    """The objective of a population of latents for each of (n,) steps, and what two proxies make of it.

    Args:
        log2_spread: (k,) log2 of the latents' standard deviations, in latent units.
        log2_delta: (n,) log2 of steps, equally spaced, rising.
        lambda_rate: above 0.

    Returns:
        (n,) by name, in errors: ``ROUNDING``; ``NOISE``; and ``THROUGH``, the sum of its gradients from the
        first step on.
    """
    table = normal_costs()
    sums = {
        name: np.array([np.interp(log2_spread - d, LOG2_SCALES, values).sum() for d in log2_delta])
        for name, values in table.items()
    }
    square = 4.0**log2_delta / 3
    error, rate = square * sums["error"], lambda_rate * sums["noisy"]
    slope = 2 * math.log(2) * error  # of the straight-through error, by log2(Delta)
    summed = np.cumsum(slope[:-1] + slope[1:]) / 2 * np.diff(log2_delta)
    return {
        ROUNDING: error + lambda_rate * sums["rounded"],
        NOISE: square * len(log2_spread) / 12 + rate,
        THROUGH: error[0] + np.concatenate([[0.0], summed]) + rate,
    }


def objectives_figure(steps: np.ndarray, curves: dict[str, np.ndarray]) -> Figure:
    """Objectives against the step, each over its own least, which is marked.

    Args:
        steps: (n,) in units of the formula's.
        curves: (n,) by name, three at most.
    """
    with style():
        figure = Figure(figsize=(10, 3.2), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, values), (colour, line) in zip(curves.items(), LOOKS[: len(curves)], strict=True):
            least = values.argmin()
            axes.plot(steps, values / values[least], line, color=colour, label=name)
            axes.plot([steps[least]], [1], "o", color=colour)
        axes.set(xscale="log", ylim=(0.98, 1.3), xlabel="step, in units of 5.1 √λ", ylabel="over its least")
        axes.set_xticks([0.5, 0.7, 1, 1.4, 2], ["0.5", "0.7", "1", "1.4", "2"])
        axes.minorticks_off()
        figure.legend(loc="outside right upper")
    return figure
