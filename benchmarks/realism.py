"""K and gamma as a trade: what does a decoder pay for texture, and what does it get?

    python benchmarks/realism.py [--data_path PHOTOS] [--model_path DIR] [--lambda_rates 1e-2,2e-3,4e-4]
                                 [--steps 0,1,2,4,8,16] [--gammas 0,0.25,0.5,0.75,1] [--seed 0]
                                 [--networks lpips,dists,fid] [--patch 256] [--device cpu] [--threads 0]
                                 [--output data/results/realism.json]

One .dhp file is written for each photo and lambda, and decoded in every way. Without --data_path the photos
are those that come with scikit-image and scikit-learn. K = 0 and 1 have no gamma, and gamma = 1 is K = 1 at
any K: it is there to show it.

gamma blends the sample and the posterior mean before synthesis, so that both are made once and every gamma
costs one synthesis; the first photo's blend is also compared with what `decompress` makes of the same file,
and the difference is in the JSON.

| column   | meaning                                                                             | better |
|----------|-------------------------------------------------------------------------------------|--------|
| bpp      | bits of the whole file a pixel, mean over the photos                                | less   |
| PSNR     | dB, mean over the photos                                                            | more   |
| MS-SSIM  | mean over the photos; left out where one has a side below 161 pixels                | more   |
| texture  | gradient energy over the photo's, mean over the photos                              | 1      |
| LPIPS    | on AlexNet (Zhang et al. 2018), mean over the photos                                | less   |
| DISTS    | on VGG-16 (Ding et al. 2020), mean over the photos                                  | less   |
| FID, KID | of the photos' patches, --patch pixels square and side by side; KID is 1000 times   | less   |
|          | its own                                                                             |        |

LPIPS, DISTS, FID and KID are learned perceptual metrics. Where their networks' weights are not at hand and
cannot be fetched they are left out, and a note names the file that is missing and where it comes from. FID of
few patches is far too large: compare it inside one table only, or read KID, whose expectation does not depend
on their number.

Prints a table for each lambda, and writes them as JSON and Markdown.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import torch
from common import (
    add_machine_options,
    command_line,
    heading,
    listed,
    load_codec,
    markdown_table,
    new_parser,
    one_of,
    page,
    photos_of,
    save,
    set_threads,
)
from torch import Tensor, nn

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.bitstream import read
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.download import DownloadError
from dhp_lab.core.environment import environment
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.core.settings import choose_device
from dhp_lab.metrics import feature_networks
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

Way = tuple[int, float | None]  # K and gamma
RELEASES = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0"
WEIGHTS = {
    "lpips": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "dists": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "fid": f"{RELEASES}/weights-inception-2015-12-05-6726825d.pth",
}
VGG = feature_networks.Original(
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", 554_000_000
)
COLUMNS = {  # title and decimals
    "bpp": ("bpp", 3),
    "psnr": ("PSNR", 2),
    "ms_ssim": ("MS-SSIM", 4),
    "texture": ("texture", 3),
    "lpips": ("LPIPS", 3),
    "dists": ("DISTS", 3),
    "fid": ("FID", 1),
    "kid": ("KID, 10^-3", 2),
}
CHECKED = 2  # ways of the first photo that are compared with `decompress`, from the last
PER_PHOTO = ("bpp", "psnr", "ms_ssim", "texture", "lpips", "dists")


@lru_cache(maxsize=1)
def dists_network() -> nn.Module:
    """Return DISTS on VGG-16 by torchmetrics, once its weights are there and proved to be numbers alone."""
    from torchmetrics.functional.image.dists import DISTSNetwork

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    feature_networks.obtain(WEIGHTS["dists"], folder, VGG)
    torch.hub.load_state_dict_from_url(WEIGHTS["dists"], str(folder), map_location="cpu", weights_only=True)
    return DISTSNetwork()


def available_networks(wanted: Iterable[str], notes: list[str]) -> set[str]:
    """Return which of "lpips", "dists" and "fid" can be had; ``notes`` receives a line for each other."""
    picture, found = torch.zeros(1, 3, 64, 64), set()
    tries = {
        "lpips": lambda: feature_networks.alexnet_lpips(picture, picture),
        "dists": dists_network,
        "fid": lambda: feature_networks.inception(picture),
    }
    for name in wanted:
        try:
            tries[name]()
            found.add(name)
        except DownloadError as error:
            url = WEIGHTS[name]
            fault = "is not the original" if "not the original" in str(error) else "is missing"
            notes.append(
                f"{name.upper()}: not measured, {url.rpartition('/')[2]} {fault}; "
                f"lay {url} into TORCH_HOME/hub/checkpoints"
            )
    return found


def patches(x: Tensor, side: int) -> Tensor:
    """(1, 3, H, W) -> (n, 3, side, side), side by side from the top left corner; n = 0 where none fits."""
    if min(x.shape[-2:]) < side:
        return x.new_zeros(0, 3, side, side)
    cut = x[0].unfold(1, side, side).unfold(2, side, side)  # (3, rows, cols, side, side)
    return cut.permute(1, 2, 0, 3, 4).flatten(0, 1)


def inception_features(x: Tensor, side: int) -> Tensor:
    """(n, 2048) the Inception network's features of a picture's patches."""
    parts = patches(x, side).split(BATCH)
    return torch.cat([feature_networks.inception(part)[0].double() for part in parts])


@torch.no_grad()
def decode_every_way(
    model: DiffusionHyperprior, data: bytes, options: argparse.Namespace
) -> Iterator[tuple[Way, Tensor]]:
    """Decode a file with every K and gamma: the picture (1, 3, H, W) as an 8-bit file holds it."""
    file = read(data)
    state = decode_latents(model, file.strings, file.shape)
    posterior_mean = model.sampler.sample(state, steps=1, seed=options.seed)
    for k in options.steps:
        y_hat = posterior_mean if k == 1 else model.sampler.sample(state, steps=k, seed=options.seed)
        for gamma in options.gammas if k > 1 else (None,):
            blend = y_hat if gamma is None else torch.lerp(y_hat, posterior_mean, gamma)
            x_hat = model.synthesise(blend, state.log2_delta, file.shape).clamp(0, 1)
            yield (k, gamma), round_to_8_bits(x_hat.float().cpu())


def blend_error(model: DiffusionHyperprior, data: bytes, ways: dict[Way, Tensor], seed: int) -> float:
    """Return the greatest difference of our blends from a whole decode of the file, in 8-bit levels."""
    worst = 0.0
    for (k, gamma), x_hat in ways.items():
        whole = dhp_file.decode(model, data, steps=k, gamma=gamma or 0.0, seed=seed).float().cpu()
        worst = max(worst, 255 * (round_to_8_bits(whole) - x_hat).abs().max().item())
    return worst


def photo_figures(x_hat: Tensor, x: Tensor, n_bytes: int, networks: Iterable[str] = ()) -> dict[str, float]:
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


def averages(figures: list[dict[str, float]]) -> dict[str, float]:
    """Return the means of those figures that every photo has."""
    names = [name for name in PER_PHOTO if all(name in one for one in figures)]
    return {name: fmean(one[name] for one in figures) for name in names}


def patch_distances(real: list[Tensor], fake: list[Tensor]) -> dict[str, float]:
    """Return FID and KID of decoded photos' patches; nothing without features."""
    if not fake:
        return {}
    a, b = torch.cat(real), torch.cat(fake)
    distance, _ = kernel_distance(a, b, subset_size=min(1000, len(a)))
    return {"fid": frechet_distance(a, b), "kid": 1000 * distance}


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Code and decode all photos; return every figure."""
    device, notes = choose_device(options.device), []
    networks = available_networks(options.networks, notes)
    model = load_codec(options.model_path, device)
    names, worst = [], 0.0
    figures, features, real = defaultdict(list), defaultdict(list), []
    for name, x in photos_of(options.data_path):
        if "fid" in networks:
            real.append(inception_features(x, options.patch))
        for rate in options.lambda_rates:
            data = dhp_file.encode(model, x, lambda_rate=rate)
            ways = dict(decode_every_way(model, data, options))
            if not names:
                some = {way: ways[way] for way in list(ways)[-CHECKED:]}
                worst = max(worst, blend_error(model, data, some, options.seed))
            for way, x_hat in ways.items():
                figures[rate, way].append(photo_figures(x_hat, x, len(data), networks))
                if "fid" in networks:
                    features[rate, way].append(inception_features(x_hat, options.patch))
        names.append(name)
    rows = []
    for (rate, (k, gamma)), own in figures.items():
        row = {"lambda_rate": rate, "K": k, "gamma": gamma, **averages(own)}
        rows.append(row | patch_distances(real, features[rate, (k, gamma)]))
    return {
        "command": command_line(
            __file__, options, ["data_path", "lambda_rates", "steps", "gammas", "networks", "seed"]
        ),
        "model": Path(options.model_path).name,
        "model_id": model.model_id.hex(),
        "environment": environment(device),
        "pictures": names,
        "patches": sum(map(len, real)),
        "blend_off_in_levels": worst,
        "notes": notes,
        "rows": rows,
    }


def lambda_table(rate: float, rows: list[dict], names: list[str]) -> str:
    """Return the table of one lambda."""
    lines = []
    for row in rows:
        gamma = "" if row["gamma"] is None else f"{row['gamma']:g}"
        lines.append([row["K"], gamma, *(f"{row[name]:.{COLUMNS[name][1]}f}" for name in names)])
    heads = [f"lambda {rate:g}, {rows[0]['bpp']:.3f} bpp: K", "gamma", *(COLUMNS[name][0] for name in names)]
    return markdown_table(heads, lines, align="r")


def table(found: dict) -> str:
    """Return all figures as Markdown, a table for each lambda."""
    rows = found["rows"]
    names = [name for name in COLUMNS if name != "bpp" and all(name in row for row in rows)]
    tables = []
    for rate in dict.fromkeys(row["lambda_rate"] for row in rows):
        tables.append(lambda_table(rate, [row for row in rows if row["lambda_rate"] == rate], names))
    model = f"model {found['model']} ({found['model_id']})"
    return page(
        heading(found, f"{len(found['pictures'])} photos, {model}"),
        *tables,
        "\n".join(f"- {note}" for note in found["notes"]),
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "realism")
    parser.add_argument("--data_path", type=Path, help="folder of photos; those of the packages if not given")
    parser.add_argument("--model_path", help="the shipped checkpoint if not given")
    parser.add_argument("--lambda_rates", type=listed(float), default=(1e-2, 2e-3, 4e-4))
    parser.add_argument(
        "--steps", type=listed(int), default=(0, 1, 2, 4, 8, 16), help="numbers of diffusion steps K"
    )
    parser.add_argument("--gammas", type=listed(float), default=(0.0, 0.25, 0.5, 0.75, 1.0))
    parser.add_argument("--seed", type=int, default=0, help="of the noise that K > 1 draws")
    parser.add_argument(
        "--networks",
        type=listed(one_of(WEIGHTS)),
        default=tuple(WEIGHTS),
        help="some of lpips,dists,fid, or none",
    )
    parser.add_argument("--patch", type=int, default=256, help="side of FID's patches")
    add_machine_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    options.model_path = options.model_path or default_checkpoint()
    set_threads(options)
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
