"""Lesson 05: scenes, latents and bits as figures, measured tables, and the explorer's pure picture.

| function or class        | what it gives                                                                     |
|--------------------------|-----------------------------------------------------------------------------------|
| `scenes_figure`          | rows of colour pictures with labels and titles                                    |
| `overlay`                | a map laid over a picture: bright where it is great                               |
| `latents_figure`         | what two first stages make of pictures: histograms of latents, use of the codes   |
| `rate_distortion_figure` | error against bits, from nothing received to the file without loss                |
| `file_bits`              | the bits of a real file of a picture                                              |
| `measured_cost`          | what benchmarks/latent_cost.py has found, as a table                              |
| `measured_accuracy`      | what benchmarks/caption_accuracy.py has found, as a table                         |
| `SceneDraws`             | pictures for the explorer's caption, f, steps, guidance and seed                  |
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.core.paths import RESULTS
from dhp_lab.data.scenes import check_captions
from dhp_lab.data.scenes.drawing import SIDE
from dhp_lab.notebook.digit_figures import GAP, LABEL
from dhp_lab.notebook.html import Html, Rendered, picture_bytes, table_html
from dhp_lab.notebook.scene_figures import scenes_figure
from dhp_lab.notebook.style import BLUE, CHART_DPI, GREEN, GREY, ORANGE, SKY, style

if TYPE_CHECKING:
    from dhp_lab.latent.pipeline import LatentDiffusion

NAMES = {"pixels": "on pixels", "f4": "on latents, f = 4", "f8": "on latents, f = 8"}
CAPTIONS = (
    "a large red circle left of a small blue square",
    "a yellow triangle",
    "a small green circle above a purple square",
    "a cyan square right of a red triangle and a green circle",
    "a large purple triangle below a yellow circle and a blue square",
)
COLUMNS, ZOOM = 6, 2  # of the explorer's picture
SIZE = LABEL + COLUMNS * (SIDE * ZOOM + GAP) - GAP, 2 * (SIDE * ZOOM + GAP) - GAP


def overlay(pictures: Tensor, maps: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1]: pictures seen through their maps, dark where a map is least, as they are where
    it is greatest.

    Args:
        pictures: (B, 3, H, W) or (1, 3, H, W) in [0, 1]. maps: (B, H, W); a map that is the same everywhere
            is dark.
    """
    least, greatest = (
        extreme[:, None, None] for extreme in (maps.flatten(1).amin(1), maps.flatten(1).amax(1))
    )
    share = (maps - least) / (greatest - least).clamp(min=1e-12)
    return pictures.cpu() * (0.15 + 0.85 * share[:, None])


def latents_figure(kl: Tensor, vq: Tensor, counts: Tensor) -> Figure:
    """Histograms of scaled KL-reg latents and of VQ-reg latents before the codebook, and how often each code
    is used.

    Args:
        kl, vq: any shapes; about variance 1.
        counts: (codes,) how often each code was chosen.
    """
    with style():
        figure = Figure(figsize=(9.4, 2.9), dpi=CHART_DPI, layout="constrained")
        panels, at = figure.subplots(1, 3), np.linspace(-4, 4, 161)
        bell = np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi)
        for axes, values, name, colour in zip(
            panels, (kl, vq), ("KL-reg", "VQ-reg, before the codebook"), (BLUE, ORANGE)
        ):
            axes.hist(values.detach().flatten().cpu().numpy(), bins=at[::2], density=True, color=colour)
            axes.plot(at, bell, color=GREY, linestyle="--", linewidth=1.4, label="standard normal")
            axes.set(title=name, xlabel="a number of the latents, scaled", xlim=(-4, 4))
        panels[0].set_ylabel("density")
        panels[0].legend(loc="upper left", fontsize=8, handlelength=1.2)
        share = np.sort(counts.cpu().numpy())[::-1] / counts.sum().item()
        panels[2].bar(np.arange(1, len(share) + 1), share, width=1.0, color=ORANGE)
        panels[2].set(
            title="VQ-reg: use of the codes",
            xlabel="code, the most frequent first",
            ylabel="share of all places",
        )
    return figure


def rate_distortion_figure(
    curves: Mapping[str, tuple[Tensor, Tensor]],
    floors: Mapping[str, float],
    marks: Mapping[str, tuple[float, float]],
) -> Figure:
    """Error against bits for a picture, the bits on a logarithmic scale.

    Args:
        curves: (n,) bits and (n,) errors by name.
        floors: the error of a first stage by the name of its curve, drawn across in that curve's colour.
        marks: bits and error of single coders by name.
    """
    with style():
        figure = Figure(figsize=(8.2, 4.0), dpi=CHART_DPI, layout="constrained")
        axes, colours = figure.add_subplot(), dict(zip(curves, (BLUE, ORANGE, GREEN, SKY)))
        for name, (bits, errors) in curves.items():
            axes.semilogx(
                bits, errors, "o-", color=colours[name], markersize=3.5, label=f"{name}: chain on latents"
            )
        for name, error in floors.items():
            axes.axhline(
                error, color=colours[name], linestyle="--", linewidth=1.1, label=f"{name}: first stage alone"
            )
        for (name, (bits, error)), sign in zip(marks.items(), "sD^vPX"):
            axes.plot(bits, error, sign, color=GREY, markersize=7, label=name, clip_on=False)
        axes.set(
            xlabel="bits for a picture", ylabel="error in grey levels (RMSE)", xlim=(1, None), ylim=(0, None)
        )
        axes.legend(loc="upper right", fontsize=8)
    return figure


