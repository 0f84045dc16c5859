"""Lesson 04: digits asked for by class, guided, and completed from a part; their figures, and the explorer's
pure picture.

| function or class    | what it gives                                                                         |
|----------------------|---------------------------------------------------------------------------------------|
| `densities_figure`   | curves over one number: what guidance does to a density                               |
| `trade_figure`       | measures against the guidance scale, with that of real digits beside them             |
| `walk_figure`        | the time of a chain against its steps                                                 |
| `masks`              | which pixels may be known, by name                                                    |
| `GuidedDigits`       | digits for the explorer: a class, a scale, known pixels, a seed                       |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.data.digits import CLASSES, SIDE, load_digits
from dhp_lab.diffusion.guidance import LabelDenoiser, clipped, guided, inpaint
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.samplers import State, ddim, start
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.metrics.digit_classifier import digit_classifier, diversity
from dhp_lab.notebook.digit_figures import GAP, LABEL, digits_figure
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.style import BLUE, CHART_DPI, GREEN, GREY, ORANGE, SKY, style

PER_ROW, ROWS, ZOOM = 8, 2, 9  # of the explorer's samples
SIZE = LABEL + PER_ROW * (SIDE * ZOOM + GAP) - GAP, (ROWS + 1) * (SIDE * ZOOM + GAP) - GAP
STEPS, JUMP, ROUNDS = 25, 5, 3  # noise levels of its chain, and its way back up
ANY, NOTHING = "any", "nothing"


def masks() -> dict[str, Tensor]:
    """(8, 8) by name, True where a pixel of a digit is known."""
    upper, left, middle, frame = (torch.zeros(SIDE, SIDE, dtype=torch.bool) for _ in range(4))
    upper[: SIDE // 2], left[:, : SIDE // 2], middle[2:-2, 2:-2] = True, True, True
    frame[:] = True
    frame[1:-1, 2:-2] = False
    chess = (torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2 == 0
    return {
        "upper half": upper,
        "left half": left,
        "every second pixel": chess,
        "frame": frame,
        "middle (outpainting)": middle,
    }


def densities_figure(at: np.ndarray, densities: Mapping[str, np.ndarray], *, xlabel: str) -> Figure:
    """Densities (n,) by name over the numbers ``at`` (n,); the first is grey and dashed, what the others are
    compared with.
    """
    with style():
        figure = Figure(figsize=(8, 3.1), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for number, (name, density) in enumerate(densities.items()):
            colour, line = (
                (GREY, "--") if number == 0 else ((BLUE, ORANGE, GREEN, SKY)[(number - 1) % 4], "-")
            )
            axes.plot(at, density, color=colour, linestyle=line, label=name)
        axes.set(xlabel=xlabel, ylabel="density", ylim=(0, None))
        axes.legend(loc="upper left")
    return figure


def trade_figure(
    scales: Sequence[float], measures: Mapping[str, Sequence[float]], real: Mapping[str, float]
) -> Figure:
    """Measures by name at each guidance scale, a panel for each, and what real digits reach as a dashed line."""
    with style():
        figure = Figure(figsize=(2.75 * len(measures), 2.9), dpi=CHART_DPI, layout="constrained")
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        for axes, (name, values), colour in zip(panels, measures.items(), (BLUE, ORANGE, GREEN, SKY)):
            axes.plot(range(len(scales)), values, "o-", color=colour, label="samples")
            axes.axhline(real[name], color=GREY, linestyle="--", linewidth=1.4, label="real digits")
            axes.set(title=name, xlabel="guidance scale", ylim=(0, 1.12 * max(*values, real[name])))
            axes.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales])
        panels[0].legend(loc="lower right")
    return figure


def walk_figure(walks: Mapping[str, Sequence[float]]) -> Figure:
    """Chains by name: the time after each step, a panel for each."""
    with style():
        figure = Figure(figsize=(9.4, 2.6), dpi=CHART_DPI, layout="constrained")
        panels = figure.subplots(1, len(walks), sharey=True, squeeze=False)[0]
        for axes, (name, times), colour in zip(panels, walks.items(), (BLUE, ORANGE, GREEN)):
            axes.plot(times, color=colour, linewidth=1.4)
            axes.set(title=name, xlabel="steps, down and up")
        panels[0].set_ylabel("time t")
    return figure


class GuidedDigits:
    """Digits as the explorer of lesson 04 asks for them.

    Args:
        network: eps = network(x_t, t, label), trained with dropped labels; ``CLASSES`` is its null label.
        schedule: the chain that it knows.
        device: where the network lives.
    """

    def __init__(
        self, network: LabelDenoiser, schedule: NoiseSchedule, *, device: torch.device | str = "cpu"
    ) -> None:
        digits = load_digits()
        self.network, self.schedule, self.device, self.masks = network, schedule, device, masks()
        self.digits = {str(label): digits.test[digits.test_labels == label][:1] for label in range(CLASSES)}

    def denoiser(self, label: str, scale: float) -> Denoiser:
        """Guided towards a class, "0" .. "9" or "any", and clipped to the range of the data."""
        number = CLASSES if label == ANY else int(label)
        return clipped(guided(self.network, number, scale=scale, null=CLASSES), self.schedule)

    def draw(
        self, label: str, scale: float, known: str, digit: str, seed: int
    ) -> tuple[list[State], Tensor | None]:
        """The states of 16 samples on their way down, and the mask of the pixels that they were given, if
        any.
        """
        generator, mask = torch.Generator().manual_seed(seed), self.masks.get(known)
        x_T = start(self.schedule, (ROWS * PER_ROW, 1, SIDE, SIDE), generator=generator, device=self.device)
        denoise = self.denoiser(label, scale)
        if mask is None:
            return list(ddim(denoise, self.schedule, x_T, count=STEPS)), None
        pictures = self.digits[digit].to(x_T).expand_as(x_T)
        states = inpaint(
            denoise,
            self.schedule,
            x_T,
            pictures,
            mask.to(self.device),
            count=STEPS,
            jump=JUMP,
            rounds=ROUNDS,
            generator=generator,
        )
        return list(states), mask

    def render(self, *, label: str, scale: float, known: str, digit: str, seed: int) -> Rendered:
        """Samples of a class, drawn freely or around the known pixels of a test digit, and what the
        classifier sees.
        """
        states, mask = self.draw(label, scale, known, digit, seed)
        x = states[-1].x.cpu()
        given = self.digits[digit].masked_fill(
            ~(torch.zeros(SIDE, SIDE, dtype=torch.bool) if mask is None else mask), torch.nan
        )
        rows = {"what is known": given, "samples": x[:PER_ROW], "more samples": x[PER_ROW:]}
        text = (
            self._table(x, label)
            if mask is None
            else self._table(x, label) + f"<p>{self._kept(x, digit, mask)}</p>"
        )
        around = "" if mask is None else f", drawn around known pixels ({known}) of the digit {digit}"
        alt = f"{len(x)} samples, asked for: {label}, guidance scale {scale:g}{around}; seed {seed}"
        figure = digits_figure(rows, known=mask, zoom=ZOOM)
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _table(self, x: Tensor, label: str) -> str:
        classifier = digit_classifier()
        seen = classifier.predict(x)
        share = "-" if label == ANY else f"{(seen == int(label)).double().mean().item():.0%}"
        spread = diversity(classifier.features(x), torch.zeros(len(x)))
        row = [" ".join(map(str, seen.tolist())), share, f"{spread:.1f}"]
        return table_html([row], ["the classifier sees", "as asked", "diversity"]).text

    def _kept(self, x: Tensor, digit: str, mask: Tensor) -> str:
        change = (x - self.digits[digit])[:, :, mask].abs().max().item()
        return f"{int(mask.sum())} of {mask.numel()} pixels are known; in the samples they differ by {change:g} from what they were."
