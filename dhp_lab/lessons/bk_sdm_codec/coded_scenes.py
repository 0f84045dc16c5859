"""The explorer's picture: a scene or photo coded with the parts of a Stable Diffusion folder; its ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.gain import quantisation_sigma
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.data.scenes import batch
from dhp_lab.data.scenes.drawing import SIDE
from dhp_lab.metrics.pixels import psnr
from dhp_lab.metrics.rd_curves import Curve
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.style import (
    BLUE,
    GAP,
    GREEN,
    GREY,
    ORANGE,
    enlarged,
    pixel_figure,
    place_axes,
    place_picture,
    place_title,
    style,
)

FIRST_SEED = 4_000_000  # beyond all that the shipped models were trained on
CURVE_RATES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4)  # lambdas of the curves
ZOOM = 3  # dots a pixel
TITLE, CHART = 24, 250  # dots above the pictures, and of the charts below
SHOWN = SIDE * ZOOM
LEAST_CEILING = 20.0  # dB: a VAE that gives photos back better than that has learnt photos
SIZE = 4 * SHOWN + 3 * GAP, TITLE + SHOWN + CHART
KEPT = 64  # files and decoded pictures that the caches hold
MARKER = {"marker": "D", "color": ORANGE, "markerfacecolor": "none", "linestyle": "none"}


def new_scenes(count: int, seed: int = 0) -> Tensor:
    """(count, 3, 64, 64) scenes in [0, 1] that no shipped model has seen; a smaller count gives the first
    ones of the same seed.
    """
    return batch(count, FIRST_SEED + seed)[0]


def photo_detail(number: int, side: int = SHOWN) -> Tensor:
    """(1, 3, side, side) from the middle of photo ``number`` of `PHOTOS`."""
    photo = load_photo(PHOTOS[number])
    top, left = ((length - side) // 2 for length in photo.shape[-2:])
    return photo[..., top : top + side, left : left + side]


@torch.no_grad()
def through_vae(model: DiffusionHyperprior, x: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) encoded and decoded with nothing rounded: what no file can improve on."""
    latents = model.encode(x.to(model.log2_spread.device), [lambda_code(CURVE_RATES[0])] * len(x))
    return model.synthesise(latents.y, latents.log2_delta, x.shape[-2:]).clamp(0, 1).cpu()


def knows_photos(model: DiffusionHyperprior) -> bool:
    """Whether the codec's VAE was trained on photos, by its ceiling on one of them."""
    x = photo_detail(0)
    return psnr(through_vae(model, x), x).item() > LEAST_CEILING


