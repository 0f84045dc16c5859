"""K and gamma as a trade: what does a decoder pay for texture, and what does it get?

    python benchmarks/realism.py [--data_path PHOTOS] [--model_path DIR] [--lambda_rates 1e-2,2e-3,4e-4]
        [--steps 0,1,2,4,8,16]
                                 [--gammas 0,0.25,0.5,0.75,1] [--seed 0] [--networks lpips,dists,fid] [--patch
                                 256] [--device cpu]
                                 [--threads 0] [--output data/results/realism.json]

One .dhp file is written for each photo and lambda, and decoded in every way. Without --data_path the photos
are those that come with scikit-image and scikit-learn. K = 0 and 1 know no gamma, and gamma = 1 is K = 1 at
any K: it is there to show it.

gamma blends the sample and the posterior mean before synthesis, so that both are made once and every gamma
costs one synthesis; the first photo's blend is also compared with what `decompress` makes of the same file,
and the difference is in the JSON.

| column   | meaning                                                                                    | better |
|----------|--------------------------------------------------------------------------------------------|--------|
| bpp      | bits of the whole file a pixel, mean over the photos                                       | less   |
| PSNR     | dB, mean over the photos                                                                   | more   |
| MS-SSIM  | mean over the photos; left out where one has a side below 161 pixels                       | more   |
| texture  | gradient energy over the photo's, mean over the photos                                     | 1      |
| LPIPS    | on AlexNet (Zhang et al. 2018), mean over the photos                                       | less   |
| DISTS    | on VGG-16 (Ding et al. 2020), mean over the photos                                         | less   |
| FID, KID | of the photos' patches, --patch pixels square and side by side; KID is 1000 times its own  | less   |

LPIPS, DISTS, FID and KID look through networks. Where their weights are not at hand and cannot be fetched
they are left out, and a note says which file is missing and where it comes from. FID of few patches is far
too large: compare it inside one table only, or read KID, whose expectation does not depend on their number.

Prints a table for each lambda, and writes them as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from statistics import mean

import torch
from saving import save
from torch import Tensor, nn

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.bitstream import read
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.download import DownloadError
from dhp_lab.core.environment import environment
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.core.settings import choose_device
from dhp_lab.data.images import Picture, load_pictures
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.metrics import feature_networks as metric_networks
from dhp_lab.metrics.feature_distances import frechet_distance, kernel_distance
from dhp_lab.metrics.generative import BATCH, lpips
from dhp_lab.metrics.pixels import (
    MS_SSIM_MIN_SIDE,
    bits_per_pixel,
    gradient_energy_ratio,
    ms_ssim,
    psnr,
    round_to_8_bits,
)

ROOT = Path(__file__).resolve().parents[1]
Way = tuple[int, float | None]  # K and gamma
WEIGHTS = {
    "lpips": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "dists": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "fid": "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
}
DECIMALS = {"bpp": 3, "psnr": 2, "ms_ssim": 4, "texture": 3, "lpips": 3, "dists": 3, "fid": 1, "kid": 2}
TITLES = {
    "bpp": "bpp",
    "psnr": "PSNR",
    "ms_ssim": "MS-SSIM",
    "texture": "texture",
    "lpips": "LPIPS",
    "dists": "DISTS",
    "fid": "FID",
    "kid": "KID, 10^-3",
}


def pictures_of(folder: Path | None) -> Iterator[Picture]:
    """Return the photos of a folder, or those that come with the packages."""
    if folder is None:
        return ((name, load_photo(name)) for name in PHOTOS)
    return load_pictures(folder, [], lambda line: print(line, file=sys.stderr))


@lru_cache(maxsize=1)
def dists_network() -> nn.Module:
    """Return DISTS on VGG-16 by torchmetrics, once its weights are there and known to hold numbers alone."""
    from torchmetrics.functional.image.dists import DISTSNetwork

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    metric_networks.obtain(WEIGHTS["dists"], folder)
    torch.hub.load_state_dict_from_url(WEIGHTS["dists"], str(folder), map_location="cpu", weights_only=True)
    return DISTSNetwork()


def networks_at_hand(wanted: Iterable[str], notes: list[str]) -> set[str]:
    """Return which of "lpips", "dists" and "fid" can be had; `notes` receives a line for each that cannot."""
    picture, found = torch.zeros(1, 3, 64, 64), set()
    tries = {
        "lpips": lambda: metric_networks.alexnet_lpips(picture, picture),
        "dists": dists_network,
        "fid": lambda: metric_networks.inception(picture),
    }
    for name in wanted:
        try:
            tries[name]()
            found.add(name)
        except DownloadError as error:
            url, what = (
                WEIGHTS[name],
                "is not the original" if "not the original" in str(error) else "is missing",
            )
            notes.append(
                f"{name.upper()}: not measured, {url.rpartition('/')[2]} {what}; lay {url} into TORCH_HOME/hub/checkpoints"
            )
    return found


def patches(x: Tensor, side: int) -> Tensor:
    """(1, 3, H, W) -> (n, 3, side, side), side by side from the top left corner; n = 0 where none fits."""
    if min(x.shape[-2:]) < side:
        return x.new_zeros(0, 3, side, side)
    cut = x[0].unfold(1, side, side).unfold(2, side, side)  # (3, rows, cols, side, side)
    return cut.permute(1, 2, 0, 3, 4).flatten(0, 1)


def seen(x: Tensor, side: int) -> Tensor:
    """(n, 2048) what the Inception network sees in a picture's patches."""
    return torch.cat([metric_networks.inception(part)[0].double() for part in patches(x, side).split(BATCH)])


