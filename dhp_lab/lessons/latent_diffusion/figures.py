"""The lesson's figures of scenes, latents and bits, measured tables, and the explorer's pure picture.

| function or class        | what it gives                                                                 |
|--------------------------|-------------------------------------------------------------------------------|
| `heat_figure`            | a picture, and a colour map of each word's attention                          |
| `compute_figure`         | caption accuracy over the operations that a picture takes                     |
| `latents_figure`         | histograms of two first stages' latents, and the use of the codes             |
| `rate_distortion_figure` | error against bits, from nothing received to the file without loss            |
| `measured_cost`          | what benchmarks/latent_cost.py has measured, as a table                       |
| `measured_accuracy`      | what benchmarks/caption_accuracy.py has measured, as a table                  |
| `SceneDraws`             | pictures for the explorer's caption, f, steps, guidance and seed              |
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.core.paths import RESULTS
from dhp_lab.data.images import to_pixels
from dhp_lab.data.scenes import check_captions
from dhp_lab.data.scenes.drawing import SIDE
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.notebook.digit_figures import GAP, LABEL
from dhp_lab.notebook.html import Html, Rendered, picture_bytes, table_html
from dhp_lab.notebook.results import read_results, source_html
from dhp_lab.notebook.scene_figures import scenes_figure
from dhp_lab.notebook.style import (
    BLUE,
    CHART_DPI,
    GREEN,
    GREY,
    LINE,
    ORANGE,
    SKY,
    enlarged,
    pixel_figure,
    place_axes,
    place_picture,
    place_title,
    style,
)

NAMES = {"pixels": "on pixels", "f4": "on latents, f = 4", "f8": "on latents, f = 8"}
CAPTIONS = (
    "a large red circle left of a small blue square",
    "a yellow triangle",
    "a small green circle above a purple square",
    "a cyan square right of a red triangle and a green circle",
    "a large purple triangle below a yellow circle and a blue square",
)
COLOURS = (BLUE, ORANGE, GREEN, SKY)
SIGNS = "sD^vPX"  # of single coders
COLUMNS, ZOOM = 6, 2  # of the explorer's picture
PICTURE = SIDE * ZOOM + GAP
SIZE = LABEL + COLUMNS * PICTURE - GAP, 2 * PICTURE - GAP


def heat_figure(
    picture: Tensor, maps: Tensor, words: Sequence[str], *, columns: int = 5, zoom: int = 3
) -> Figure:
    """A picture, and beside it a colour map for each word: attention over its mean over the places.

    All maps have one scale, which the bar at the right shows.

    Args:
        picture: (1, 3, H, W) in [0, 1].
        maps: (words, H, W), above 0.
        words: their titles.
        columns: panels in a row, the picture among them.
        zoom: dots a pixel at 96 dots an inch.
    """
    ratio = (maps / maps.mean((1, 2), keepdim=True)).cpu().numpy()
    side, rows = zoom * picture.shape[-1], -(-(len(words) + 1) // columns)
    above, bar = LINE + 8, 90
    figure = pixel_figure(columns * (side + GAP) + bar, rows * (side + above))
    for number in range(len(words) + 1):
        left, top = number % columns * (side + GAP), number // columns * (side + above) + above
        title = words[number - 1] if number else "the picture"
        place_title(figure, title, left, top - 5)
        if number == 0:
            place_picture(figure, enlarged(to_pixels(picture.cpu()), zoom), left, top)
            continue
        axes = place_axes(figure, left, top, side, side)
        drawn = axes.imshow(ratio[number - 1], cmap="magma", vmin=0, vmax=ratio.max(), aspect="auto")
        axes.set_axis_off()
    axes = place_axes(figure, columns * (side + GAP), above, 14, side)
    figure.colorbar(drawn, cax=axes, label="attention / its mean")
    return figure


def compute_figure(
    accuracy: Path = RESULTS / "caption_accuracy.json",
    cost: Path = RESULTS / "latent_cost.json",
    *,
    guidance: float = 4.0,
) -> Figure:
    """Caption accuracy over operations for a picture, with 95 % intervals, for both f, and of pixels.

    A picture takes two evaluations of the U-Net a step, and the decoder once. The line of the pixels is what
    their U-Net takes for one step.

    Raises:
        FileNotFoundError: it was not measured.
    """
    drawn, counts = read_results(accuracy), read_results(cost)["second"]
    with style():
        figure = Figure(figsize=(7.6, 3.4), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for f, colour in ((8, BLUE), (4, ORANGE)):
            count = counts[f"f{f}"]["count"]
            rows = [row for row in drawn["rows"] if row.get("f") == f and row["guidance"] == guidance]
            rows.sort(key=lambda row: row["steps"])
            across = [(2 * row["steps"] * count["evaluation"] + count["decoder"]) / 1e9 for row in rows]
            parts = [row["matches"]["all"] for row in rows]
            shares = np.array([part["share"] for part in parts])
            errors = shares - [part["low"] for part in parts], [part["high"] for part in parts] - shares
            axes.errorbar(
                across, shares, errors, fmt="o-", color=colour, capsize=3, label=f"latents, f = {f}"
            )
            for row, x, y in zip(rows, across, shares, strict=True):
                axes.annotate(
                    f"{row['steps']} steps", (x, y), (5, -11), textcoords="offset points", fontsize=8
                )
        pixels = 2 * counts["pixels"]["count"]["evaluation"] / 1e9
        axes.axvline(pixels, color=GREY, linestyle="--", label="pixels: a single step")
        axes.axvline(25 * pixels, color=GREY, linestyle=":", label="pixels: 25 steps")
        axes.set(xscale="log", xlabel="10⁹ operations for a picture", ylabel="captions that are matched")
        figure.legend(fontsize=8, loc="outside right upper")
    return figure


def latents_figure(kl: Tensor, vq: Tensor, counts: Tensor) -> Figure:
    """Histograms of KL-reg latents and of VQ-reg latents before the codebook, and the use of the codes.

    Args:
        kl, vq: any shapes; scaled to about variance 1.
        counts: (codes,) how often each code was chosen.
    """
    with style():
        figure = Figure(figsize=(9.4, 2.9), dpi=CHART_DPI, layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _draw_histogram(left, kl, BLUE, "KL-reg")
        _draw_histogram(middle, vq, ORANGE, "VQ-reg, before the codebook")
        left.set_ylabel("density")
        left.legend(loc="upper left", fontsize=8, handlelength=1.2)
        share = np.sort(counts.cpu().numpy())[::-1] / counts.sum().item()
        right.bar(np.arange(1, len(share) + 1), share, width=1.0, color=ORANGE)
        right.set(
            title="VQ-reg: use of the codes",
            xlabel="code, the most frequent first",
            ylabel="share of all places",
        )
    return figure


def _draw_histogram(axes: Axes, values: Tensor, colour: str, title: str) -> None:
    """A histogram of latents beside the standard normal density."""
    at = np.linspace(-4, 4, 161)
    normal = np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi)
    axes.hist(values.detach().flatten().cpu().numpy(), bins=at[::2], density=True, color=colour)
    axes.plot(at, normal, color=GREY, linestyle="--", linewidth=1.4, label="standard normal")
    axes.set(title=title, xlabel="a number of the latents, scaled", xlim=(-4, 4))


def rate_distortion_figure(
    curves: Mapping[str, tuple[Tensor, Tensor]],
    floors: Mapping[str, float],
    marks: Mapping[str, tuple[float, float]],
) -> Figure:
    """Error against bits for a picture, the bits on a logarithmic scale.

    Args:
        curves: (n,) bits and (n,) errors by name, four at most.
        floors: the error of a first stage by the name of its curve, drawn across in that curve's colour.
        marks: bits and error of single coders by name, six at most.
    """
    with style():
        figure = Figure(figsize=(8.2, 4.0), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        colours = dict(zip(curves, COLOURS[: len(curves)], strict=True))
        for name, (bits, errors) in curves.items():
            look = {"color": colours[name], "markersize": 3.5}
            axes.semilogx(bits, errors, "o-", **look, label=f"{name}: chain on latents")
        for name, error in floors.items():
            look = {"color": colours[name], "linestyle": "--", "linewidth": 1.1}
            axes.axhline(error, **look, label=f"{name}: first stage alone")
        for (name, (bits, error)), sign in zip(marks.items(), SIGNS[: len(marks)], strict=True):
            axes.plot(bits, error, sign, color=GREY, markersize=7, label=name, clip_on=False)
        axes.set(xlabel="bits for a picture", ylabel="error in grey levels (RMSE)")
        axes.set(xlim=(1, None), ylim=(0, None))
        axes.legend(loc="upper right", fontsize=8)
    return figure


def measured_cost(file: Path = RESULTS / "latent_cost.json") -> Html:
    """What benchmarks/latent_cost.py has measured of diffusion on pixels and on latents, with its command.

    Raises:
        FileNotFoundError: it was not measured.
    """
    found = read_results(file)
    models = list(found["second"].values())
    counts, trained, drawn = ([one[job] for one in models] for job in ("count", "train", "sample"))
    memory = [one["peak_memory_mb"] - one["idle_memory_mb"] for one in trained]
    rows = {
        "numbers in a picture": [" x ".join(map(str, one["shape"])) for one in counts],
        "parameters of the U-Net": [f"{one['parameters'] / 1e6:.2f} million" for one in counts],
        "10^9 operations, one evaluation, one picture": [f"{one['evaluation'] / 1e9:.2f}" for one in counts],
        f"seconds, a training step on {found['batch']} pictures": [
            f"{median(one['seconds']):.2f}" for one in trained
        ],
        "MB of memory in training": [f"{megabytes:.0f}" for megabytes in memory],
        f"seconds, a picture in {found['steps']} steps": [f"{median(one['seconds']):.2f}" for one in drawn],
        "seconds, its decoder": [f"{median(one['decoder_seconds']):.3f}" for one in drawn],
    }
    header = ["", *(NAMES.get(name, name) for name in found["second"])]
    return _with_source(found, table_html([[name, *cells] for name, cells in rows.items()], header))


def measured_accuracy(file: Path = RESULTS / "caption_accuracy.json") -> Html:
    """What benchmarks/caption_accuracy.py has measured of the shipped models and of drawn scenes, with its
    command.

    Raises:
        FileNotFoundError: it was not measured.
    """
    found = read_results(file)
    numbers = [name for name in found["rows"][0]["placed"] if name != "all"]  # of shapes in a caption
    rows = []
    for row in found["rows"]:
        setting = [f"{row['guidance']:g}", row["steps"]] if "f" in row else ["", ""]
        parts = [row["placed"]["all"], *(row["placed"][name] for name in numbers), row["matches"]["all"]]
        shares = ["-" if part is None else f"{part['share']:.1%}" for part in parts]
        rows.append([row["name"], *setting, *shares])
    kinds = [f"of {name}" for name in numbers]
    header = [f"{found['count']} captions", "guidance", "steps", "placed", *kinds, "match the caption"]
    return _with_source(found, table_html(rows, header))


def _with_source(found: dict, table: Html) -> Html:
    return Html(f"<div>{table.text}<p>{source_html(found)}</p></div>")


class SceneDraws:
    """Pictures for the lesson's explorer.

    Args:
        models: a latent diffusion model by name, such as "4" for f = 4.
    """

    def __init__(self, models: Mapping[str, LatentDiffusion]) -> None:
        self.models = models

    def render(self, *, caption: str, f: str, steps: int, guidance: float, seed: int) -> Rendered:
        """Six pictures of one caption, how the first of them came about, and whether they match.

        Args:
            caption: in the grammar's words.
            f: the model's name.
            steps: 1 or more.
            guidance: its scale, 0 or more.
            seed: of all noise.

        Raises:
            ValueError: a caption outside the grammar; the message lists its words.
        """
        model, captions = self.models[f], [caption] * COLUMNS
        states = list(model.states(captions, steps=steps, guidance=guidance, seed=seed))
        samples = model.pictures(states[-1].x).cpu()
        shown = [states[i] for i in np.linspace(0, steps - 1, COLUMNS).round().astype(int)]
        way = model.pictures(torch.cat([state.x0[:1] for state in shown]))
        rows = {"samples": samples, "the first one's way:\nestimates of the\nclean picture": way}
        picture = picture_bytes(scenes_figure(rows, zoom=ZOOM), compress_level=1)
        settings = f"f = {f}, {steps} steps, guidance {guidance:g}, seed {seed}"
        alt = f"Six pictures for '{caption}': {settings}; and how the first came about"
        return Rendered(picture, alt, self._text(samples, captions, settings))

    def _text(self, samples: Tensor, captions: Sequence[str], settings: str) -> str:
        checks = check_captions(samples, captions)
        rows = [[f"picture {i}", "; ".join(one.faults) or "matches"] for i, one in enumerate(checks, 1)]
        matching = sum(one.matches for one in checks)
        summary = f"{html.escape(settings)}: {matching} of {len(rows)} pictures match the caption."
        return f"<p>{summary}</p>{table_html(rows).text}"
