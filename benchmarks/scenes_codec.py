"""What is a borrowed U-Net worth as a codec's denoiser, and what does z add to it?

    python benchmarks/scenes_codec.py [--model_path DIR] [--variant NAME=DIR ...] [--count 128] [--seed 20000]
                                      [--lambda_rates 1e-1,3e-2,1e-2,3e-3,1e-3] [--steps 0,1,2,4,8]
                                      [--device cpu] [--threads 0] [--output data/results/scenes_codec.json]

The codec is the one around the latent diffusion model of lesson 06 (`data/checkpoints/scenes-codec`); the
pictures are drawn scenes that it was not trained on. Each is written as a whole .dhp file, whose header and
side information take 48 bytes: 0.09 bpp of these small pictures. A variant is another checkpoint of the same
codec, measured at K = 1 alone: for instance one whose adapter was held at zero while it was trained.

| column     | meaning                                                                                      |
|------------|----------------------------------------------------------------------------------------------|
| bytes, bpp | of the whole file, mean over the pictures                                                    |
| PSNR       | dB, mean over the pictures                                                                   |
| texture    | gradient energy over the picture's, mean over the pictures                                   |
| shown      | share of the decoded pictures in which all that their captions say is still recognised       |
| BD-rate    | by PSNR, against K = 0 of the same checkpoint                                                |

The last line is the ceiling: the VAE alone, nothing rounded. Prints tables, and writes them as JSON and
Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import torch
from common import (
    ROOT,
    add_machine_options,
    bd_rate_or_reason,
    command_line,
    heading,
    listed,
    load_codec,
    markdown_table,
    new_parser,
    page,
    percent_cell,
    save,
    set_threads,
)
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.core.environment import environment
from dhp_lab.core.settings import choose_device
from dhp_lab.data.scenes import batch, caption_accuracy
from dhp_lab.metrics.pixels import gradient_energy_ratio, psnr, round_to_8_bits
from dhp_lab.metrics.rd_curves import Curve

SCENES_CODEC = ROOT / "data" / "checkpoints" / "scenes-codec"
OF_VARIANTS = (0, 1)  # K


def figures_of(x_hat: Tensor, x: Tensor, captions: list[str]) -> dict[str, float]:
    """Return the figures of decoded pictures (B, 3, 64, 64)."""
    x_hat = round_to_8_bits(x_hat).clamp(0, 1)
    pairs = [(a[None], b[None]) for a, b in zip(x_hat, x, strict=True)]
    return {
        "psnr": fmean(psnr(*pair).item() for pair in pairs),
        "texture": fmean(gradient_energy_ratio(*pair).item() for pair in pairs),
        "shown": caption_accuracy(x_hat, captions),
    }


def measure_codec(folder: Path, steps: tuple[int, ...], options: argparse.Namespace) -> list[dict]:
    """Return a checkpoint's figures, one row for each lambda and K."""
    model = load_codec(folder, choose_device(options.device))
    x, captions = batch(options.count, options.seed)
    rows = []
    for rate in options.lambda_rates:
        files = dhp_file.encode_batch(model, x, lambda_rate=rate)
        size = fmean(len(data) for data in files)
        for k in steps:
            x_hat = dhp_file.decode_batch(model, files, steps=k).float().cpu()
            row = {"lambda_rate": rate, "K": k, "bytes": size, "bpp": 8 * size / x[0, 0].numel()}
            rows.append(row | figures_of(x_hat, x, captions))
    return rows


@torch.no_grad()
def measure_vae(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the figures of the VAE alone."""
    model = load_codec(folder)
    x, captions = batch(options.count, options.seed)
    zero = torch.zeros(len(x))
    x_hat = model.synthesise(model.analyse(x, zero), zero, x.shape[-2:]).clamp(0, 1)
    return figures_of(x_hat, x, captions)


def gains(rows: list[dict]) -> dict[str, dict]:
    """Return the BD-rate of each K above 0 against K = 0, and its PSNR above that of K = 0 at each lambda."""
    curves: dict[int, Curve] = {}
    values: dict[int, dict[str, float]] = {}
    for row in rows:
        rates, psnrs = curves.setdefault(row["K"], ([], []))
        rates.append(row["bpp"])
        psnrs.append(row["psnr"])
        values.setdefault(row["K"], {})[f"{row['lambda_rate']:g}"] = row["psnr"]
    above = sorted(set(curves) - {0})
    return {
        "bd_rate": {k: bd_rate_or_reason(curves[0], curves[k]) for k in above},
        "psnr": {k: {rate: value - values[0][rate] for rate, value in values[k].items()} for k in above},
    }


def figure_table(found: dict) -> str:
    """Return the table of every lambda and K."""
    rows = []
    for row in found["rows"]:
        setting = [f"{row['lambda_rate']:g}", f"{row['bytes']:.0f}", f"{row['bpp']:.3f}", row["K"]]
        rows.append([*setting, *figure_cells(row)])
    rows.append(["the VAE alone", "", "", "", *figure_cells(found["ceiling"])])
    return markdown_table(["lambda", "bytes", "bpp", "K", "PSNR", "texture", "shown"], rows, align="r")


def figure_cells(row: dict) -> list[str]:
    """Return the cells of the figures."""
    return [f"{row['psnr']:.2f}", f"{row['texture']:.2f}", f"{row['shown']:.1%}"]


def gain_table(found: dict) -> str:
    """Return the table of what K brings."""
    rows = []
    for name, own in found["gains"].items():
        for k, gain in own["bd_rate"].items():
            psnrs = [f"{rate}: {value:+.2f}" for rate, value in own["psnr"][k].items()]
            rows.append([name, k, percent_cell(gain), ", ".join(psnrs)])
    heads = ["checkpoint", "K", "BD-rate", "PSNR of K above K = 0, by lambda"]
    return markdown_table(heads, rows, align="lrrl")


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    return page(heading(found, f"{found['pictures']} scenes"), figure_table(found), gain_table(found))


def variant(text: str) -> tuple[str, Path]:
    """Read NAME=DIR."""
    name, _, folder = text.partition("=")
    if not folder:
        raise argparse.ArgumentTypeError(f"a variant is NAME=DIR, got '{text}'")
    return name, Path(folder)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "scenes_codec")
    parser.add_argument("--model_path", type=Path, default=SCENES_CODEC)
    parser.add_argument(
        "--variant", type=variant, action="append", default=[], help="NAME=DIR, another checkpoint"
    )
    parser.add_argument("--count", type=int, default=128, help="of scenes")
    parser.add_argument("--seed", type=int, default=20000, help="of the scenes")
    parser.add_argument("--lambda_rates", type=listed(float), default=(1e-1, 3e-2, 1e-2, 3e-3, 1e-3))
    parser.add_argument("--steps", type=listed(int), default=(0, 1, 2, 4, 8), help="K, 0 among them")
    add_machine_options(parser)
    return parser


def command(options: argparse.Namespace) -> str:
    """Return the command that measures the same again."""
    line = command_line(__file__, options, ["model_path", "count", "seed", "lambda_rates", "steps"])
    variants = [f' --variant "{name}={folder.absolute().name}"' for name, folder in options.variant]
    return line + "".join(variants)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    rows = measure_codec(options.model_path, options.steps, options)
    others = {name: gains(measure_codec(folder, OF_VARIANTS, options)) for name, folder in options.variant}
    found = {
        "command": command(options),
        "environment": environment(choose_device(options.device)),
        "pictures": options.count,
        "rows": rows,
        "ceiling": measure_vae(options.model_path, options),
        "gains": {options.model_path.resolve().name: gains(rows), **others},
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
