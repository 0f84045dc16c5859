"""The lesson's figures, and the pure picture behind its explorer: a digit, its noisy state, two estimates.

| function            | what it gives                                                                     |
|---------------------|-----------------------------------------------------------------------------------|
| `schedules_figure`  | alpha_bar and the signal-to-noise ratio against time                              |
| `posterior_figure`  | two Gaussians and their product                                                   |
| `loss_figure`       | a training run, and a longer one beside it                                        |
| `errors_figure`     | errors of denoisers against time                                                  |
| `class_figure`      | what a state holds of its class, against time                                     |
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
from dhp_lab.notebook.digit_figures import sheet
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.style import (
    BLUE,
    CHART_DPI,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    pixel_figure,
    place_axes,
    place_picture,
    place_title,
    style,
)

COLOURS = (BLUE, ORANGE, GREEN, SKY, GREY)
SIZE = 1010, 250  # CSS pixels of the explorer's picture
ZOOM = 18  # CSS pixels a pixel of its digits
COLUMN, TOP = 160, 50  # CSS pixels from digit to digit, and above them
CHART = 720, 36, 285, 168  # left, top, width and height of its chart in CSS pixels


def _chart(columns: int = 1, width: float = 10.4, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=CHART_DPI, layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def schedules_figure(alpha_bars: Mapping[str, np.ndarray]) -> Figure:
    """alpha_bar and the signal-to-noise ratio against time.

    Args:
        alpha_bars: (T + 1,) at t = 0 .. T by name, five schedules at most.
    """
    with style():
        figure, (signal, ratio) = _chart(2)
        for (name, alpha_bar), colour in zip(alpha_bars.items(), COLOURS[: len(alpha_bars)], strict=True):
            times = np.arange(len(alpha_bar))
            signal.plot(times, alpha_bar, color=colour, label=name)
            ratio.semilogy(times[1:], alpha_bar[1:] / (1 - alpha_bar[1:]), color=colour, label=name)
        ratio.axhline(1, color=GREY, linewidth=1, linestyle="--")
        signal.set(title="share of the signal left", xlabel="time t", ylabel="ᾱ(t)")
        ratio.set(title="signal against noise; dashed: as much of each", xlabel="time t", ylabel="SNR(t)")
        signal.legend()
    return figure


def posterior_figure(at: np.ndarray, densities: Mapping[str, np.ndarray], *, x0: float) -> Figure:
    """Densities of a pixel at time t - 1, the last of them filled.

    Args:
        at: (n,) values of the pixel.
        densities: (n,) by name, five at most.
        x0: the clean value, pointed out.
    """
    with style():
        figure, (axes,) = _chart()
        for (name, density), colour in zip(densities.items(), COLOURS[: len(densities)], strict=True):
            axes.plot(at, density, color=colour, label=name)
        axes.fill_between(at, density, color=colour, alpha=0.2)
        axes.axvline(x0, color=GREY, linewidth=1, linestyle="--", label="the clean value $x_0$")
        axes.set(xlabel="value of the pixel at time t - 1", ylabel="density", ylim=(0, None))
        figure.legend(loc="outside right upper")
    return figure


def loss_figure(losses: Sequence[float], longer: Sequence[float] = (), *, every: int = 1) -> Figure:
    """The loss at each training step, and its mean over a fiftieth of the run, or over 5 steps if that is
    more.

    Args:
        losses: of the run, at each step.
        longer: means of another run's losses, if any.
        every: steps of each of these means.
    """
    window = min(len(losses), max(5, len(losses) // 50))
    means = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    steps = np.arange(1, len(losses) + 1)
    with style():
        figure, (axes,) = _chart(width=8, height=2.8)
        axes.loglog(steps, losses, color=SKY, linewidth=0.8, label="your run, each step")
        axes.loglog(steps[window - 1 :], means, color=BLUE, label=f"your run, mean of {window} steps")
        if longer:
            ends = every * np.arange(1, len(longer) + 1)
            axes.loglog(ends, longer, color=ORANGE, label=f"the shipped run, mean of {every} steps")
        axes.set(xlabel="training step", ylabel="loss, 1 = always zero")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.legend()
    return figure


def class_figure(times: Sequence[float], accuracy: Sequence[float], bits: Sequence[float]) -> Figure:
    """What a state holds of its class.

    Args:
        times: (n,).
        accuracy: (n,) of the Bayes classifier, in [0, 1].
        bits: (n,) information on the class, in bits.
    """
    with style():
        figure, (right, information) = _chart(2, height=2.9)
        right.plot(times, [100 * share for share in accuracy], "o-", color=BLUE)
        right.axhline(100 / CLASSES, color=GREY, linewidth=1, linestyle="--")
        right.set(title="class read from the state", xlabel="time t", ylabel="accuracy, %", ylim=(0, 100))
        information.plot(times, bits, "o-", color=ORANGE)
        information.axhline(np.log2(CLASSES), color=GREY, linewidth=1, linestyle="--")
        information.set(title="information on the class", xlabel="time t", ylabel="bits, 3.3 is all")
    return figure


def errors_figure(times: np.ndarray, errors: Mapping[str, np.ndarray], noise: np.ndarray) -> Figure:
    """Errors of denoisers against time; those below 0.003 lie below the chart.

    Args:
        times: (n,).
        errors: (n,) root mean square errors by name, two for each denoiser: solid, then dashed.
        noise: (n,) sigma.
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
    """The terms of the variational bound against time.

    Args:
        times: (n,).
        errors: (n,) mean squared error of the noise estimate.
        weights: (n,) its weight in nats.
        bits: (n,) the KL in bits per pixel.
    """
    with style():
        figure, (error_panel, weight_panel, bits_panel) = _chart(3)
        error_panel.loglog(times, errors, color=BLUE)
        error_panel.set(
            title="error of the noise estimate",
            xlabel="time t",
            ylabel=r"mean of $(\varepsilon - \hat\varepsilon)^2$",
        )
        weight_panel.loglog(times, weights, color=ORANGE)
        weight_panel.set(title="its weight in the bound", xlabel="time t", ylabel="weight w(t)")
        weight_panel.yaxis.set_minor_formatter(NullFormatter())
        bits_panel.loglog(times, bits, ".", color=GREEN, markersize=4)
        bits_panel.set(title="bits of one step", xlabel="time t", ylabel="KL(t), bits per pixel")
    return figure