@torch.no_grad()
def decodings(
    model: DiffusionHyperprior, data: bytes, options: argparse.Namespace
) -> Iterator[tuple[Way, Tensor]]:
    """Decode a file in every way: K and gamma, and the picture (1, 3, H, W) as an 8-bit file holds it."""
    file = read(data)
    known = decode_latents(model, file.strings, file.shape)
    middle = model.denoise(known, steps=1, seed=options.seed)
    for k in options.steps:
        y_hat = middle if k == 1 else model.denoise(known, steps=k, seed=options.seed)
        for gamma in options.gammas if k > 1 else (None,):
            blend = y_hat if gamma is None else torch.lerp(y_hat, middle, gamma)
            x_hat = model.synthesise(blend, known.log2_delta, file.shape).clamp(0, 1)
            yield (k, gamma), round_to_8_bits(x_hat.float().cpu())


def off(
    model: DiffusionHyperprior, data: bytes, ways: dict[Way, Tensor], options: argparse.Namespace
) -> float:
    """How far our blends are from what `decompress` makes of the file, in 8-bit levels, at the most."""
    worst = 0.0
    for (k, gamma), x_hat in ways.items():
        whole = dhp_file.decode(model, data, steps=k, gamma=gamma or 0.0, seed=options.seed).float().cpu()
        worst = max(worst, 255 * (round_to_8_bits(whole) - x_hat).abs().max().item())
    return worst


