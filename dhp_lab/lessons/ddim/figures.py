"""The lesson's figures: paths of one pixel, quality against steps, and the picture behind the explorer.

| function or class   | what it gives                                                                  |
|---------------------|--------------------------------------------------------------------------------|
| `level_error`       | how far two sets of digits are apart, in the data's grey levels                |
| `paths_figure`      | how a value goes from time T to 0 in several runs, a panel for each eta        |
| `quality_figure`    | a measure against the number of steps, a curve for each sampler                |
| `DigitDraws`        | digits for the explorer's steps, eta and seed, each noise drawn from twice     |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from torch import Tensor

from dhp_lab.data.digits import SIDE
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.samplers import State, ddim, start
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.notebook.digit_figures import GAP, digits_figure
from dhp_lab.notebook.html import Rendered, picture_bytes
from dhp_lab.notebook.style import BLUE, CHART_DPI, GREEN, GREY, ORANGE, SKY, style

GREY_LEVELS = 8  # levels of the data in a unit of x: 16 of them from -1 to 1
COLOURS = (BLUE, ORANGE, GREEN, SKY)
DASHES = ("--", ":", "-.")
COLUMNS = 8  # digits in a row of the explorer's picture
ZOOM = 8  # dots a pixel
LABEL = 170  # dots for a row's label
PICTURE = ZOOM * SIDE + GAP
SIZE = LABEL + COLUMNS * PICTURE - GAP, 5 * PICTURE - GAP


def level_error(a: Tensor, b: Tensor) -> float:
    """Root mean square difference of two sets of pictures in [-1, 1], in the data's grey levels 0 .. 16."""
    return GREY_LEVELS * (a - b).square().mean().sqrt().item()


def paths_figure(times: Sequence[float], paths: Mapping[str, Tensor]) -> Figure:
    """How one value goes from T to 0 in several runs, a panel for each label.

    Args:
        times: (m,) falling.
        paths: (runs, m) by label.

    Raises:
        ValueError: paths that do not have a value for each time.
    """
    shapes = [tuple(values.shape) for values in paths.values()]
    if any(len(shape) != 2 or shape[1] != len(times) for shape in shapes):
        raise ValueError(f"paths must be (runs, {len(times)}), got {shapes}")
    with style():
        figure = Figure(figsize=(9.4, 2.9), dpi=CHART_DPI, layout="constrained")
        panels = figure.subplots(1, len(paths), sharey=True, squeeze=False)[0]
        for axes, (label, values) in zip(panels, paths.items(), strict=True):
            for run, value in enumerate(values.detach().cpu().double().numpy()):
                axes.plot(times, value, color=COLOURS[run % len(COLOURS)], linewidth=1.2)
            axes.set(title=label, xlabel="time t, from right to left", xlim=(0, max(times)))
        panels[0].set_ylabel("the pixel's value in x_t")
    return figure


def quality_figure(
    curves: Mapping[str, Mapping[int, float]], lines: Mapping[str, float], *, ylabel: str
) -> Figure:
    """A measure against the number of steps.

    Args:
        curves: for each sampler, four at most, its value by number of steps.
        lines: values to compare with, three at most, drawn across.
        ylabel: what is measured.
    """
    with style():
        figure = Figure(figsize=(7.2, 3.4), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (label, curve), colour in zip(curves.items(), COLOURS[: len(curves)], strict=True):
            axes.loglog(list(curve), list(curve.values()), "o-", color=colour, label=label)
        for (label, value), dashes in zip(lines.items(), DASHES[: len(lines)], strict=True):
            axes.axhline(value, color=GREY, linestyle=dashes, linewidth=1.4, label=label)
        marks = sorted({count for curve in curves.values() for count in curve})
        axes.set_xticks(marks, [str(count) for count in marks], minor=False)
        axes.set_xticks([], minor=True)
        axes.set(xlabel="network evaluations (NFE)", ylabel=ylabel)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.legend(loc="upper right")
    return figure


class DigitDraws:
    """Digits for the lesson's explorer.

    Args:
        denoiser: eps = denoiser(x_t, t) for pictures (B, 1, 8, 8).
        schedule: the chain that it was trained on.
        device: where the denoiser lives.
    """

    def __init__(
        self, denoiser: Denoiser, schedule: NoiseSchedule, *, device: torch.device | str = "cpu"
    ) -> None:
        self.denoiser = denoiser
        self.schedule = schedule
        self.device = device

    def runs(self, steps: int, eta: float, seed: int) -> tuple[Tensor, list[State]]:
        """Two runs from the same noises.

        Returns:
            (2 COLUMNS, 1, 8, 8) noise, its second half equal to the first, and the states on its way to
            digits.
        """
        generator = torch.Generator().manual_seed(seed)
        noise = start(self.schedule, (COLUMNS, 1, SIDE, SIDE), generator=generator, device=self.device)
        x_T = torch.cat([noise, noise])
        return x_T, list(ddim(self.denoiser, self.schedule, x_T, count=steps, eta=eta, generator=generator))

    def render(self, *, steps: int, eta: float, seed: int) -> Rendered:
        """Two runs from the same noises, and the first digit's way.

        Args:
            steps: 1 .. T.
            eta: 0 .. 1.
            seed: of all noise.
        """
        begin = perf_counter()
        x_T, states = self.runs(steps, eta, seed)
        one, other = states[-1].x.cpu().chunk(2)
        seconds = perf_counter() - begin
        places = np.unique(np.linspace(0, steps - 1, COLUMNS).round().astype(int))
        shown = [states[i] for i in places]
        rows = {
            "the noise": x_T[:COLUMNS],
            "a digit of each": one,
            "again, the same noise": other,
            "first digit: $\\hat x_0$": torch.stack([state.x0[0] for state in shown]),
            "first digit: its states": torch.stack([state.x[0] for state in shown]),
        }
        difference = level_error(one, other)
        times = ", ".join(f"{state.t:.0f}" for state in shown)
        text = (
            f"<p>The two runs from the same noise differ by {difference:.2f} grey levels of 16 "
            "(root mean square).<br>"
            f"Network evaluations: {steps}; {1000 * seconds:.0f} ms for {2 * COLUMNS} digits.<br>"
            f"The states shown are at t = {times}.</p>"
        )
        alt = (
            f"{COLUMNS} noises and the digits that DDIM makes of them in two runs: "
            f"{steps} steps, η = {eta:g}, seed {seed}"
        )
        return Rendered(picture_bytes(digits_figure(rows, zoom=ZOOM, label=LABEL)), alt, text)