class NoisyDigit:
    """Test digits, noise on them, and the clean digits that a network and the ideal denoiser of the training
    digits predict.

    Args:
        network: eps = network(x_t, t), on the CPU.
        trained_on: its schedule; the explorer's schedules have as many steps.
    """

    def __init__(self, network: Denoiser, trained_on: NoiseSchedule) -> None:
        digits = load_digits()
        self.network, self.trained_on = network, trained_on
        self.schedules = {"linear": linear(trained_on.steps), "cosine": cosine(trained_on.steps)}
        self.ideal = {
            name: IdealDenoiser(digits.train, schedule) for name, schedule in self.schedules.items()
        }
        self.digits = {str(label): digits.test[digits.test_labels == label][:1] for label in range(CLASSES)}

    def render(self, *, schedule: str, digit: str, t: int, seed: int) -> Rendered:
        """A digit's state at time t, its clean version as two denoisers predict it, and t on the schedule.

        Args:
            schedule: "linear" or "cosine".
            digit: its class, "0" .. "9".
            t: 1 .. T.
            seed: of the noise.
        """
        chain, x0 = self.schedules[schedule], self.digits[digit]
        x_t = q_sample(chain, x0, t, noise_like(x0, torch.Generator().manual_seed(seed)))
        predicted = self.predicted_x0(chain, x_t, t)
        ideal = self.ideal[schedule].x0(x_t, t)
        pictures = {
            "clean digit $x_0$": x0,
            f"noisy state, t = {t}": x_t,
            r"$\hat x_0$, network": predicted,
            r"$\hat x_0$, ideal denoiser": ideal,
        }
        errors = [f"{(x_hat - x0).square().mean().sqrt().item():.3f}" for x_hat in (predicted, ideal)]
        levels = [f"{level(t).item():.4g}" for level in (chain.alpha_bar, chain.sigma, chain.snr)]
        header = ["schedule", "t", "ᾱ(t)", "σ(t)", "SNR(t)", "error, network", "error, ideal denoiser"]
        text = table_html([[schedule, t, *levels, *errors]], header).text
        alt = (
            f"A {digit}, its state at t = {t} of the {schedule} schedule (SNR {levels[-1]}), "
            "and two estimates of it"
        )
        return Rendered(picture_bytes(self._panel(schedule, t, pictures), compress_level=1), alt, text)

    @torch.no_grad()
    def predicted_x0(self, chain: NoiseSchedule, x_t: Tensor, t: float) -> Tensor:
        """The network's prediction of x0, for a state of a schedule that it was not trained on.

        Two schedules are one process up to scale and time (Kingma et al. 2021, "Variational diffusion
        models", section 5.1): the network is evaluated at the time of equal sigma. A state noisier than any
        that it was trained on is shrunk to the noisiest one, for neither has a visible signal.

        Args:
            chain: the schedule that x_t belongs to.
            x_t: (B, 1, 8, 8).
            t: its time, 1 .. T.

        Returns:
            (B, 1, 8, 8).
        """
        own, sigma = self.trained_on, chain.sigma(t)
        own_t = own.time_of(sigma.clamp(max=own.sigma(own.steps)))
        u = broadcast_to(own.sigma(own_t) / sigma / chain.scale(t), x_t) * x_t  # x0 + own sigma eps
        eps = predict_eps(self.network, broadcast_to(own.scale(own_t), u) * u, own_t)
        return u - broadcast_to(own.sigma(own_t), u) * eps

    def _panel(self, schedule: str, t: int, pictures: Mapping[str, Tensor]) -> Figure:
        """Pictures (1, 1, 8, 8) by title, and beside them the schedules with the chosen time."""
        with style():
            figure = pixel_figure(*SIZE, dpi=CHART_DPI)
            for column, (title, picture) in enumerate(pictures.items()):
                place_picture(figure, sheet(picture, zoom=ZOOM), COLUMN * column, TOP)
                place_title(figure, title, COLUMN * column, TOP - 7, size=9.5)
            self._draw_schedules(place_axes(figure, *CHART), schedule, t)
        return figure

    def _draw_schedules(self, axes: Axes, schedule: str, t: int) -> None:
        """SNR(t) of both schedules, the other one pale, with the chosen time on its own."""
        for (name, chain), colour in zip(self.schedules.items(), (BLUE, ORANGE), strict=True):
            times = torch.arange(1, chain.steps + 1)
            snr = chain.snr(times).numpy()
            axes.semilogy(times.numpy(), snr, color=colour, alpha=1 if name == schedule else 0.3)
            if name == schedule:
                axes.plot(t, snr[t - 1], "o", color=colour, markersize=8)
        axes.axhline(1, color=GREY, linewidth=1, linestyle="--")
        axes.set(title=f"SNR(t), {schedule}", xlabel="time t", ylim=(1e-9, 1e5))
