"""The explorer's picture: a file decoded in K steps, and its decoder's walk down the noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.denoising.residual_unet import Conditions, pixel_scale
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.gain import quantisation_sigma
from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.core.tensors import crop_to
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import load_photo
from dhp_lab.lessons.diffusion_hyperprior.decoders import Judges, measures, noise_like, with_white_noise
from dhp_lab.lessons.diffusion_hyperprior.figures import draw_schedule
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.photo_figures import busiest
from dhp_lab.notebook.style import (
    BLUE,
    GREY,
    ORANGE,
    enlarged,
    pixel_figure,
    place_axes,
    place_picture,
    place_title,
    style,
)

SIDE = 192  # of the explorer's photos, in pixels
DETAIL, ZOOM = 112, 3  # pixels of the part that it shows, and dots of each
SHOWN = DETAIL * ZOOM
GAP, TITLE = 16, 30  # pixels between its pictures, and above them
CHART = 360  # width of its chart
SIZE = 2 * (SHOWN + GAP) + CHART, TITLE + SHOWN
KEPT = 64  # files and decoded pictures that its caches hold
LAST_SHARE = 24 / 50  # of the latents' schedule in the chart, unless t* lies beyond
PIXELS, LATENTS, NOISE = "near the pixels", "in the latents", "K = 1 + white noise"


class Held(NamedTuple):
    """What the decoder holds of a file, and what the realism part sees: picture of K = 1 and errors."""

    n_bytes: int
    state: DecoderState
    conditions: Conditions


class DecoderWalk:
    """A photo's file, decoded for the lesson's explorer; it remembers what it made.

    Args:
        model: the codec. judges: as for ``measures``.
    """

    def __init__(self, model: DiffusionHyperprior, judges: Judges) -> None:
        self.model, self.judges = model, judges
        self.decoders = [PIXELS, LATENTS, NOISE] if model.realism else [LATENTS, NOISE]
        self.held = lru_cache(KEPT)(self._held)
        self.decode = lru_cache(KEPT)(self._decode)

    @torch.no_grad()
    def _held(self, photo: str, lambda_rate: float) -> Held:
        x = load_photo(photo, SIDE).to(self.model.log2_spread.device)
        data = dhp_file.encode(self.model, x, lambda_rate=lambda_rate)
        file = bitstream.read(data)
        state = decode_latents(self.model, file.strings, file.shape)
        y_hat = self.model.sampler.sample(state, steps=1)
        return Held(len(data), state, self.model.realism_conditions(state, y_hat))

    @torch.no_grad()
    def _decode(self, photo: str, lambda_rate: float, decoder: str, steps: int, gamma: float) -> Tensor:
        """The picture (1, 3, H, W) in [0, 1], on the CPU.

        Raises:
            ValueError: there is no such decoder.
        """
        if decoder not in self.decoders:
            raise ValueError(f"there is no decoder {decoder!r}; choose one of {', '.join(self.decoders)}")
        _, state, conditions = self.held(photo, lambda_rate)
        picture = conditions.picture
        if steps == 0 or (steps > 1 and decoder == LATENTS):
            y_hat = self.model.sampler.sample(state, steps=steps, gamma=gamma)
            picture = self.model.synthesise(y_hat, state.log2_delta, picture.shape[-2:])
        elif steps > 1 and decoder == PIXELS:
            picture = self.model.realism_sampler.sample(conditions, steps=steps, gamma=gamma)
        elif steps > 1:
            picture = with_white_noise(conditions, noise_like(picture)).lerp(picture, gamma)
        return crop_to(picture, load_photo(photo, SIDE).shape[-2:]).clamp(0, 1).cpu()

    def start_time(self, lambda_rate: float) -> float:
        """t*: the time of the step's noise on the latents' schedule, its last time if it ends below."""
        schedule, sigma = self.model.noise_schedule, quantisation_sigma(self.model.step_size(lambda_rate))
        top = schedule.sigma(schedule.steps).item()
        return schedule.time_of(min(sigma / self.model.latent_scale, top)).item()

    def expected_error(self, photo: str, lambda_rate: float) -> float:
        """The root mean square of e over the photo, in pixels of [0, 1]."""
        return pixel_scale(self.held(photo, lambda_rate).conditions.errors).square().mean().sqrt().item()

    def render(self, *, photo: str, decoder: str, lambda_rate: float, steps: int, gamma: float) -> Rendered:
        """A detail of the photo, the same decoded, and the decoder's walk down the noise levels.

        Args:
            photo: a name of ``PHOTOS``.
            decoder: of K > 1, one of ``decoders``.
            lambda_rate: 1e-6 .. 1e-1.
            steps: K, 0 .. 1000.
            gamma: 0 .. 1.
        """
        x = load_photo(photo, SIDE)
        x_hat = self.decode(photo, lambda_rate, decoder, steps, gamma)
        way = f", {decoder}, γ = {gamma:g}" if steps > 1 else ""
        shown = {f"K = {steps}{way}": x_hat}
        shown |= {f"K = {k}": self.decode(photo, lambda_rate, decoder, k, 0.0) for k in (0, 1) if k != steps}
        device = self.model.log2_spread.device  # where the judges are
        figures = {
            name: measures(picture.to(device), x.to(device), self.judges) for name, picture in shown.items()
        }
        table = table_html(
            [[name, *found.values()] for name, found in figures.items()], ["", *next(iter(figures.values()))]
        )
        alt = (
            f"A detail of {photo}, and the same decoded with λ = {lambda_rate:g}, K = {steps}{way}; "
            "the walk down the noise levels"
        )
        figure = self._figure(x, x_hat, photo, lambda_rate, steps, decoder)
        text = self._noise_level(photo, lambda_rate) + table.text
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _noise_level(self, photo: str, lambda_rate: float) -> str:
        """lambda -> Delta -> sigma_q -> t*, the expected error and the bytes, as a paragraph."""
        delta = self.model.step_size(lambda_rate)
        return (
            f"<p>λ = {lambda_rate:g} → Δ = {delta:.4f} → σ<sub>q</sub> = {quantisation_sigma(delta):.4f} → "
            f"t* = {self.start_time(lambda_rate):.2f} of {self.model.noise_schedule.steps}; expected error "
            f"{255 * self.expected_error(photo, lambda_rate):.1f} grey levels; "
            f"{self.held(photo, lambda_rate).n_bytes} bytes</p>"
        )

    def _figure(
        self, x: Tensor, x_hat: Tensor, photo: str, lambda_rate: float, steps: int, decoder: str
    ) -> Figure:
        figure = pixel_figure(*SIZE)
        rows, cols = busiest(to_pixels(x), DETAIL, DETAIL)
        panels = {"original, 3 times as large": x, "decoded": x_hat}
        for column, (title, picture) in enumerate(panels.items()):
            left = column * (SHOWN + GAP)
            place_picture(figure, enlarged(to_pixels(picture)[rows, cols], ZOOM), left, TITLE)
            place_title(figure, title, left, TITLE - 8)
        left, (width, height) = 2 * (SHOWN + GAP) + 56, SIZE
        with style():
            axes = place_axes(figure, left, TITLE + 4, width - left - 8, height - TITLE - 50)
            error = self.expected_error(photo, lambda_rate)
            axes.axhline(255 * error, color=GREY, linestyle="--", linewidth=1, label="expected error e")
            if steps > 1 and decoder == PIXELS:
                self._draw_residual_walk(axes, steps, error)
            else:
                self._draw_latent_walk(axes, lambda_rate, steps if decoder == LATENTS else min(steps, 1))
            axes.set(xlabel="diffusion time t", ylabel="noise, grey levels of 255", ylim=(0.1, 300))
            axes.legend(loc="lower right", fontsize=9)
        return figure

    def _draw_latent_walk(self, axes: Axes, lambda_rate: float, steps: int) -> None:
        """The latents' schedule, t*, and the times at which D is evaluated."""
        chain, start = self.model.noise_schedule, self.start_time(lambda_rate)
        unit = 255 * self.model.latent_scale * math.sqrt(self.model.M / (3 * BLOCK**2))
        until = min(float(chain.steps), max(LAST_SHARE * chain.steps, 1.1 * start))
        times = [start * (1 - k / steps) for k in range(steps)]
        draw_schedule(axes, chain, until, BLUE, unit=unit)
        _mark(axes, start, times, lambda time: unit * chain.sigma(time).item())
        axes.set(title="noise of the latents", xlim=(0, until))

    def _draw_residual_walk(self, axes: Axes, steps: int, error: float) -> None:
        """The residual's schedule, and the times at which the realism part is evaluated."""
        chain, unit = self.model.realism_sampler.schedule, 255 * error
        draw_schedule(axes, chain, chain.steps, BLUE, unit=unit)
        times = chain.times(steps)[:-1].tolist()
        _mark(axes, chain.steps, times, lambda time: unit * chain.sigma(time).item())
        axes.set(title="noise near the pixels", xlim=(0, 1.03 * chain.steps))


def _mark(axes: Axes, start: float, times: list[float], level: Callable[[float], float]) -> None:
    """The start of a walk, and its evaluations, at ``level(time)``."""
    look = {"color": ORANGE, "markersize": 10, "markerfacecolor": "none"}
    axes.plot(start, level(start), "D", **look, label="t*")
    if times:
        axes.plot(times, [level(time) for time in times], "o", color=ORANGE, markersize=5, label="evaluation")