def measured_cost(file: Path = RESULTS / "latent_cost.json") -> Html:
    """What benchmarks/latent_cost.py has found of diffusion on pixels and on latents, with the command that
    did.
    """
    found = json.loads(file.read_bytes())
    columns = list(found["second"].values())
    counts, trained, drawn = ([one[job] for one in columns] for job in ("count", "train", "sample"))
    rows = [
        ["numbers in a picture", *(" x ".join(map(str, one["shape"])) for one in counts)],
        ["parameters of the U-Net", *(f"{one['parameters'] / 1e6:.2f} million" for one in counts)],
        ["10^9 operations, one call, one picture", *(f"{one['evaluation'] / 1e9:.2f}" for one in counts)],
        [
            f"seconds, a training step on {found['batch']} pictures",
            *(f"{median(one['seconds']):.2f}" for one in trained),
        ],
        [
            "MB of memory in training",
            *(f"{one['peak_memory_mb'] - one['idle_memory_mb']:.0f}" for one in trained),
        ],
        [
            f"seconds, a picture in {found['steps']} steps",
            *(f"{median(one['seconds']):.2f}" for one in drawn),
        ],
        ["seconds, its decoder", *(f"{median(one['decoder_seconds']):.3f}" for one in drawn)],
    ]
    return _with_its_command(
        found, table_html(rows, ["", *(NAMES.get(name, name) for name in found["second"])])
    )


def measured_accuracy(file: Path = RESULTS / "caption_accuracy.json") -> Html:
    """What benchmarks/caption_accuracy.py has found of the shipped models and of drawn scenes, with the
    command that did.
    """
    found, rows = json.loads(file.read_bytes()), []
    for row in found["rows"]:
        kinds = [part for name, part in row["placed"].items() if name != "all"]
        parts = [row["placed"]["all"], *kinds, row["matches"]["all"]]
        setting = [f"{row['guidance']:g}", row["steps"]] if "f" in row else ["", ""]
        rows.append(
            [row["name"], *setting, *("-" if part is None else f"{part['share']:.1%}" for part in parts)]
        )
    counts = [name for name in found["rows"][0]["placed"] if name != "all"]
    header = [
        f"{found['count']} captions",
        "guidance",
        "steps",
        "placed",
        *(f"of {name}" for name in counts),
        "obeyed",
    ]
    return _with_its_command(found, table_html(rows, header))


def _with_its_command(found: dict, table: Html) -> Html:
    place = found["environment"]
    text = (
        f"{place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, {place['date']}"
    )
    return Html(
        f"<div>{table.text}<p><code>{html.escape(found['command'])}</code><br>{html.escape(text)}</p></div>"
    )


class SceneDraws:
    """Pictures as the explorer of lesson 05 asks for them.

    Args:
        models: a latent diffusion model by name, such as "4" for f = 4.
    """

    def __init__(self, models: Mapping[str, LatentDiffusion]) -> None:
        self.models = models

    def render(self, *, caption: str, f: str, steps: int, guidance: float, seed: int) -> Rendered:
        """Six pictures of one caption, how the first of them came about, and what the judge says.

        Raises:
            ValueError: a caption outside the grammar; the message says what it knows.
        """
        model, captions = self.models[f], [caption] * COLUMNS
        states = list(model.states(captions, steps=steps, guidance=guidance, seed=seed))
        samples = model.pictures(states[-1].x).cpu()
        chosen = [states[i] for i in np.linspace(0, steps - 1, COLUMNS).round().astype(int)]
        way = model.pictures(torch.cat([state.x0[:1] for state in chosen]))
        rows = {"samples": samples, "the first one's way:\nguesses of the clean\npicture": way}
        picture = picture_bytes(scenes_figure(rows, zoom=ZOOM), compress_level=1)
        settings = f"f = {f}, {steps} steps, guidance {guidance:g}, seed {seed}"
        alt = f"Six pictures for '{caption}': {settings}; and how the first came about"
        return Rendered(picture, alt, self._text(samples, captions, settings))

    def _text(self, samples: Tensor, captions: Sequence[str], settings: str) -> str:
        checks = check_captions(samples, captions)
        rows = [
            [f"picture {i}", "; ".join(check.faults) or "obeys"] for i, check in enumerate(checks, 1)
        ]
        obeyed = sum(check.matches for check in checks)
        return (
            f"<p>{html.escape(settings)}: {obeyed} of {len(rows)} pictures obey the caption.</p>"
            + table_html(rows).text
        )
