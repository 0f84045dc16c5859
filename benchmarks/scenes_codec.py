"""What is a borrowed U-Net worth as a codec's denoiser, and what does z add to it?

    python benchmarks/scenes_codec.py [--model_path DIR] [--variant NAME=DIR ...] [--count 128] [--seed 20000]
                                      [--lambda_rates 1e-1,3e-2,1e-2,3e-3,1e-3] [--steps 0,1,2,4,8]
                                      [--device cpu] [--threads 0] [--output data/results/scenes_codec.json]

The codec is the one around the latent diffusion model of lesson 05 (`data/checkpoints/scenes-codec`); the
pictures are drawn scenes that it never saw. Each is written as a whole .dhp file, whose header and side
information take 48 bytes: 0.09 bpp of these small pictures. A variant is another checkpoint of the same
codec, measured at K = 1 alone: for instance one whose adapter was held at nothing while it was trained.

| column     | meaning                                                                                              |
|------------|------------------------------------------------------------------------------------------------------|
| bytes, bpp | of the whole file, mean over the pictures                                                            |
| PSNR       | dB, mean over the pictures                                                                           |
| texture    | gradient energy over the picture's, mean over the pictures                                           |
| shown      | share of the decoded pictures in which all that their captions ask for is still recognised           |
| BD-rate    | by PSNR, against K = 0 of the same checkpoint                                                        |

The last line is the ceiling: the VAE alone, nothing rounded. Prints tables, and writes them as JSON and
Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import torch
from realism import listed
from saving import save
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.environment import environment
from dhp_lab.core.settings import choose_device
from dhp_lab.data.scenes import batch, caption_accuracy
from dhp_lab.metrics.pixels import gradient_energy_ratio, psnr, round_to_8_bits
from dhp_lab.metrics.rd_curves import bd_rate

ROOT = Path(__file__).resolve().parents[1]


def judged(x_hat: Tensor, x: Tensor, captions: list[str]) -> dict[str, float]:
    """Return what is said of decoded pictures (B, 3, 64, 64)."""
    x_hat = round_to_8_bits(x_hat)
    pairs = [(a[None], b[None]) for a, b in zip(x_hat, x, strict=True)]
    return {
        "psnr": mean(float(psnr(*pair)) for pair in pairs),
        "texture": mean(float(gradient_energy_ratio(*pair)) for pair in pairs),
        "shown": caption_accuracy(x_hat.clamp(0, 1), captions),
    }


def curve(folder: Path, steps: tuple[int, ...], options: argparse.Namespace) -> list[dict]:
    """Return a checkpoint's figures, one row for each lambda and K."""
    device = choose_device(options.device)
    model = DiffusionHyperprior.from_pretrained(folder).to(device)
    x, captions = batch(options.count, options.seed)
    rows = []
    for rate in options.lambda_rates:
        files = dhp_file.encode_batch(model, x, lambda_rate=rate)
        size = mean(len(data) for data in files)
        for k in steps:
            x_hat = dhp_file.decode_batch(model, files, steps=k).float().cpu()
            row = {"lambda_rate": rate, "K": k, "bytes": size, "bpp": 8 * size / x[0, 0].numel()}
            rows.append(row | judged(x_hat, x, captions))
    return rows


