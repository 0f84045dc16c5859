"""The explorer of lesson 09: a scene coded with the parts of a Stable Diffusion folder, under the ceiling of
its VAE.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.gain import quantisation_sigma
from dhp_lab.data.images import to_pixels
from dhp_lab.data.scenes import batch
from dhp_lab.data.scenes.drawing import SIDE
from dhp_lab.metrics.pixels import psnr
from dhp_lab.metrics.rd_curves import Curve
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.style import BLUE, CSS_DPI, GAP, GREEN, GREY, ORANGE, style

FIRST_SEED = 4_000_000  # beyond all that the shipped models were trained on
CURVE_RATES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4)  # lambdas of the curves
ZOOM, TITLE, CHART = 3, 24, 250  # dots a pixel, above the pictures, and of the charts below
SIZE = 4 * SIDE * ZOOM + 3 * GAP, TITLE + SIDE * ZOOM + CHART
KEPT = 64  # files and decoded pictures that the caches hold


def new_scenes(count: int, seed: int = 0) -> Tensor:
    """(count, 3, 64, 64) scenes in [0, 1] that no shipped model has seen; a smaller count gives the first
    ones of the same seed.
    """
    return batch(count, FIRST_SEED + seed)[0]


class CodedScenes:
    """A scene's file decoded as the explorer of lesson 09 asks for it.

    Args:
        model: a codec with the VAE and the U-Net of a Stable Diffusion folder.
    """

    def __init__(self, model: DiffusionHyperprior) -> None:
        self.model, self.device = model, model.log2_spread.device
        self.encode, self.decode = lru_cache(KEPT)(self._encode), lru_cache(KEPT)(self._decode)
        self.ceiling, self.curve = lru_cache(KEPT)(self._ceiling), lru_cache(KEPT)(self._curve)

    def times(self, lambda_rate: float, steps: int) -> list[float]:
        """The times of the folder's own schedule at which the U-Net is asked, from t* down; none for K = 0."""
        model = self.model
        start = model.start_time(model.step_size(lambda_rate))
        levels = [model.noise_schedule.sigma(start * (1 - k / steps)).item() for k in range(steps)]
        return [model.denoiser.schedule.time_of(level).item() for level in levels]

    def render(self, *, scene: int, lambda_rate: float, steps: int) -> Rendered:
        """The scene, what the VAE alone makes of it, and what the file gives back; below, the walk and the
        ceiling.
        """
        x, n_bytes = new_scenes(1, scene), len(self.encode(scene, lambda_rate))
        decoded = {
            f"K = {steps}": self.decode(scene, lambda_rate, steps),
            "K = 0": self.decode(scene, lambda_rate, 0),
        }
        best = psnr(self.ceiling(scene), x).item()
        rows = [
            [name, f"{psnr(x_hat, x).item():.2f}", f"{best - psnr(x_hat, x).item():.2f}"]
            for name, x_hat in decoded.items()
        ]
        rows.append(["the VAE alone, nothing rounded", f"{best:.2f}", ""])
        panels = {"original": x, "the VAE alone": self.ceiling(scene), "K = 0": decoded["K = 0"]}
        panels[f"decoded, K = {steps}"] = decoded[f"K = {steps}"]
        figure = self._figure(panels, scene, lambda_rate, steps)
        alt = (
            f"Scene {scene}, the same from the VAE alone, and decoded from {n_bytes} bytes (λ = {lambda_rate:g}) with K = 0 and "
            f"K = {steps}; below, the times at which the U-Net is asked, and PSNR against bytes under the ceiling"
        )
        table = table_html(rows, ["", "PSNR, dB", "below the ceiling, dB"]).text
        return Rendered(
            picture_bytes(figure, compress_level=1), alt, self._chain(lambda_rate, steps, n_bytes) + table
        )

    def _chain(self, lambda_rate: float, steps: int, n_bytes: int) -> str:
        delta = self.model.step_size(lambda_rate)
        start, whole = self.times(lambda_rate, 1)[0], self.model.denoiser.schedule.steps
        walk = ", ".join(f"{time:.1f}" for time in self.times(lambda_rate, steps)) or "none"
        return (
            f"<p>λ = {lambda_rate:g} → Δ = {delta:.4f} → σ<sub>q</sub> = {quantisation_sigma(delta):.4f} → "
            f"t* = {start:.1f} of {whole}; {n_bytes} bytes</p><p>times at which the U-Net is asked: {walk}</p>"
        )

    def _figure(self, panels: Mapping[str, Tensor], scene: int, lambda_rate: float, steps: int) -> Figure:
        (width, height), side = SIZE, SIDE * ZOOM
        with style():
            figure = Figure(figsize=((width + 0.01) / CSS_DPI, (height + 0.01) / CSS_DPI), dpi=CSS_DPI)
            for i, (title, picture) in enumerate(panels.items()):
                left = i * (side + GAP) / width
                axes = figure.add_axes([left, (height - TITLE - side) / height, side / width, side / height])
                axes.imshow(
                    np.kron(to_pixels(picture), np.ones((ZOOM, ZOOM, 1), np.uint8)),
                    interpolation="none",
                    aspect="auto",
                )
                axes.set_axis_off()
                figure.text(left, 1 - (TITLE - 7) / height, title, fontsize=10.5, va="bottom")
            wide, tall = (width / 2 - 70) / width, (CHART - 84) / height
            self._draw_walk(figure.add_axes([56 / width, 46 / height, wide, tall]), lambda_rate, steps)
            self._draw_curve(
                figure.add_axes([0.5 + 56 / width, 46 / height, wide, tall]), scene, lambda_rate, steps
            )
        return figure

    def _draw_walk(self, axes: Axes, lambda_rate: float, steps: int) -> None:
        chain, last = self.model.denoiser.schedule, self.times(CURVE_RATES[0], 1)[0]
        at, asked = torch.linspace(0.5, 1.1 * last, 400, dtype=torch.float64), self.times(lambda_rate, steps)
        axes.semilogy(at.numpy(), chain.sigma(at).numpy(), color=BLUE)
        start = self.times(lambda_rate, 1)
        axes.plot(
            start,
            chain.sigma(start[0]).item(),
            "D",
            color=ORANGE,
            markersize=10,
            markerfacecolor="none",
            label="t*",
        )
        if asked:
            axes.plot(
                asked,
                chain.sigma(torch.tensor(asked)).numpy(),
                "o",
                color=ORANGE,
                markersize=5,
                label="the U-Net is asked",
            )
        axes.set(
            title="noise σ(t) of the folder's schedule",
            xlabel=f"time t of {chain.steps}",
            xlim=(0, 1.1 * last),
        )
        axes.legend(loc="lower right", fontsize=8.5)

    def _draw_curve(self, axes: Axes, scene: int, lambda_rate: float, steps: int) -> None:
        x = new_scenes(1, scene)
        for name, k, colour in (("K = 0", 0, GREY), (f"K = {steps}", steps, BLUE)):
            axes.plot(*self.curve(scene, k), "o-", color=colour, markersize=3.5, linewidth=1.5, label=name)
        axes.axhline(
            psnr(self.ceiling(scene), x).item(),
            color=GREEN,
            linestyle="--",
            linewidth=1.4,
            label="the VAE alone",
        )
        axes.plot(
            len(self.encode(scene, lambda_rate)),
            psnr(self.decode(scene, lambda_rate, steps), x).item(),
            "D",
            color=ORANGE,
            markersize=9,
            markerfacecolor="none",
        )
        axes.set(title="PSNR, dB", xlabel="bytes of the file")
        axes.legend(loc="lower right", fontsize=8.5)

    def _encode(self, scene: int, lambda_rate: float) -> bytes:
        coded = self.model.compress(new_scenes(1, scene).to(self.device), lambda_rate)
        return bitstream.write(coded["strings"], coded["shape"], **self.model.file_fields)

    def _decode(self, scene: int, lambda_rate: float, steps: int) -> Tensor:
        file = bitstream.read(self.encode(scene, lambda_rate))
        return self.model.decompress(file.strings, file.shape, steps=steps)["x_hat"].cpu()

    @torch.no_grad()
    def _ceiling(self, scene: int) -> Tensor:
        x = new_scenes(1, scene).to(self.device)
        latents = self.model.encode(x, [lambda_code(CURVE_RATES[0])])
        return self.model.synthesise(latents.y, latents.log2_delta, x.shape[-2:]).clamp(0, 1).cpu()

    def _curve(self, scene: int, steps: int) -> Curve:
        """(bytes, PSNR) for the lambdas of `CURVE_RATES`."""
        x = new_scenes(1, scene)
        return (
            [len(self.encode(scene, value)) for value in CURVE_RATES],
            [psnr(self.decode(scene, value, steps), x).item() for value in CURVE_RATES],
        )