class CodedScenes:
    """The file of a scene or photo decoded for the lesson's explorer.

    ``encode`` and ``decode`` remember what they have made; ``ceiling`` is the scene through the VAE alone,
    ``curve`` bytes and PSNR for the lambdas of `CURVE_RATES`.

    Args:
        model: a codec with the VAE and the U-Net of a Stable Diffusion folder.
        photos: show details of photos instead of scenes.
    """

    def __init__(self, model: DiffusionHyperprior, *, photos: bool = False) -> None:
        self.model, self.photos = model, photos
        self.encode = lru_cache(KEPT)(self._encode)
        self.decode = lru_cache(KEPT)(self._decode)
        self.ceiling = lru_cache(KEPT)(self._ceiling)
        self.curve = lru_cache(KEPT)(self._curve)

    def picture(self, scene: int) -> Tensor:
        """The picture with this number, (1, 3, H, W) in [0, 1]."""
        return photo_detail(scene) if self.photos else new_scenes(1, scene)

    def times(self, lambda_rate: float, steps: int) -> list[float]:
        """The times of the folder's own schedule at which the U-Net is evaluated, from t* down; none for
        K = 0.
        """
        model = self.model
        start = model.start_time(model.step_size(lambda_rate))
        levels = [model.noise_schedule.sigma(start * (1 - k / steps)).item() for k in range(steps)]
        return [model.denoiser.schedule.time_of(level).item() for level in levels]

    def render(self, *, scene: int, lambda_rate: float, steps: int) -> Rendered:
        """The picture, what the VAE alone makes of it, and the decoded one; below, the walk and the ceiling.

        Args:
            scene: number of the scene, 0 or more, or of the photo.
            lambda_rate: 1e-6 .. 1e-1.
            steps: K, 0 .. 1000.
        """
        shown = f"Photo {PHOTOS[scene]}" if self.photos else f"Scene {scene}"
        x, n_bytes = self.picture(scene), len(self.encode(scene, lambda_rate))
        ceiling = self.ceiling(scene)
        plain = self.decode(scene, lambda_rate, 0)
        denoised = self.decode(scene, lambda_rate, steps)
        panels = [("original", x), ("the VAE alone", ceiling), ("K = 0", plain)]
        panels.append((f"decoded, K = {steps}", denoised))
        best = psnr(ceiling, x).item()
        rows = []
        for name, x_hat in {f"K = {steps}": denoised, "K = 0": plain}.items():
            quality = psnr(x_hat, x).item()
            rows.append([name, f"{quality:.2f}", f"{best - quality:.2f}"])
        rows.append(["the VAE alone, nothing rounded", f"{best:.2f}", ""])
        table = table_html(rows, ["", "PSNR, dB", "below the ceiling, dB"]).text
        alt = (
            f"{shown}, the same from the VAE alone, and decoded from {n_bytes} bytes "
            f"(λ = {lambda_rate:g}) with K = 0 and K = {steps}; below, the times at which the U-Net is "
            "evaluated, and PSNR against bytes under the ceiling"
        )
        with style():
            figure = self._figure(dict(panels), scene, lambda_rate, steps)
        text = self._noise_level(lambda_rate, steps, n_bytes) + table
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _noise_level(self, lambda_rate: float, steps: int, n_bytes: int) -> str:
        """lambda -> Delta -> sigma_q -> t*, and the times of the walk, as paragraphs."""
        delta = self.model.step_size(lambda_rate)
        start = self.times(lambda_rate, 1)[0]
        last = self.model.denoiser.schedule.steps
        walk = ", ".join(f"{time:.1f}" for time in self.times(lambda_rate, steps)) or "none"
        return (
            f"<p>λ = {lambda_rate:g} → Δ = {delta:.4f} → "
            f"σ<sub>q</sub> = {quantisation_sigma(delta):.4f} → "
            f"t* = {start:.1f} of {last}; {n_bytes} bytes</p>"
            f"<p>U-Net evaluations at times: {walk}</p>"
        )

    def _figure(self, panels: Mapping[str, Tensor], scene: int, lambda_rate: float, steps: int) -> Figure:
        figure = pixel_figure(*SIZE)
        for column, (title, picture) in enumerate(panels.items()):
            left = column * (SHOWN + GAP)
            place_picture(figure, enlarged(to_pixels(picture), SHOWN // picture.shape[-1]), left, TITLE)
            place_title(figure, title, left, TITLE - 7, size=10.5)
        middle, top = SIZE[0] / 2, TITLE + SHOWN + 38
        width, height = middle - 70, CHART - 84
        self._draw_walk(place_axes(figure, 56, top, width, height), lambda_rate, steps)
        self._draw_curve(place_axes(figure, middle + 56, top, width, height), scene, lambda_rate, steps)
        return figure

    def _draw_walk(self, axes: Axes, lambda_rate: float, steps: int) -> None:
        """The folder's schedule, t*, and the times at which the U-Net is evaluated."""
        chain, last = self.model.denoiser.schedule, self.times(CURVE_RATES[0], 1)[0]
        at = torch.linspace(0.5, 1.1 * last, 400, dtype=torch.float64)
        axes.semilogy(at.numpy(), chain.sigma(at).numpy(), color=BLUE)
        start = self.times(lambda_rate, 1)[0]
        axes.plot(start, chain.sigma(start).item(), **MARKER, markersize=10, label="t*")
        times = self.times(lambda_rate, steps)
        if times:
            sigmas = chain.sigma(torch.tensor(times)).numpy()
            axes.plot(times, sigmas, "o", color=ORANGE, markersize=5, label="U-Net evaluation")
        axes.set(title="noise σ(t) of the folder's schedule", xlabel=f"time t of {chain.steps}")
        axes.set_xlim(0, 1.1 * last)
        axes.legend(loc="lower right", fontsize=8.5)

    def _draw_curve(self, axes: Axes, scene: int, lambda_rate: float, steps: int) -> None:
        """PSNR against bytes for K = 0 and K, the ceiling, and the chosen file."""
        x = self.picture(scene)
        for name, k, colour in (("K = 0", 0, GREY), (f"K = {steps}", steps, BLUE)):
            axes.plot(*self.curve(scene, k), "o-", color=colour, markersize=3.5, linewidth=1.5, label=name)
        best = psnr(self.ceiling(scene), x).item()
        axes.axhline(best, color=GREEN, linestyle="--", linewidth=1.4, label="the VAE alone")
        quality = psnr(self.decode(scene, lambda_rate, steps), x).item()
        axes.plot(len(self.encode(scene, lambda_rate)), quality, **MARKER, markersize=9)
        axes.set(title="PSNR, dB", xlabel="bytes of the file")
        axes.legend(loc="lower right", fontsize=8.5)

    def _encode(self, scene: int, lambda_rate: float) -> bytes:
        return dhp_file.encode(self.model, self.picture(scene), lambda_rate=lambda_rate)

    def _decode(self, scene: int, lambda_rate: float, steps: int) -> Tensor:
        return dhp_file.decode(self.model, self.encode(scene, lambda_rate), steps=steps).cpu()

    def _ceiling(self, scene: int) -> Tensor:
        return through_vae(self.model, self.picture(scene))

    def _curve(self, scene: int, steps: int) -> Curve:
        x = self.picture(scene)
        sizes = [len(self.encode(scene, value)) for value in CURVE_RATES]
        qualities = [psnr(self.decode(scene, value, steps), x).item() for value in CURVE_RATES]
        return sizes, qualities