def ceiling(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the figures of the VAE alone."""
    model = DiffusionHyperprior.from_pretrained(folder)
    x, captions = batch(options.count, options.seed)
    with torch.no_grad():
        zero = torch.zeros(len(x))
        return judged(model.synthesise(model.analyse(x, zero), zero, x.shape[-2:]).clamp(0, 1), x, captions)


def gains(rows: list[dict]) -> dict[int, dict]:
    """Return the BD-rate of each K above 0 against K = 0."""
    found, curves = {}, {}
    for row in rows:
        rates, values = curves.setdefault(row["K"], ([], []))
        rates.append(row["bpp"])
        values.append(row["psnr"])
    for k in sorted(set(curves) - {0}):
        try:
            found[k] = asdict(bd_rate(curves[0], curves[k]))
        except ValueError as error:
            found[k] = {"percent": None, "reason": str(error)}
    return found


def percent(one: dict | None) -> str:
    """Return a BD-rate in words."""
    return "-" if one is None or one["percent"] is None else f"{one['percent']:+.1f} %"


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    place = found["environment"]
    lines = [
        f"`{found['command']}`: {found['pictures']} scenes; {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, "
        f"{place['date']}",
        "",
        "| lambda | bytes | bpp | K | PSNR | texture | shown |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['lambda_rate']:g} | {row['bytes']:.0f} | {row['bpp']:.3f} | {row['K']} | {row['psnr']:.2f} "
            f"| {row['texture']:.2f} | {row['shown']:.1%} |"
        )
    top = found["ceiling"]
    lines += [f"| the VAE alone | | | | {top['psnr']:.2f} | {top['texture']:.2f} | {top['shown']:.1%} |", ""]
    lines += ["| checkpoint | K | BD-rate | PSNR of K above K = 0, by lambda |", "|---|---:|---:|---|"]
    for name, own in found["gains"].items():
        lines += [
            f"| {name} | {k} | {percent(own['bd_rate'][k])} | {', '.join(f'{rate}: {value:+.2f}' for rate, value in own['psnr'][k].items())} |"
            for k in own["bd_rate"]
        ]
    return "\n".join(lines)


def gained(rows: list[dict]) -> dict[str, dict]:
    """Return BD-rates, and PSNR above that of K = 0 at each lambda."""
    plain = {row["lambda_rate"]: row["psnr"] for row in rows if row["K"] == 0}
    above = {
        k: {
            f"{row['lambda_rate']:g}": row["psnr"] - plain[row["lambda_rate"]]
            for row in rows
            if row["K"] == k
        }
        for k in sorted({row["K"] for row in rows} - {0})
    }
    return {"bd_rate": gains(rows), "psnr": above}


def variant(text: str) -> tuple[str, Path]:
    """NAME=DIR."""
    name, _, folder = text.partition("=")
    if not folder:
        raise argparse.ArgumentTypeError(f"a variant is NAME=DIR, got '{text}'")
    return name, Path(folder)


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_path", type=Path, default=ROOT / "data" / "checkpoints" / "scenes-codec")
    parser.add_argument(
        "--variant", type=variant, action="append", default=[], help="NAME=DIR, another checkpoint"
    )
    parser.add_argument("--count", type=int, default=128, help="of scenes")
    parser.add_argument("--seed", type=int, default=20000, help="of the scenes")
    parser.add_argument("--lambda_rates", type=listed(float), default=(1e-1, 3e-2, 1e-2, 3e-3, 1e-3))
    parser.add_argument("--steps", type=listed(int), default=(0, 1, 2, 4, 8), help="K, 0 among them")
    parser.add_argument("--device", help="cpu or cuda; the fastest there is if not given")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "scenes_codec.json")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    rows, name = curve(options.model_path, options.steps, options), options.model_path.resolve().name
    others = {title: gained(curve(folder, (0, 1), options)) for title, folder in options.variant}
    words = [
        f"--model_path {name}",
        *(f'--variant "{title}={folder.absolute().name}"' for title, folder in options.variant),
    ]
    words += [
        f"--count {options.count} --seed {options.seed}",
        "--lambda_rates " + ",".join(f"{rate:g}" for rate in options.lambda_rates),
    ]
    found = {
        "command": " ".join(
            ["python benchmarks/scenes_codec.py", *words, "--steps " + ",".join(map(str, options.steps))]
        ),
        "environment": environment(choose_device(options.device)),
        "pictures": options.count,
        "rows": rows,
        "ceiling": ceiling(options.model_path, options),
        "gains": {name: gained(rows), **others},
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
