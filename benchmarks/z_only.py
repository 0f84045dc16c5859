"""Is a picture drawn from z alone better than a picture sent at as many bytes?

    python benchmarks/z_only.py [--z_model_path DIR] [--model_path DIR] [--data_path PHOTOS]
                                [--lambda_rates 3e-2,1e-2,3e-3] [--z_steps 0,1,4,16] [--steps 0,1,4]
                                [--seed 0] [--device cpu] [--threads 0] [--output data/results/z_only.json]

The codec of the first two seed projects sends z and nothing else (`transmit="z"`): the decoder draws y from
what z predicts, by diffusion from t = T. It writes a .dhp file for each photo and lambda. For each of these
files the z+y codec writes two: of the photo the largest that is no larger, found by trying lambdas up to 0.1,
where its range ends; and one of the photo shrunk until its file at lambda 0.1 is no larger, whose picture is
enlarged again. All are decoded, and measured alike. Without --data_path the photos are those that come with
scikit-image and scikit-learn.

| column   | meaning                                                                                     |
|----------|---------------------------------------------------------------------------------------------|
| bpp      | bits of the whole file a pixel, mean over the photos                                        |
| PSNR     | dB, mean over the photos                                                                    |
| MS-SSIM  | mean over the photos; left out where one has a side below 161 pixels                        |
| texture  | gradient energy over the photo's, mean over the photos; 1 is as much as the photo has       |
| fits     | photos whose file came out no larger than that of z; of the others the smallest is taken    |

K = 0 of the z codec is the picture of the mean that z predicts, K = 1 the denoiser's estimate from pure
noise, K > 1 a drawn sample. Of the z+y codec K = 1 is the posterior mean, and K > 1 a sample within the bins
that were sent; the shrunk photo has K = 1.

Prints a table, and writes it as JSON and Markdown.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from common import (
    ROOT,
    add_machine_options,
    command_line,
    heading,
    listed,
    load_codec,
    markdown_table,
    new_parser,
    page,
    photos_of,
    save,
    set_threads,
)
from torch import Tensor

from dhp_lab.codec import bitstream, dhp_file
from dhp_lab.codec.bits.lambdas import LAMBDA_MAX
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.environment import environment
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.core.settings import choose_device
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.images import MIN_SIDE
from dhp_lab.metrics.pixels import (
    MS_SSIM_MIN_SIDE,
    bits_per_pixel,
    gradient_energy_ratio,
    ms_ssim,
    psnr,
    round_to_8_bits,
)

FINEST = 1e-5  # the smallest lambda that is tried
NEAREST = 32  # lambda codes between which no further one is tried: a 64th of an octave
NAMES = {"z": "z alone", "z+y": "z + y, as many bytes", "shrunk": "z + y of a shrunk photo"}
SHRINK = 0.9  # from one size that is tried to the next
FIGURES = {  # title and decimals
    "bpp": ("bpp", 4),
    "psnr": ("PSNR", 2),
    "ms_ssim": ("MS-SSIM", 4),
    "texture": ("texture", 3),
}


def load_sender(folder: Path, transmit: str, device: torch.device) -> DiffusionHyperprior:
    """Return a model that sends what it should.

    Raises:
        SystemExit: there is no checkpoint, or it sends something else.
    """
    try:
        model = load_codec(folder, device)
    except CheckpointError as error:
        raise SystemExit(f"{error}; `dhp train --transmit {transmit} ...` makes one") from None
    if model.config.transmit != transmit:
        raise SystemExit(f"{folder} sends {model.config.transmit}, not {transmit}: name another checkpoint")
    return model


def shrunk_that_fits(model: DiffusionHyperprior, x: Tensor, n_bytes: int) -> tuple[bytes, Tensor]:
    """Return the file of the largest shrunk copy of x with at most ``n_bytes``, and its picture (K = 1)
    enlarged to x's size.

    Each copy has 0.9 of the sides of the one before; the last has a side of 16 pixels, which is taken where
    none fits.
    """
    size, scale, data = x.shape[-2:], SHRINK, b""
    while not data or (len(data) > n_bytes and scale * min(size) > MIN_SIDE):
        sides = [max(MIN_SIDE, round(scale * side)) for side in size]
        small = F.interpolate(x, size=sides, mode="bicubic", antialias=True).clamp(0, 1)
        data = dhp_file.encode(model, small, lambda_rate=LAMBDA_MAX)
        scale *= SHRINK
    return data, F.interpolate(decode(model, data, 1), size=size, mode="bicubic").clamp(0, 1)


def decode(model: DiffusionHyperprior, data: bytes, steps: int, seed: int = 0) -> Tensor:
    """Return a file's picture on the CPU."""
    return dhp_file.decode(model, data, steps=steps, seed=seed).float().cpu()


