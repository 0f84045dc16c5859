"""What the lesson compares: measures of decoded pictures, crops to train on, and figures of Kodak."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dhp_lab.codec.denoising.residual_unet import Conditions, pixel_scale
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.core.paths import RESULTS
from dhp_lab.metrics.pixels import gradient_energy_ratio, psnr
from dhp_lab.metrics.rd_curves import bd_rate
from dhp_lab.training.realism_objective import decoded

Judges = Mapping[str, nn.Module]  # by name, as of `training.realism_validation.validation_judges`
FIGURES = {"psnr": ("PSNR", 2), "texture": ("texture", 2), "lpips": ("LPIPS", 3), "dists": ("DISTS", 3)}
MOST_STEPS = 4  # K of the rows that are shown
EVALUATIONS = {"an earlier codec": "fourth.json", "the codec of kodak.json": "kodak.json"}


@torch.no_grad()
def measures(x_hat: Tensor, x: Tensor, judges: Judges) -> dict[str, str]:
    """PSNR and texture of a picture, and what ``judges`` find, by name.

    Args:
        x_hat, x: (1, 3, H, W) in [0, 1]. judges: called as judge(x_hat, x).
    """
    found = {
        "PSNR, dB": f"{psnr(x_hat, x).item():.2f}",
        "texture": f"{gradient_energy_ratio(x_hat, x).item():.2f}",
    }
    return found | {name: f"{judge(x_hat, x).item():.3f}" for name, judge in judges.items()}


def noise_like(picture: Tensor, seed: int = 0) -> Tensor:
    """Standard normal noise like a picture."""
    return torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed)).to(picture)


def with_white_noise(conditions: Conditions, noise: Tensor) -> Tensor:
    """The picture of K = 1, and noise (1, 3, H, W) as strong as the expected error of each place."""
    return conditions.picture + pixel_scale(conditions.errors) * noise


# what a small realism part is trained on


@dataclass(frozen=True)
class Decoded:
    """A photo (1, 3, H, W), its sides multiples of 16, and what the decoder has of its file."""

    x: Tensor
    conditions: Conditions


def decoded_photo(model: DiffusionHyperprior, x: Tensor, lambda_rate: float) -> Decoded:
    """A photo (1, 3, H, W) as the realism part sees it after coding, cropped to sides that are multiples of
    64.
    """
    height, width = (length // 64 * 64 for length in x.shape[-2:])
    x = x[..., :height, :width]
    return Decoded(x, decoded(model, x, torch.full((1,), lambda_rate, device=x.device)))


def crop_batch(photos: Sequence[Decoded], number: int, *, count: int = 4, side: int = 64) -> Decoded:
    """Batch ``number`` of an endless, reproducible stream of crops.

    Args:
        photos: what they are cut out of. count: of crops. side: in pixels, a multiple of 16.
    """
    random, length, crops = np.random.default_rng(number), side // BLOCK, []
    for _ in range(count):
        photo = photos[random.integers(len(photos))]
        top, left = (int(random.integers(s - length + 1)) for s in photo.conditions.errors.shape[-2:])
        window = slice(top, top + length), slice(left, left + length)
        pixels = [slice(BLOCK * one.start, BLOCK * one.stop) for one in window]
        crops.append(Decoded(photo.x[..., pixels[0], pixels[1]], photo.conditions.window(*window)))
    parts = [
        torch.cat([getattr(crop.conditions, name) for crop in crops])
        for name in ("picture", "errors", "log2_delta")
    ]
    return Decoded(torch.cat([crop.x for crop in crops]), Conditions(*parts))


# what was measured on Kodak


def fidelity_rows(folder: Path = RESULTS) -> list[list[str]]:
    """BD-rates of K = 1 on Kodak, a row for each codec and control: name, settings, against what, per cent.

    Raises:
        FileNotFoundError: a result is not there.
    """
    rows = []
    for name, file in EVALUATIONS.items():
        found = json.loads((folder / file).read_text())
        zero, one = (_curve(found["points"], f"dhp K={k}") for k in (0, 1))
        config = {"passes": 1, "dead_zone": 0, "trellis": False} | found["about"]["config"]
        quantiser = "trellis" if config["trellis"] else f"dead zone {config['dead_zone']:g}"
        settings = f"{quantiser}, passes: {config['passes']}"
        rows.append([name, settings, "K = 0", f"{bd_rate(zero, one).percent:+.1f} %"])
    for comparison in json.loads((folder / "denoiser.json").read_text())["comparisons"]:
        if comparison["anchor"] != "K = 0":
            percent = comparison["bd_rate"]["percent"]
            rows.insert(1, [next(iter(EVALUATIONS)), rows[0][1], comparison["anchor"], f"{percent:+.1f} %"])
    return rows


def _curve(points: Sequence[dict], codec: str) -> tuple[list[float], list[float]]:
    own = [point for point in points if point["codec"] == codec]
    return [point["bpp"] for point in own], [point["psnr"] for point in own]


def realism_rows(file: Path = RESULTS / "realism.json") -> list[list[str]]:
    """The header, and means over Kodak's photos: a row for each lambda, decoder and K up to MOST_STEPS,
    without blends.

    Raises:
        FileNotFoundError: ``benchmarks/realism.py`` has not run.
    """
    found = json.loads(file.read_text())
    rows = [*found["rows"], *found.get("controls", [])]
    rows = [row for row in rows if not row["gamma"] and (row["K"] or 0) <= MOST_STEPS]
    names = [name for name in FIGURES if all(name in row for row in rows)]
    header = ["λ", "bits per pixel", "decoder", *(FIGURES[name][0] for name in names)]
    lines = [
        [
            f"{row['lambda_rate']:g}",
            f"{row['bpp']:.3f}",
            _decoder(row),
            *(f"{row[name]:.{FIGURES[name][1]}f}" for name in names),
        ]
        for row in sorted(rows, key=lambda row: -row["lambda_rate"])
    ]
    return [header, *lines]


def _decoder(row: dict) -> str:
    """What decoded it, with its K where it has a choice; controls without a network have none."""
    name, steps = row["decoder"], row["K"]
    return f"{name}, K = {steps}" if steps is not None and steps > 1 else name