def judge(x_hat: Tensor, x: Tensor, n_bytes: int, networks: set[str]) -> dict[str, float]:
    """Return the figures of one decoded photo that need no other photos."""
    found = {
        "bpp": bits_per_pixel(n_bytes, *x.shape[-2:]),
        "psnr": psnr(x_hat, x).item(),
        "texture": gradient_energy_ratio(x_hat, x).item(),
    }
    if min(x.shape[-2:]) >= MS_SSIM_MIN_SIDE:
        found["ms_ssim"] = ms_ssim(x_hat, x).item()
    if "lpips" in networks:
        found["lpips"] = lpips(x_hat, x).item()
    if "dists" in networks:
        found["dists"] = dists_network()(x_hat, x).item()
    return found


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Code and decode all photos; return every figure."""
    device, notes = choose_device(options.device), []
    networks = networks_at_hand(options.networks, notes)
    model = DiffusionHyperprior.from_pretrained(options.model_path).to(device)
    worst, names = 0.0, []
    figures, features, real = defaultdict(list), defaultdict(list), []
    for name, x in pictures_of(options.data_path):
        if "fid" in networks:
            real.append(seen(x, options.patch))
        for lambda_rate in options.lambda_rates:
            data = dhp_file.encode(model, x, lambda_rate=lambda_rate)
            ways = dict(decodings(model, data, options))
            if not names:
                worst = max(worst, off(model, data, {way: ways[way] for way in list(ways)[-2:]}, options))
            for way, x_hat in ways.items():
                figures[lambda_rate, way].append(judge(x_hat, x, len(data), networks))
                if "fid" in networks:
                    features[lambda_rate, way].append(seen(x_hat, options.patch))
        names.append(name)
    rows = [
        {"lambda_rate": rate, "K": way[0], "gamma": way[1], **averages(own, real, features.get((rate, way)))}
        for (rate, way), own in figures.items()
    ]
    return {
        "command": command(options),
        "model": Path(options.model_path).name,
        "model_id": model.model_id.hex(),
        "environment": environment(device),
        "pictures": names,
        "patches": sum(map(len, real)),
        "blend_off_in_levels": worst,
        "notes": notes,
        "rows": rows,
    }


def averages(own: list[dict[str, float]], real: list[Tensor], fake: list[Tensor] | None) -> dict[str, float]:
    """Return the means of those figures that every photo has, and the distances of its patches from the real
    ones.
    """
    found = {name: mean(one[name] for one in own) for name in DECIMALS if all(name in one for one in own)}
    if fake:
        a, b = torch.cat(real), torch.cat(fake)
        found["fid"] = frechet_distance(a, b)
        found["kid"] = 1000 * kernel_distance(a, b, subset_size=min(1000, len(a)))[0]
    return found


def tables(found: dict) -> str:
    """Return all figures as Markdown, a table for each lambda."""
    place, rows = found["environment"], found["rows"]
    names = [name for name in DECIMALS if all(name in row for row in rows) and name != "bpp"]
    lines = [
        f"`{found['command']}` on {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, {place['date']}; "
        f"{len(found['pictures'])} photos, model {found['model']} ({found['model_id']})",
    ]
    for rate in dict.fromkeys(row["lambda_rate"] for row in rows):
        own = [row for row in rows if row["lambda_rate"] == rate]
        lines += [
            "",
            f"| lambda {rate:g}, {own[0]['bpp']:.3f} bpp: K | gamma | "
            + " | ".join(TITLES[name] for name in names)
            + " |",
            "|---|" + (len(names) + 1) * "---:|",
        ]
        for row in own:
            cells = [f"{row[name]:.{DECIMALS[name]}f}" for name in names]
            lines.append(
                f"| {row['K']} | {'' if row['gamma'] is None else format(row['gamma'], 'g')} | {' | '.join(cells)} |"
            )
    return "\n".join([*lines, "", *(f"- {note}" for note in found["notes"])])


def command(options: argparse.Namespace) -> str:
    """Return the command line that asks for the same again; folders by their last name only."""
    words = [] if options.data_path is None else [f"--data_path {options.data_path.resolve().name}"]
    for name in ("lambda_rates", "steps", "gammas", "networks"):
        values = getattr(options, name)
        words.append(
            f"--{name} " + (",".join(one if isinstance(one, str) else f"{one:g}" for one in values) or "none")
        )
    return " ".join(["python benchmarks/realism.py", *words, f"--seed {options.seed}"])


def listed(kind: Callable[[str], object]) -> Callable[[str], tuple]:
    """Return a reader of values separated by commas."""
    return lambda text: tuple(kind(word) for word in text.split(","))


def networks(text: str) -> tuple[str, ...]:
    """Names of networks separated by commas, or none."""
    chosen = () if text == "none" else tuple(text.split(","))
    if unknown := sorted(set(chosen) - WEIGHTS.keys()):
        raise argparse.ArgumentTypeError(
            f"there is no {', '.join(unknown)}; choose from {', '.join(WEIGHTS)}, or none"
        )
    return chosen


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, help="folder of photos; those of the packages if not given")
    parser.add_argument("--model_path", default=None, help="the shipped checkpoint if not given")
    parser.add_argument("--lambda_rates", type=listed(float), default=(1e-2, 2e-3, 4e-4))
    parser.add_argument(
        "--steps", type=listed(int), default=(0, 1, 2, 4, 8, 16), help="numbers of diffusion steps K"
    )
    parser.add_argument("--gammas", type=listed(float), default=(0.0, 0.25, 0.5, 0.75, 1.0))
    parser.add_argument("--seed", type=int, default=0, help="of the noise that K > 1 draws")
    parser.add_argument(
        "--networks", type=networks, default=tuple(WEIGHTS), help="some of lpips,dists,fid, or none"
    )
    parser.add_argument("--patch", type=int, default=256, help="side of FID's patches")
    parser.add_argument("--device", help="cpu or cuda; the fastest there is if not given")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "realism.json")
    options = parser.parse_args()
    options.model_path = options.model_path or default_checkpoint()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    found = measure_all(options)
    save(found, tables(found), options.output)


if __name__ == "__main__":
    main()
