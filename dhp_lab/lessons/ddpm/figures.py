"""The figures of lesson 01, and the pure picture behind its explorer: a digit, its noisy state, and two
guesses of it.

| function            | what it gives                                                                     |
|---------------------|-----------------------------------------------------------------------------------|
| `schedules_figure`  | the share of signal left, and the signal-to-noise ratio, against time             |
| `posterior_figure`  | two Gaussians and their product                                                   |
| `embedding_figure`  | what a network is told of the time                                                |
| `loss_figure`       | a training run                                                                    |
| `errors_figure`     | errors of denoisers against time                                                  |
| `bound_figure`      | the noise estimate's error, its weight in the bound, and their product in bits    |
| `NoisyDigit.render` | the explorer's picture and text                                                   |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter, NullLocator
from torch import Tensor

from dhp_lab.data.digits import CLASSES, load_digits
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.process import Denoiser, noise_like, predict_eps, q_sample
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, cosine, linear
from dhp_lab.notebook.digit_figures import digits_figure, sheet
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.style import (
    BLUE,
    CHART_DPI,
    CSS_DPI,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    style,
)

__all__ = [
    "NoisyDigit",
    "bound_figure",
    "digits_figure",
    "embedding_figure",
    "errors_figure",
    "loss_figure",
    "posterior_figure",
    "schedules_figure",
]

COLOURS = (BLUE, ORANGE, GREEN, SKY, GREY)
SIZE = 1010, 250  # CSS pixels of the explorer's picture


def _place(figure: Figure, canvas: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    """A picture (rows, cols, 3) in a figure of width x height dots, its upper left corner at (left, top)."""
    rows, cols = canvas.shape[:2]
    axes = figure.add_axes([left / width, 1 - (top + rows) / height, cols / width, rows / height])
    axes.imshow(canvas, interpolation="none", aspect="auto")
    axes.set_axis_off()


def _chart(columns: int = 1, width: float = 10.4, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=CHART_DPI, layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def schedules_figure(alpha_bars: Mapping[str, np.ndarray]) -> Figure:
    """Schedules by name, each (T + 1,) alpha_bar at t = 0 .. T: the share of the signal's power, and the SNR."""
    with style():
        figure, (share, ratio) = _chart(2)
        for (name, alpha_bar), colour in zip(alpha_bars.items(), COLOURS):
            times = np.arange(len(alpha_bar))
            share.plot(times, alpha_bar, color=colour, label=name)
            ratio.semilogy(times[1:], alpha_bar[1:] / (1 - alpha_bar[1:]), color=colour, label=name)
        ratio.axhline(1, color=GREY, linewidth=1, linestyle="--")
        share.set(title="share of the signal left", xlabel="time t", ylabel="ᾱ(t)")
        ratio.set(title="signal against noise; dashed: as much of each", xlabel="time t", ylabel="SNR(t)")
        share.legend()
    return figure


def posterior_figure(at: np.ndarray, densities: Mapping[str, np.ndarray], *, x0: float) -> Figure:
    """Densities (n,) by name over the numbers ``broadcast_to`` (n,), the last of them filled; x0 is pointed out."""
    with style():
        figure, (axes,) = _chart()
        for (name, density), colour in zip(densities.items(), COLOURS):
            axes.plot(at, density, color=colour, label=name)
        axes.fill_between(at, density, color=colour, alpha=0.2)
        axes.axvline(x0, color=GREY, linewidth=1, linestyle="--", label="the clean value $x_0$")
        axes.set(xlabel="value of the pixel at time t - 1", ylabel="density", ylim=(0, None))
        figure.legend(loc="outside right upper")
    return figure


def embedding_figure(values: np.ndarray) -> Figure:
    """What a network is told at each time: (T, size) numbers in [-1, 1], row by row."""
    with style():
        figure, (axes,) = _chart(width=8, height=2.8)
        axes.grid(False)
        picture = axes.imshow(
            values.T,
            cmap="RdBu",
            vmin=-1,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
            extent=(0.5, len(values) + 0.5, values.shape[1] - 0.5, -0.5),
        )
        axes.set(xlabel="time t", ylabel="number in the list")
        figure.colorbar(picture, ax=axes, label="value")
    return figure


