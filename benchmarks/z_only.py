"""Is a picture drawn from z alone better than a picture sent at as many bytes?

    python benchmarks/z_only.py [--z_model_path DIR] [--model_path DIR] [--data_path PHOTOS] [--lambda_rates
        3e-2,1e-2,3e-3]
                                [--z_steps 0,1,4,16] [--steps 0,1,4] [--seed 0] [--device cpu] [--threads 0]
                                [--output data/results/z_only.json]

The codec of the first two seed projects sends z and nothing else (`transmit="z"`): the decoder draws y from
what z says, by diffusion from t = T. It writes a .dhp file for each photo and lambda. For each of these files
the z+y codec writes two: of the photo the largest that is no larger, found by trying lambdas up to 0.1, where
its range ends; and one of the photo shrunk until its file at lambda 0.1 is no larger, whose picture is
enlarged again. All are decoded, and judged alike. Without --data_path the photos are those that come with
scikit-image and scikit-learn.

| column   | meaning                                                                                             |
|----------|-----------------------------------------------------------------------------------------------------|
| bpp      | bits of the whole file a pixel, mean over the photos                                                |
| PSNR     | dB, mean over the photos                                                                            |
| MS-SSIM  | mean over the photos; left out where one has a side below 161 pixels                                |
| texture  | gradient energy over the photo's, mean over the photos; 1 is as much as the photo has               |
| fits     | photos whose file came out no larger than that of z; of the others the smallest there is is taken   |

K = 0 of the z codec is the picture of the mean that z foretells, K = 1 the denoiser's guess from pure noise,
K > 1 a drawn sample. Of the z+y codec K = 1 is the posterior mean, and K > 1 a sample within the bins that
were sent; the shrunk photo has K = 1.

Prints a table, and writes it as JSON and Markdown.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from realism import judge, listed, pictures_of
from saving import save
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.lambdas import CODE_MAX, LAMBDA_MAX, lambda_code, lambda_of
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.environment import environment
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.core.settings import choose_device
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.images import MIN_SIDE
from dhp_lab.metrics.pixels import round_to_8_bits

ROOT = Path(__file__).resolve().parents[1]
FINEST = 1e-5  # the smallest lambda that is tried
NAMES = {"z": "z alone", "z+y": "z + y, as many bytes", "shrunk": "z + y of a shrunk photo"}
SHRINK = 0.9  # from one size that is tried to the next
FIGURES = {"bpp": 4, "psnr": 2, "ms_ssim": 4, "texture": 3}


def load(folder: Path, transmit: str, device: torch.device) -> DiffusionHyperprior:
    """Return a model that sends what it should.

    Raises:
        SystemExit: there is no checkpoint, or it sends something else.
    """
    try:
        model = DiffusionHyperprior.from_pretrained(folder).to(device)
    except CheckpointError as error:
        raise SystemExit(f"{error}; `dhp train --transmit {transmit} ...` makes one") from None
    if model.config.transmit != transmit:
        raise SystemExit(f"{folder} sends {model.config.transmit}, not {transmit}: name another checkpoint")
    return model


def largest_that_fits(model: DiffusionHyperprior, x: Tensor, n_bytes: int) -> tuple[bytes, float]:
    """Return the largest file of x with at most `n_bytes`, and its lambda; where none fits, the smallest.

    Files shrink as lambda grows, but for a few bytes: lambdas are halved between, down to a 64th of an
    octave.
    """
    low, high = lambda_code(FINEST), CODE_MAX  # too fine, and what is taken
    data = dhp_file.encode(model, x, lambda_rate=lambda_of(high))
    while high - low > 32 and len(data) <= n_bytes:
        middle = (low + high) // 2
        tried = dhp_file.encode(model, x, lambda_rate=lambda_of(middle))
        if len(tried) <= n_bytes:
            high, data = middle, tried
        else:
            low = middle
    return data, lambda_of(high)


def shrunk_that_fits(model: DiffusionHyperprior, x: Tensor, n_bytes: int) -> tuple[bytes, Tensor]:
    """Return the file of the largest shrunk copy of x with at most `n_bytes`, and its picture (K = 1)
    enlarged to x's size.

    Each copy has 0.9 of the sides of the one before; the last has a side of 16 pixels, which is taken where
    none fits.
    """
    size, scale, data = x.shape[-2:], SHRINK, b""
    while not data or len(data) > n_bytes and scale * min(size) > MIN_SIDE:
        sides = [max(MIN_SIDE, round(scale * side)) for side in size]
        small = F.interpolate(x, size=sides, mode="bicubic", antialias=True).clamp(0, 1)
        data = dhp_file.encode(model, small, lambda_rate=LAMBDA_MAX)
        scale *= SHRINK
    x_hat = dhp_file.decode(model, data, steps=1).float().cpu()
    return data, F.interpolate(x_hat, size=size, mode="bicubic").clamp(0, 1)


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Code and decode all photos by both codecs; return every figure."""
    device, names, figures, facts = choose_device(options.device), [], defaultdict(list), defaultdict(list)
    models = {"z": load(options.z_model_path, "z", device), "z+y": load(options.model_path, "z+y", device)}
    steps = {"z": options.z_steps, "z+y": options.steps}
    for name, x in pictures_of(options.data_path):
        for rate in options.lambda_rates:
            files = {"z": dhp_file.encode(models["z"], x, lambda_rate=rate)}
            files["z+y"], found = largest_that_fits(models["z+y"], x, len(files["z"]))
            for transmit, model in models.items():
                for k in steps[transmit]:
                    x_hat = dhp_file.decode(model, files[transmit], steps=k, seed=options.seed).float().cpu()
                    x_hat = round_to_8_bits(x_hat)
                    figures[rate, transmit, k].append(judge(x_hat, x, len(files[transmit]), set()))
            files["shrunk"], x_hat = shrunk_that_fits(models["z+y"], x, len(files["z"]))
            figures[rate, "shrunk", 1].append(judge(round_to_8_bits(x_hat), x, len(files["shrunk"]), set()))
            facts[rate].append(
                {
                    "picture": name,
                    "bytes": {sent: len(data) for sent, data in files.items()},
                    "zy_lambda": found,
                }
            )
        names.append(name)
    rows = [
        {
            "lambda_rate": rate,
            "transmit": transmit,
            "K": k,
            **{
                figure: mean(one[figure] for one in own)
                for figure in FIGURES
                if all(figure in one for one in own)
            },
        }
        for (rate, transmit, k), own in figures.items()
    ]
    fits = {
        rate: {
            sent: sum(one["bytes"][sent] <= one["bytes"]["z"] for one in own) for sent in ("z+y", "shrunk")
        }
        for rate, own in facts.items()
    }
    return {
        "command": command(options),
        "models": {transmit: model.model_id.hex() for transmit, model in models.items()},
        "environment": environment(device),
        "pictures": names,
        "rows": rows,
        "files": [{"lambda_rate": rate, "fits": fits[rate], "pictures": own} for rate, own in facts.items()],
    }


