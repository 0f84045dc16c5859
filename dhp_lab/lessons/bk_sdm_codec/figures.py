"""The lesson's figures: a VAE's ceiling, the U-Net alone and with help, blocks removed.

| function or class    | what it gives                                                                     |
|----------------------|-----------------------------------------------------------------------------------|
| `first_rate`         | the rate from which a curve is better than a ceiling                              |
| `ceiling_figure`     | rate-distortion curves, and the ceilings that they cannot cross                   |
| `level_figure`       | the gain against the noise level given to the U-Net                               |
| `without_adapter`    | a codec whose U-Net sees the state alone                                          |
| `unet_alone`         | a codec whose K = 1 is the U-Net's estimate, and nothing else                     |
| `with_unet`          | a codec with another U-Net in the place of its own                                |
| `weights_of`         | the numbers of a codec's own weights and of borrowed ones                         |
| `removal_table`      | what benchmarks/small_teachers.py has measured of removed blocks, as a table      |
| `removal_figure`     | the same as points with intervals                                                 |

The explorer's picture is in ``coded_scenes``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.stable_diffusion.networks import Frozen
from dhp_lab.core.paths import RESULTS
from dhp_lab.latent.block_removal import SIZES
from dhp_lab.metrics.rd_curves import Curve
from dhp_lab.notebook.html import Html, table_html
from dhp_lab.notebook.results import read_results, source_html
from dhp_lab.notebook.style import AMBER, BLUE, CHART_DPI, GREEN, GREY, ORANGE, PURPLE, SKY, style

COLOURS = (BLUE, ORANGE, GREEN, SKY, PURPLE, AMBER)
LOG_RATES = (0.05, 0.1, 0.2, 0.5, 1.0)  # named on a logarithmic axis
SMALL_TEACHERS = RESULTS / "small_teachers.json"
RANGES = {"all": "all times", "codec": "the codec's times"}  # of small_teachers.py
STATE_COLOURS = {"trained on": GREY, "cut": ORANGE, "distilled": BLUE, "new weights": PURPLE}
LEAST_LOG_ERROR = -20.0  # of the U-Net: with inverse-variance weighting nothing else counts


def first_rate(curve: Curve, quality: float) -> tuple[float, bool]:
    """The rate at which a curve reaches a quality, interpolated over the logarithm of the rate.

    Args:
        curve: rates and qualities in any order.
        quality: in the curve's unit.

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
    """PSNR against bits per pixel, and ceilings as dashed lines across.

    Args:
        curves: bits per pixel and dB by name, six at most.
        ceilings: dB by name.
        logarithmic: of the rate's axis.
    """
    with style():
        figure = Figure(figsize=(8.2, 3.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, (rates, qualities)), colour in zip(curves.items(), COLOURS[: len(curves)], strict=True):
            axes.plot(rates, qualities, "o-", color=colour, markersize=3.5, linewidth=1.6, label=name)
        for name, quality in ceilings.items():
            axes.axhline(quality, color=GREY, linestyle="--", linewidth=1.6, label=name)
        axes.set(xlabel="bits per pixel", ylabel="PSNR, dB")
        if logarithmic:
            axes.set_xscale("log")
            axes.set_xticks(LOG_RATES, [f"{rate:g}" for rate in LOG_RATES])
            axes.minorticks_off()
        axes.legend(loc="lower right", fontsize=8.5)
    return figure


def level_figure(factors: np.ndarray, curves: Mapping[str, np.ndarray]) -> Figure:
    """The gain of K = 1 over K = 0 against the noise level given to the U-Net.

    Args:
        factors: (n,) noise levels in multiples of Δ/√12.
        curves: (n,) gains in dB by name, six at most.
    """
    with style():
        figure = Figure(figsize=(7.6, 3.3), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(1, color=GREY, linestyle="--", linewidth=1.1)
        for (name, values), colour in zip(curves.items(), COLOURS[: len(curves)], strict=True):
            axes.semilogx(factors, values, "o-", color=colour, markersize=4, label=name)
        axes.set_xticks(factors, [f"{factor:.3g}" for factor in factors], minor=False)
        axes.minorticks_off()
        axes.set(xlabel="noise level given, in multiples of Δ/√12", ylabel="gain over K = 0, dB")
        axes.legend(loc="best", fontsize=9)
    return figure


def _copied(model: DiffusionHyperprior) -> DiffusionHyperprior:
    """A copy of the codec's own weights; borrowed networks are shared."""
    shared = [model.config, *(part.network for part in model.modules() if isinstance(part, Frozen))]
    return copy.deepcopy(model, {id(one): one for one in shared})


@torch.no_grad()
def without_adapter(model: DiffusionHyperprior) -> DiffusionHyperprior:
    """The codec with its adapter set to zero: z and the symbols do not reach the U-Net's input."""
    other = _copied(model)
    nn.init.zeros_(other.denoiser.adapter.exit.weight)
    nn.init.zeros_(other.denoiser.adapter.exit.bias)
    return other


@torch.no_grad()
def unet_alone(model: DiffusionHyperprior) -> DiffusionHyperprior:
    """The codec whose K = 1 is the U-Net's own estimate: no adapter, no weight for the single-latent
    posterior.
    """
    other = without_adapter(model)
    other.denoiser.error[0] = LEAST_LOG_ERROR
    return other


def with_unet(model: DiffusionHyperprior, unet: nn.Module) -> DiffusionHyperprior:
    """The codec with another U-Net of the same latents and captions as its frozen one."""
    other = _copied(model)
    other.denoiser.unet = Frozen(copy.deepcopy(unet))
    return other


def weights_of(model: DiffusionHyperprior) -> tuple[int, int]:
    """How many weights a codec has.

    Returns:
        Its own, which training may change and a checkpoint stores; and those of frozen networks, which it
        borrows.
    """
    frozen = [part.network for part in model.modules() if isinstance(part, Frozen)]
    own = sum(p.numel() for p in model.parameters())
    borrowed = sum(p.numel() for network in frozen for p in network.parameters())
    return own, borrowed


def removal_table(file: Path = SMALL_TEACHERS) -> Html:
    """What benchmarks/small_teachers.py has measured of smaller U-Nets, with its command.

    Raises:
        FileNotFoundError: it was not measured.
    """
    found = read_results(file)
    rows = []
    for line in found["summary"]:
        cells = [f"{line['size']}, {line['state']}", f"{line['parameters']:,}"]
        for name in RANGES:
            half = line[name]["half"]  # of the interval over seeds; None for one seed
            spread = "" if half is None else f" ± {half:.1f}"
            change = f"{line[name]['change']:+.1f}{spread} %"
            cells += [f"{line[name]['error']:.3f}", "" if line["state"] == "the teacher" else change]
        rows.append(cells)
    heads = [words for name in RANGES.values() for words in (f"error, {name}", "against its teacher")]
    table = table_html(rows, ["U-Net", "parameters", *heads]).text
    notes = f"{source_html(found)}; seeds measured: {', '.join(map(str, found['seeds']))}"
    return Html(f"<div>{table}<p>{notes}</p></div>")


def removal_figure(file: Path = SMALL_TEACHERS) -> Figure:
    """The change of each smaller U-Net's error against its own teacher's: each seed, and 95 % intervals.

    Raises:
        FileNotFoundError: it was not measured.
    """
    lines = [line for line in read_results(file)["summary"] if line["state"] != "the teacher"]
    lines.sort(key=lambda line: (line["state"] != "trained on", SIZES.index(line["size"])))
    with style():
        figure = Figure(figsize=(8.6, 3.6), dpi=CHART_DPI, layout="constrained")
        both = figure.subplots(1, len(RANGES), sharey=True)
        for axes, (name, words) in zip(both, RANGES.items(), strict=True):
            axes.axvline(0, color=GREY, linestyle="--", linewidth=1.1)
            for place, line in enumerate(lines):
                part, colour = line[name], STATE_COLOURS[line["state"]]
                axes.errorbar(part["change"], place, xerr=part["half"] or 0, fmt="o", color=colour, capsize=4)
                axes.plot(part["changes"], [place] * len(part["changes"]), "|", color=colour, markersize=11)
            axes.set(title=words, xlabel="error of v against its teacher's, %")
        both[0].set_yticks(range(len(lines)), [f"{line['size']}, {line['state']}" for line in lines])
        both[0].invert_yaxis()
    return figure