def loss_figure(losses: Sequence[float]) -> Figure:
    """The loss at each step of a training run, and its mean over a fiftieth of the run, or over 5 steps if
    that is more.
    """
    window = min(len(losses), max(5, len(losses) // 50))
    means = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    with style():
        figure, (axes,) = _chart(width=8, height=2.8)
        axes.semilogy(np.arange(1, len(losses) + 1), losses, color=SKY, linewidth=0.8, label="each step")
        axes.semilogy(
            np.arange(window, len(losses) + 1), means, color=BLUE, label=f"mean of the last {window}"
        )
        axes.set(xlabel="training step", ylabel="loss, 1 = always zero")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.legend()
    return figure


def errors_figure(times: np.ndarray, errors: Mapping[str, np.ndarray], noise: np.ndarray) -> Figure:
    """Errors (n,) of denoisers by name at times (n,), two for each denoiser: solid, then dashed; ``noise``
    (n,) is sigma.

    Errors below 0.003 lie below the chart.
    """
    with style():
        figure, (axes,) = _chart()
        for i, (name, error) in enumerate(errors.items()):
            axes.loglog(times, error, color=COLOURS[i // 2], linestyle=("-", "--")[i % 2], label=name)
        axes.loglog(times, noise, color=GREY, linewidth=1, linestyle=":", label="no denoiser: the noise σ(t)")
        axes.set(xlabel="time t", ylabel=r"root mean square error of $\hat x_0$", ylim=(3e-3, 5))
        figure.legend(loc="outside right upper")
    return figure


def bound_figure(times: np.ndarray, errors: np.ndarray, weights: np.ndarray, bits: np.ndarray) -> Figure:
    """At times (n,): the error E of the noise estimate, its weight in nats, and the KL in bits per pixel."""
    with style():
        figure, (error, weight, bit) = _chart(3)
        error.loglog(times, errors, color=BLUE)
        error.set(
            title="error of the noise estimate",
            xlabel="time t",
            ylabel=r"mean of $(\varepsilon - \hat\varepsilon)^2$",
        )
        weight.loglog(times, weights, color=ORANGE)
        weight.set(title="what the bound makes it count", xlabel="time t", ylabel="weight w(t)")
        weight.yaxis.set_minor_formatter(NullFormatter())
        bit.loglog(times, bits, ".", color=GREEN, markersize=4)
        bit.set(title="bits of one step", xlabel="time t", ylabel="KL(t), bits per pixel")
    return figure


class NoisyDigit:
    """Test digits, noise on them, and what a network and the ideal denoiser of the training digits make of
    it.

    Args:
        network: eps = network(x_t, t), on the CPU.
        known: the schedule that the network was trained on; the explorer's schedules have as many steps.
    """

    def __init__(self, network: Denoiser, known: NoiseSchedule) -> None:
        digits = load_digits()
        self.network, self.known = network, known
        self.schedules = {"linear": linear(known.steps), "cosine": cosine(known.steps)}
        self.ideal = {
            name: IdealDenoiser(digits.train, schedule) for name, schedule in self.schedules.items()
        }
        self.digits = {str(label): digits.test[digits.test_labels == label][:1] for label in range(CLASSES)}

    def render(self, *, schedule: str, digit: str, t: int, seed: int) -> Rendered:
        """A digit's state at time t, its clean version as two denoisers guess it, and where t lies on the
        schedule.
        """
        chain, x0 = self.schedules[schedule], self.digits[digit]
        x_t = q_sample(chain, x0, t, noise_like(x0, torch.Generator().manual_seed(seed)))
        shown = {
            "clean digit $x_0$": x0,
            f"noisy state, t = {t}": x_t,
            r"$\hat x_0$, network": self.learnt_x0(chain, x_t, t),
            r"$\hat x_0$, ideal denoiser": self.ideal[schedule].x0(x_t, t),
        }
        errors = [f"{(guess - x0).square().mean().sqrt().item():.3f}" for guess in list(shown.values())[2:]]
        alpha_bar, sigma, snr = (
            f"{value(t).item():.4g}" for value in (chain.alpha_bar, chain.sigma, chain.snr)
        )
        header = ["schedule", "t", "ᾱ(t)", "σ(t)", "SNR(t)", "error, network", "error, ideal denoiser"]
        text = table_html([[schedule, t, alpha_bar, sigma, snr, *errors]], header).text
        alt = f"A {digit}, its state at t = {t} of the {schedule} schedule (SNR {snr}), and two guesses of it"
        return Rendered(picture_bytes(self._panel(schedule, t, shown), compress_level=1), alt, text)

    @torch.no_grad()
    def learnt_x0(self, chain: NoiseSchedule, x_t: Tensor, t: float) -> Tensor:
        """The network's guess of x0 from a state (B, 1, 8, 8) of another chain: it is asked at the time of
        equal sigma.

        A state noisier than any that the network knows is shrunk to the noisiest one: neither has a signal to
        see.
        """
        sigma = chain.sigma(t)
        there = self.known.time_of(sigma.clamp(max=self.known.sigma(self.known.steps)))
        u = broadcast_to(self.known.sigma(there) / sigma / chain.scale(t), x_t) * x_t
        eps = predict_eps(self.network, broadcast_to(self.known.scale(there), u) * u, there)
        return u - broadcast_to(self.known.sigma(there), u) * eps

    def _panel(self, schedule: str, t: int, pictures: Mapping[str, Tensor]) -> Figure:
        (width, height), zoom = SIZE, 18
        with style():
            figure = Figure(figsize=((width + 0.01) / CSS_DPI, (height + 0.01) / CSS_DPI), dpi=CHART_DPI)
            for i, (title, picture) in enumerate(pictures.items()):
                _place(figure, sheet(picture, zoom=zoom), 160 * i, 50, width, height)
                figure.text(160 * i / width, 1 - 43 / height, title, fontsize=9.5, va="bottom")
            axes = figure.add_axes([720 / width, 46 / height, 285 / width, 168 / height])
            for (name, chain), colour in zip(self.schedules.items(), COLOURS):
                snr = chain.snr(torch.arange(1, chain.steps + 1)).numpy()
                axes.semilogy(
                    np.arange(1, chain.steps + 1), snr, color=colour, alpha=1 if name == schedule else 0.3
                )
                if name == schedule:
                    axes.plot(t, snr[t - 1], "o", color=colour, markersize=8)
            axes.axhline(1, color=GREY, linewidth=1, linestyle="--")
            axes.set(title=f"SNR(t), {schedule}", xlabel="time t", ylim=(1e-9, 1e5))
        return figure