def photo_figures(x_hat: Tensor, x: Tensor, n_bytes: int) -> dict[str, float]:
    """Return the figures of one decoded photo."""
    found = {
        "bpp": bits_per_pixel(n_bytes, *x.shape[-2:]),
        "psnr": psnr(x_hat, x).item(),
        "texture": gradient_energy_ratio(x_hat, x).item(),
    }
    if min(x.shape[-2:]) >= MS_SSIM_MIN_SIDE:
        found["ms_ssim"] = ms_ssim(x_hat, x).item()
    return found


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Code and decode all photos by both codecs; return every figure."""
    device = choose_device(options.device)
    models = {
        "z": load_sender(options.z_model_path, "z", device),
        "z+y": load_sender(options.model_path, "z+y", device),
    }
    steps = {"z": options.z_steps, "z+y": options.steps}
    names, figures, sizes = [], defaultdict(list), defaultdict(list)
    for name, x in photos_of(options.data_path):
        for rate in options.lambda_rates:
            files = {"z": dhp_file.encode(models["z"], x, lambda_rate=rate)}
            limit = len(files["z"])
            search = {"least_lambda": FINEST, "code_step": NEAREST}
            files["z+y"] = dhp_file.encode_within(models["z+y"], x, limit, **search)
            zy_lambda = bitstream.read(files["z+y"]).lambda_rate
            for transmit, model in models.items():
                data = files[transmit]
                for k in steps[transmit]:
                    x_hat = round_to_8_bits(decode(model, data, k, options.seed))
                    figures[rate, transmit, k].append(photo_figures(x_hat, x, len(data)))
            files["shrunk"], x_hat = shrunk_that_fits(models["z+y"], x, limit)
            shrunk = photo_figures(round_to_8_bits(x_hat), x, len(files["shrunk"]))
            figures[rate, "shrunk", 1].append(shrunk)
            n_bytes = {sent: len(data) for sent, data in files.items()}
            sizes[rate].append({"picture": name, "bytes": n_bytes, "zy_lambda": zy_lambda})
        names.append(name)
    given = ["z_model_path", "model_path", "data_path", "lambda_rates", "z_steps", "steps", "seed"]
    return {
        "command": command_line(__file__, options, given),
        "models": {transmit: model.model_id.hex() for transmit, model in models.items()},
        "environment": environment(device),
        "pictures": names,
        "rows": average_rows(figures),
        "files": [{"lambda_rate": rate, "fits": fits(own), "pictures": own} for rate, own in sizes.items()],
    }


def average_rows(figures: dict[tuple[float, str, int], list[dict]]) -> list[dict]:
    """Return a row for each lambda, codec and K: the means of those figures that every photo has."""
    rows = []
    for (rate, transmit, k), own in figures.items():
        row = {"lambda_rate": rate, "transmit": transmit, "K": k}
        for name in FIGURES:
            if all(name in one for one in own):
                row[name] = fmean(one[name] for one in own)
        rows.append(row)
    return rows


def fits(sizes: list[dict]) -> dict[str, int]:
    """Return how many photos have a file that is no larger than that of z."""
    return {sent: sum(one["bytes"][sent] <= one["bytes"]["z"] for one in sizes) for sent in ("z+y", "shrunk")}


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    fitting = {
        (one["lambda_rate"], sent): f"{count} of {len(one['pictures'])}"
        for one in found["files"]
        for sent, count in one["fits"].items()
    }
    names = [name for name in FIGURES if all(name in row for row in found["rows"])]
    rows = []
    for row in found["rows"]:
        figures = [f"{row[name]:.{FIGURES[name][1]}f}" for name in names]
        fit = fitting.get((row["lambda_rate"], row["transmit"]), "")
        rows.append([f"{row['lambda_rate']:g}", NAMES[row["transmit"]], row["K"], *figures, fit])
    models = f"models {found['models']['z']} (z) and {found['models']['z+y']} (z+y)"
    heads = ["lambda of z", "codec", "K", *(FIGURES[name][0] for name in names), "fits"]
    return page(
        heading(found, f"{len(found['pictures'])} photos, {models}"), markdown_table(heads, rows, align="rlr")
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "z_only")
    parser.add_argument(
        "--z_model_path",
        type=Path,
        default=ROOT / "data" / "checkpoints" / "z-only",
        help="a checkpoint trained with --transmit z",
    )
    parser.add_argument("--model_path", type=Path, help="one that sends z+y; the shipped one if not given")
    parser.add_argument("--data_path", type=Path, help="folder of photos; those of the packages if not given")
    parser.add_argument(
        "--lambda_rates", type=listed(float), default=(3e-2, 1e-2, 3e-3), help="of the z codec"
    )
    parser.add_argument(
        "--z_steps", type=listed(int), default=(0, 1, 4, 16), help="numbers of diffusion steps of the z codec"
    )
    parser.add_argument("--steps", type=listed(int), default=(0, 1, 4), help="likewise of the z+y codec")
    parser.add_argument("--seed", type=int, default=0, help="of the noise that is drawn")
    add_machine_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    options.model_path = options.model_path or Path(default_checkpoint())
    set_threads(options)
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
