"""Lesson 09: what a VAE's ceiling means, the U-Net alone and with help, blocks removed.

| function or class    | what it gives                                                                            |
|----------------------|------------------------------------------------------------------------------------------|
| `first_rate`         | the rate from which a curve is better than a ceiling                                     |
| `ceiling_figure`     | rate-distortion curves, and the ceilings that they cannot cross                          |
| `level_figure`       | the gain against the noise level that the U-Net is told                                  |
| `without_adapter`    | a codec whose U-Net is shown the state alone                                             |
| `unet_alone`         | a codec whose K = 1 is what the U-Net says, and nothing else                             |
| `with_unet`          | a codec with another U-Net in the place of its own                                       |
| `weights_of`         | how many weights of a codec are trained and stored, and how many are borrowed            |
| `measured_removal`   | what benchmarks/block_removal.py has found, as a table                                   |

The explorer's picture is in ``coded_scenes``.
"""

from __future__ import annotations

import copy
import html
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.stable_diffusion.networks import Frozen
from dhp_lab.core.paths import RESULTS
from dhp_lab.metrics.rd_curves import Curve
from dhp_lab.notebook.html import Html, table_html
from dhp_lab.notebook.style import (
    AMBER,
    BLUE,
    CHART_DPI,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    style,
)

COLOURS = (BLUE, ORANGE, GREEN, SKY, PURPLE, AMBER)
SURE = -20.0  # log of the U-Net's error where it has all the say


def first_rate(curve: Curve, quality: float) -> tuple[float, bool]:
    """The rate at which a curve reaches a quality, between two points on a straight line over the logarithm
    of the rate.

    Returns:
        The rate, and whether the curve has points on both sides of it. If all its points are better the rate
        is that of the least of them, so the true one is smaller; if all are worse it is infinite.
    """
    rates, qualities = (np.asarray(part, dtype=float)[np.argsort(curve[0])] for part in curve)
    if qualities[0] >= quality:
        return float(rates[0]), False
    if qualities[-1] < quality:
        return float("inf"), False
    return float(np.exp(np.interp(quality, qualities, np.log(rates)))), True


def ceiling_figure(
    curves: Mapping[str, Curve], ceilings: Mapping[str, float], *, logarithmic: bool = False
) -> Figure:
    """PSNR against bits per pixel by name, and ceilings by name as dashed lines across."""
    with style():
        figure = Figure(figsize=(8.2, 3.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, (rates, qualities)), colour in zip(curves.items(), COLOURS, strict=False):
            axes.plot(rates, qualities, "o-", color=colour, markersize=3.5, linewidth=1.6, label=name)
        for name, quality in ceilings.items():
            axes.axhline(quality, color=GREY, linestyle="--", linewidth=1.6, label=name)
        axes.set(xlabel="bits per pixel", ylabel="PSNR, dB")
        if logarithmic:
            axes.set_xscale("log")
        axes.legend(loc="lower right", fontsize=8.5)
    return figure


def level_figure(factors: np.ndarray, curves: Mapping[str, np.ndarray]) -> Figure:
    """What K = 1 gains over K = 0 in dB, (n,) by name, against the noise level that the U-Net was told, in
    multiples (n,) of Δ/√12.
    """
    with style():
        figure = Figure(figsize=(7.6, 3.3), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(1, color=GREY, linestyle="--", linewidth=1.1)
        for (name, values), colour in zip(curves.items(), COLOURS):
            axes.semilogx(factors, values, "o-", color=colour, markersize=4, label=name)
        axes.set_xticks(factors, [f"{factor:.3g}" for factor in factors], minor=False)
        axes.minorticks_off()
        axes.set(xlabel="noise level told, in multiples of Δ/√12", ylabel="gain over K = 0, dB")
        axes.legend(loc="best", fontsize=9)
    return figure


def _copied(model: DiffusionHyperprior) -> DiffusionHyperprior:
    """A copy of what is the codec's own; what it has borrowed is shared."""
    shared = [model.config, *(part.network for part in model.modules() if isinstance(part, Frozen))]
    return copy.deepcopy(model, {id(one): one for one in shared})


@torch.no_grad()
def without_adapter(model: DiffusionHyperprior) -> DiffusionHyperprior:
    """The codec with its adapter silenced: z and the symbols say nothing at the U-Net's input."""
    other = _copied(model)
    nn.init.zeros_(other.denoiser.adapter.exit.weight)
    nn.init.zeros_(other.denoiser.adapter.exit.bias)
    return other


@torch.no_grad()
def unet_alone(model: DiffusionHyperprior) -> DiffusionHyperprior:
    """The codec whose K = 1 is the U-Net's own estimate: no adapter, and no say for the guess from one latent
    alone.
    """
    other = without_adapter(model)
    other.denoiser.error[0] = SURE
    return other


def with_unet(model: DiffusionHyperprior, unet: nn.Module) -> DiffusionHyperprior:
    """The codec with another U-Net of the same latents and captions as its frozen one."""
    other = _copied(model)
    other.denoiser.unet = Frozen(copy.deepcopy(unet))
    return other


def weights_of(model: DiffusionHyperprior) -> tuple[int, int]:
    """The codec's own weights, which training may change and a checkpoint stores; and those of frozen
    networks, which it borrows.
    """
    borrowed = [part.network for part in model.modules() if isinstance(part, Frozen)]
    return sum(p.numel() for p in model.parameters()), sum(
        p.numel() for part in borrowed for p in part.parameters()
    )


def measured_removal(file: Path = RESULTS / "block_removal.json") -> Html:
    """What benchmarks/block_removal.py has found of smaller U-Nets before and after distillation, with the
    command that did.

    Raises:
        FileNotFoundError: it was not measured.
    """
    found, rows, reasons = json.loads(file.read_bytes()), [], ""
    for row in found["rows"]:
        if "reason" in row:
            reasons += "<br>" + html.escape(f"{row['teacher']}, {row['size']}: {row['reason']}")
            continue
        rows.append(
            [
                row["teacher"],
                row["size"],
                row["weights"],
                row["trained"],
                f"{row['parameters'] / 1e6:.2f} million",
                f"{median(row['step_seconds']):.3f}",
                f"{row['errors']['output']:.1e}",
                f"{row['placed']['all']['share']:.1%}",
                f"{row['matches']['all']['share']:.1%}",
            ]
        )
    header = [
        "teacher",
        "U-Net",
        "weights",
        "distilled on",
        "parameters",
        "s a step",
        "from teacher",
        "placed",
        "obeyed",
    ]
    place = found["environment"]
    told = (
        f"{place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, {place['date']}"
    )
    command = f"<p><code>{html.escape(found['command'])}</code><br>{html.escape(told)}{reasons}</p>"
    return Html(f"<div>{table_html(rows, header).text}{command}</div>")
