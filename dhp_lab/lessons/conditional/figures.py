"""The lesson's figures: guided digits, digits completed from a part, and the explorer's pure picture.

| function or class    | what it gives                                                                    |
|----------------------|----------------------------------------------------------------------------------|
| `densities_figure`   | curves over one number: what guidance does to a density                          |
| `guidance_field`     | what guidance adds to a score: arrows and samples over a density in the plane    |
| `trade_figure`       | measures against the guidance scale, with those of real digits beside them       |
| `lines_figure`       | curves over one number, panel beside panel                                       |
| `masks`              | which pixels may be known, by name                                               |
| `GuidedDigits`       | digits for the explorer: a class, a scale, known pixels, a seed                  |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.data.digits import CLASSES, SIDE, load_digits
from dhp_lab.diffusion.editing import inpaint
from dhp_lab.diffusion.guidance import LabelDenoiser, clipped, guided
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.samplers import State, ddim, start
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.metrics.digit_classifier import digit_classifier, diversity
from dhp_lab.notebook.digit_figures import GAP, LABEL, digits_figure
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.style import BLUE, CHART_DPI, GREEN, GREY, ORANGE, SKY, style

COLOURS = (BLUE, ORANGE, GREEN, SKY)
PER_ROW, ROWS = 8, 2  # of the explorer's samples
ZOOM = 9  # dots a pixel
PICTURE = SIDE * ZOOM + GAP
SIZE = LABEL + PER_ROW * PICTURE - GAP, (ROWS + 1) * PICTURE - GAP
STEPS = 25  # noise levels of its chain
JUMP, ROUNDS = 5, 3  # its way back up around known pixels (RePaint)
ANY, NOTHING = "any", "nothing"
PLANE = 2.0  # the plane is drawn from -PLANE to PLANE


def masks() -> dict[str, Tensor]:
    """(8, 8) by name, True where a pixel of a digit is known."""
    row, col = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    middle = (row >= 2) & (row < SIDE - 2) & (col >= 2) & (col < SIDE - 2)
    inside = (row >= 1) & (row < SIDE - 1) & (col >= 2) & (col < SIDE - 2)
    return {
        "upper half": (row < SIDE // 2).expand(SIDE, SIDE),
        "left half": (col < SIDE // 2).expand(SIDE, SIDE),
        "every second pixel": (row + col) % 2 == 0,
        "frame": ~inside,
        "middle (outpainting)": middle,
    }


def densities_figure(at: np.ndarray, densities: Mapping[str, np.ndarray], *, xlabel: str) -> Figure:
    """Densities over one number.

    Args:
        at: (n,) the numbers.
        densities: (n,) by name, five at most; the first is grey and dashed, for the others to be compared
            with.
    """
    with style():
        figure = Figure(figsize=(8, 3.1), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        looks = [(GREY, "--"), *((colour, "-") for colour in COLOURS)][: len(densities)]
        for (name, density), (colour, line) in zip(densities.items(), looks, strict=True):
            axes.plot(at, density, color=colour, linestyle=line, label=name)
        axes.set(xlabel=xlabel, ylabel="density", ylim=(0, None))
        axes.legend(loc="upper left")
    return figure


def guidance_field(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], density: np.ndarray, *, reach: float = PLANE
) -> Figure:
    """Arrows and points over a density in the plane, a panel for each title.

    Args:
        panels: by title the arrows (m, m, 2) on an even grid on [-reach, reach]^2, and points (n, 2).
        density: (k, k) on the same square.
    """
    with style():
        figure = Figure(figsize=(3.3 * len(panels), 3.6), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, (arrows, points)) in zip(row, panels.items(), strict=True):
            extent = (-reach, reach, -reach, reach)
            shade = {"cmap": "Blues", "vmin": 0, "vmax": 1.5 * density.max(), "interpolation": "bilinear"}
            axes.imshow(density, origin="lower", extent=extent, **shade)
            axes.scatter(points[:, 0], points[:, 1], s=4, color=ORANGE, alpha=0.5, linewidths=0)
            line = np.linspace(-reach, reach, len(arrows))
            length = np.linalg.norm(arrows, axis=2, keepdims=True)
            short = arrows / (length + max(float(np.median(length)), 1e-9))  # compressed to 0 .. 1
            scale = 0.8 * len(arrows) / (2 * reach)
            looks = {"angles": "xy", "pivot": "middle", "scale_units": "xy", "scale": scale, "width": 0.006}
            axes.quiver(line, line, short[..., 0], short[..., 1], color="#24292f", **looks)
            axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
            axes.grid(False)
    return figure


def trade_figure(
    scales: Sequence[float],
    measures: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    real: Mapping[str, float],
) -> Figure:
    """Measures at each guidance scale, a panel for each.

    Args:
        scales: (n,).
        measures: by name, four at most, the means (n,) and their standard deviations (n,).
        real: what real digits reach, by the same names, as a dashed line.
    """
    with style():
        figure = Figure(figsize=(2.75 * len(measures), 2.9), dpi=CHART_DPI, layout="constrained")
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        looks = zip(panels, COLOURS[: len(panels)], strict=True)
        for (axes, colour), (name, (values, deviations)) in zip(looks, measures.items(), strict=True):
            places = range(len(scales))
            axes.errorbar(places, values, deviations, fmt="o-", color=colour, capsize=3, label="samples")
            axes.axhline(real[name], color=GREY, linestyle="--", linewidth=1.4, label="real digits")
            axes.set(title=name, xlabel="guidance scale", ylim=(0, 1.12 * max(*values, real[name])))
            axes.set_xticks(places, [f"{scale:g}" for scale in scales])
        panels[0].legend(loc="lower right")
    return figure


def lines_figure(
    at: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]], *, xlabel: str, log: str = ""
) -> Figure:
    """Curves over one number, a panel for each title.

    Args:
        at: (n,) the number.
        panels: by title curves (n,) by name, four names at most in all.
        xlabel: what the number is.
        log: the title of a panel whose values are drawn on a logarithmic scale, if any.
    """
    with style():
        figure = Figure(figsize=(3.6 * len(panels), 3.2), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        names = dict.fromkeys(name for curves in panels.values() for name in curves)
        looks = dict(zip(names, zip(COLOURS, "osD^", strict=True), strict=False))  # one for each name
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            for name, values in curves.items():
                colour, marker = looks[name]
                axes.plot(at, values, marker=marker, markersize=4, color=colour, label=name)
            axes.set(title=title, xlabel=xlabel, yscale="log" if title == log else "linear")
            axes.legend(fontsize=9)
    return figure


class GuidedDigits:
    """Digits for the lesson's explorer.

    Args:
        network: eps = network(x_t, t, label), trained with label dropout; ``CLASSES`` is its null label.
        schedule: the chain that it was trained on.
        device: where the network lives.
    """

    def __init__(
        self, network: LabelDenoiser, schedule: NoiseSchedule, *, device: torch.device | str = "cpu"
    ) -> None:
        digits = load_digits()
        self.network = network
        self.schedule = schedule
        self.device = device
        self.masks = masks()
        self.digits = {str(label): digits.test[digits.test_labels == label][:1] for label in range(CLASSES)}

    def denoiser(self, label: str, scale: float) -> Denoiser:
        """Guided towards a class, "0" .. "9" or "any", and clipped to the range of the data."""
        number = CLASSES if label == ANY else int(label)
        return clipped(guided(self.network, number, scale=scale, null=CLASSES), self.schedule)

    def draw(
        self, label: str, scale: float, known: str, digit: str, seed: int
    ) -> tuple[list[State], Tensor | None]:
        """Draw samples freely (DDIM) or around known pixels (RePaint). Arguments as for ``render``.

        Returns:
            The states of 16 samples on their way down, and the mask (8, 8) of the known pixels, if any.
        """
        generator, mask = torch.Generator().manual_seed(seed), self.masks.get(known)
        x_T = start(self.schedule, (ROWS * PER_ROW, 1, SIDE, SIDE), generator=generator, device=self.device)
        denoise = self.denoiser(label, scale)
        if mask is None:
            return list(ddim(denoise, self.schedule, x_T, count=STEPS)), None
        states = inpaint(
            denoise,
            self.schedule,
            x_T,
            self.digits[digit].to(x_T).expand_as(x_T),
            mask.to(self.device),
            count=STEPS,
            jump=JUMP,
            rounds=ROUNDS,
            generator=generator,
        )
        return list(states), mask

    def render(self, *, label: str, scale: float, known: str, digit: str, seed: int) -> Rendered:
        """Samples of a class, drawn freely or around the known pixels of a test digit.

        Args:
            label: the class, "0" .. "9", or ANY.
            scale: of the guidance, 0 or more.
            known: a name of ``masks``, or NOTHING.
            digit: the class of the test digit whose pixels are known.
            seed: of all noise.
        """
        states, mask = self.draw(label, scale, known, digit, seed)
        x = states[-1].x.cpu()
        hidden = torch.ones(SIDE, SIDE, dtype=torch.bool) if mask is None else ~mask
        rows = {
            "what is known": self.digits[digit].masked_fill(hidden, torch.nan),
            "samples": x[:PER_ROW],
            "more samples": x[PER_ROW:],
        }
        text, around = self._table(x, label), ""
        if mask is not None:
            text += f"<p>{self._kept(x, digit, mask)}</p>"
            around = f", drawn around known pixels ({known}) of the digit {digit}"
        alt = f"{len(x)} samples of class {label}, guidance scale {scale:g}{around}; seed {seed}"
        figure = digits_figure(rows, known=mask, zoom=ZOOM)
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _table(self, x: Tensor, label: str) -> str:
        """The classifier's predictions, their accuracy, and the samples' diversity."""
        classifier = digit_classifier()
        predicted = classifier.predict(x)
        accuracy = "-" if label == ANY else f"{(predicted == int(label)).double().mean().item():.0%}"
        spread = diversity(classifier.features(x), torch.zeros(len(x)))
        row = [" ".join(map(str, predicted.tolist())), accuracy, f"{spread:.1f}"]
        return table_html([row], ["the classifier predicts", "class accuracy", "diversity"]).text

    def _kept(self, x: Tensor, digit: str, mask: Tensor) -> str:
        """How many pixels are known, and that the samples keep them."""
        change = (x - self.digits[digit])[:, :, mask].abs().max().item()
        return (
            f"{int(mask.sum())} of {mask.numel()} pixels are known; in the samples they differ by "
            f"{change:g} from what they were."
        )