def command(options: argparse.Namespace) -> str:
    """Return the command line that asks for the same again; folders by their last name only."""
    names = ("z_model_path", "model_path", *(["data_path"] if options.data_path else []))
    words = [f"--{name} {getattr(options, name).resolve().name}" for name in names]
    words += [
        f"--{name} " + ",".join(f"{one:g}" for one in getattr(options, name))
        for name in ("lambda_rates", "z_steps", "steps")
    ]
    return " ".join(["python benchmarks/z_only.py", *words, f"--seed {options.seed}"])


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    place, rows = found["environment"], found["rows"]
    names = [name for name in FIGURES if all(name in row for row in rows)]
    titles = {"bpp": "bpp", "psnr": "PSNR", "ms_ssim": "MS-SSIM", "texture": "texture"}
    fits = {
        (one["lambda_rate"], sent): f"{count} of {len(one['pictures'])}"
        for one in found["files"]
        for sent, count in one["fits"].items()
    }
    lines = [
        f"`{found['command']}` on {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, {place['date']}; "
        f"{len(found['pictures'])} photos, models {found['models']['z']} (z) and {found['models']['z+y']} (z+y)",
        "",
        "| lambda of z | codec | K | " + " | ".join(titles[name] for name in names) + " | fits |",
        "|---:|---|" + (len(names) + 2) * "---:|",
    ]
    for row in rows:
        cells = [f"{row[name]:.{FIGURES[name]}f}" for name in names]
        fit = fits.get((row["lambda_rate"], row["transmit"]), "")
        lines.append(
            f"| {row['lambda_rate']:g} | {NAMES[row['transmit']]} | {row['K']} | {' | '.join(cells)} | {fit} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    checkpoints = ROOT / "data" / "checkpoints"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--z_model_path",
        type=Path,
        default=checkpoints / "z-only",
        help="a checkpoint trained with --transmit z",
    )
    parser.add_argument(
        "--model_path", type=Path, default=None, help="one that sends z+y; the shipped one if not given"
    )
    parser.add_argument("--data_path", type=Path, help="folder of photos; those of the packages if not given")
    parser.add_argument(
        "--lambda_rates", type=listed(float), default=(3e-2, 1e-2, 3e-3), help="of the z codec"
    )
    parser.add_argument(
        "--z_steps", type=listed(int), default=(0, 1, 4, 16), help="numbers of diffusion steps of the z codec"
    )
    parser.add_argument("--steps", type=listed(int), default=(0, 1, 4), help="likewise of the z+y codec")
    parser.add_argument("--seed", type=int, default=0, help="of the noise that is drawn")
    parser.add_argument("--device", help="cpu or cuda; the fastest there is if not given")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "z_only.json")
    options = parser.parse_args()
    options.model_path = options.model_path or default_checkpoint()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
