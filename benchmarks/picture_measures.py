"""What noise, blur, JPEG, AVIF and a shift do to each measure of pictures, by the real networks.

    python benchmarks/picture_measures.py [--crops 300] [--pool 1600] [--repeats 4] [--seed 0] [--threads 0]
                                          [--output data/results/picture_measures.json]

The photos are those that come with scikit-image and scikit-learn; `dhp download metric-networks` brings the
networks. Three tables:

1. Pairs. Each of the six distortions of `dhp_lab.lessons.measuring_pictures.distortions`, at six strengths,
   and five of one PSNR: PSNR, MS-SSIM, texture, LPIPS (AlexNet) and DISTS. The pictures are the middle
   192 x 192 of four photos; the five of one PSNR are of the first photo.
2. Sets. EfficientNet-Lite0's features of `--crops` random 64-pixel crops of all seven photos, beside as many
   other crops that were distorted: Fréchet distance, kernel distance, precision and recall. Beside the
   kernel distance of all crops stands the standard error of its mean over disjoint blocks of 50 crops, which
   is a little larger than its own.
3. Sample size. Two disjoint sets of crops of the same undistorted photos, whose distance is 0: what Fréchet
   and kernel distance say of N crops each, mean and standard deviation over `--repeats` draws from `--pool`.

EfficientNet is no Inception network: these distances compare with each other, not with published figures.
Prints the tables, and writes them as JSON and Markdown.
"""

from __future__ import annotations

import argparse
from statistics import fmean

import torch
from common import (
    add_machine_options,
    command_line,
    heading,
    markdown_table,
    new_parser,
    page,
    save,
    set_threads,
)
from torch import Tensor

from dhp_lab.core.download import DownloadError
from dhp_lab.core.environment import environment
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.evaluation.judges import Judges
from dhp_lab.lessons.measuring_pictures.distortions import (
    DISTORTIONS,
    SHOWN,
    at_psnr,
    distort,
    lesson_photo,
    setting,
)
from dhp_lab.metrics.efficientnet import FEATURES, efficientnet_features
from dhp_lab.metrics.feature_distances import frechet_distance, kernel_distance, precision_recall
from dhp_lab.metrics.perceptual import dists_network, lpips_network
from dhp_lab.metrics.pixels import psnr

CROP = 64  # pixels
BLOCK = 50  # crops of each set in one estimate of the kernel distance
LARGE = 512  # the photos' middle that patches and crops are taken from, in pixels
OF_SETS = 3  # which of the six strengths is measured as a set
PAIR_METRICS = ("psnr", "ms-ssim", "texture", "lpips", "dists")
PAIR_HEADS = ("PSNR", "MS-SSIM", "texture", "LPIPS", "DISTS")
FIELDS = ("psnr", "ms_ssim", "texture", "lpips", "dists")


def pairs(photos: dict[str, Tensor]) -> dict[tuple[str, float], dict[str, dict]]:
    """Return the figures of each photo, by distortion and strength and then by the photo's name."""
    found = {(name, strength): {} for name, one in DISTORTIONS.items() for strength in one.strengths}
    judges = Judges(PAIR_METRICS)  # they keep the layers of the last original
    for photo, x in photos.items():
        for name, strength in found:
            found[name, strength][photo] = pair(x, name, strength, judges)
        print(photo, flush=True)
    return found


def pair(x: Tensor, name: str, strength: float, judges: Judges) -> dict[str, float]:
    """Return the figures of one distorted picture beside its original."""
    x_hat, original = distort(x, name, strength)
    facts = {"codec": name, "setting": strength, "picture": "", "n_bytes": 1}
    measured = judges.measure(x_hat, original, **facts, encode_seconds=0.0, decode_seconds=0.0)
    return {field: getattr(measured, field) for field in FIELDS}


def equal_psnr(x: Tensor) -> list[dict]:
    """Return the figures of a picture shifted by one pixel, and of others that have its PSNR."""
    judges, rows = Judges(PAIR_METRICS), []
    target = psnr(*distort(x, "shift", 1)).item()
    for name in ("shift", "white noise", "blur", "JPEG", "AVIF"):
        strength = 1 if name == "shift" else at_psnr(x, name, target)
        facts = {"distortion": name, "strength": strength, "unit": DISTORTIONS[name].unit}
        rows.append(facts | pair(x, name, strength, judges))
    return rows


def crops(photos: dict[str, Tensor], count: int, seed: int, *, even: bool = False) -> Tensor:
    """Cut (count, 3, 64, 64) crops at random: independent of each other, or the photos in turn (``even``).

    The unbiased kernel distance assumes independence: of photos taken in turn it comes out too small.
    """
    generator = torch.Generator().manual_seed(seed)
    values = list(photos.values())
    found = []
    chosen = torch.arange(count) % len(values)
    if not even:
        chosen = torch.randint(len(values), (count,), generator=generator)
    for number in chosen.tolist():
        x = values[number]
        top, left = (int(torch.randint(side - CROP + 1, (), generator=generator)) for side in x.shape[-2:])
        found.append(x[..., top : top + CROP, left : left + CROP])
    return torch.cat(found)


def blocked(a: Tensor, b: Tensor) -> dict[str, float]:
    """Return the kernel distance, and the standard error of its mean over disjoint blocks."""
    own = [
        kernel_distance(x, y, subsets=1, subset_size=len(x))[0]
        for x, y in zip(a.split(BLOCK), b.split(BLOCK), strict=True)
        if len(x) == BLOCK
    ]
    values = torch.tensor(own, dtype=torch.float64)
    whole, _ = kernel_distance(a, b, subsets=1, subset_size=len(a))
    return {"kid": whole, "kid_error": (values.std() / len(values) ** 0.5).item()}


def of_sets(a: Tensor, b: Tensor) -> dict[str, float]:
    """Return all distances of two sets of features, real ones first."""
    precision, recall = precision_recall(a, b)
    return {"fid": frechet_distance(a, b), **blocked(a, b), "precision": precision, "recall": recall}


def sample_size(pool: Tensor, repeats: int, seed: int) -> list[dict]:
    """Return mean and deviation of both distances of two disjoint sets of N features of one pool."""
    generator, rows, count = torch.Generator().manual_seed(seed), [], BLOCK
    while 2 * count <= len(pool):
        fids, kids = [], []
        for _ in range(repeats):
            order = torch.randperm(len(pool), generator=generator)
            a, b = pool[order[:count]], pool[order[count : 2 * count]]
            fids.append(frechet_distance(a, b))
            kids.append(kernel_distance(a, b, subsets=1, subset_size=count)[0])
        row = {"count": count}
        for key, values in (("fid", fids), ("kid", kids)):
            row |= {key: fmean(values), f"{key}_deviation": torch.tensor(values).std().item()}
        rows.append(row)
        count *= 2
    return rows


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Measure all; return every figure."""
    small = {name: lesson_photo(name) for name in SHOWN}
    large = {name: load_photo(name, LARGE) for name in PHOTOS}
    equal = equal_psnr(small[SHOWN[0]])
    of_photos = pairs(small)
    real = efficientnet_features(crops(large, options.crops, options.seed))
    rows, sets = [], []
    for name, distortion in DISTORTIONS.items():
        for place, strength in enumerate(distortion.strengths):
            row = {"distortion": name, "strength": strength, "unit": distortion.unit}
            row["photos"] = of_photos[name, strength]
            rows.append(row)
            if place == OF_SETS:
                spoilt = {photo: distort(x, name, strength)[0] for photo, x in large.items()}
                fake = efficientnet_features(crops(spoilt, options.crops, options.seed + 1))
                facts = {"distortion": name, "strength": strength, "unit": distortion.unit}
                sets.append(facts | of_sets(real, fake))
            print(f"{name} {strength:g}", flush=True)
    others = efficientnet_features(crops(large, options.crops, options.seed + 1))
    sets.insert(0, {"distortion": "none", "strength": 0, "unit": ""} | of_sets(real, others))
    pool = efficientnet_features(crops(large, options.pool, options.seed + 2, even=True))
    return {
        "command": command_line(__file__, options, ["crops", "pool", "repeats", "seed"]),
        "environment": environment(torch.device("cpu")),
        "photos": list(SHOWN),
        "crops_of": list(PHOTOS),
        "crops": options.crops,
        "features": FEATURES,
        "equal_psnr": equal,
        "rows": rows,
        "sets": sets,
        "blocks": options.crops // BLOCK,
        "sizes": sample_size(pool, options.repeats, options.seed),
        "repeats": options.repeats,
    }


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    pair_rows = []
    for row in found["rows"]:
        mean = {field: fmean(one[field] for one in row["photos"].values()) for field in FIELDS}
        pair_rows.append([_named(row), *_cells(mean)])
    set_rows = [
        [
            _named(row),
            f"{row['fid']:.2f}",
            f"{row['kid']:.2f} +- {row['kid_error']:.2f}",
            f"{row['precision']:.2f}",
            f"{row['recall']:.2f}",
        ]
        for row in found["sets"]
    ]
    size_rows = [
        [
            row["count"],
            f"{row['fid']:.2f} +- {row['fid_deviation']:.2f}",
            f"{row['kid']:.3f} +- {row['kid_deviation']:.3f}",
        ]
        for row in found["sizes"]
    ]
    set_heads = [f"sets of {found['crops']} crops", "FID", "KID +- s.e.", "precision", "recall"]
    size_heads = ["equal photos, N crops each", "FID +- s.d.", "KID +- s.d."]
    return page(
        heading(found, f"{len(found['photos'])} photos, features of EfficientNet-Lite0"),
        markdown_table(
            [found["photos"][0], *PAIR_HEADS], [[_named(r), *_cells(r)] for r in found["equal_psnr"]]
        ),
        markdown_table([f"mean of {len(found['photos'])} photos", *PAIR_HEADS], pair_rows),
        markdown_table(set_heads, set_rows),
        markdown_table(size_heads, size_rows, align="r"),
    )


def _cells(row: dict[str, float]) -> list[str]:
    """The figures of a pair, for a table."""
    first = [f"{row['psnr']:.2f}", f"{row['ms_ssim']:.4f}", f"{row['texture']:.2f}"]
    return [*first, f"{row['lpips']:.3f}", f"{row['dists']:.3f}"]


def _named(row: dict) -> str:
    """A distortion and its strength, for a table."""
    return f"{row['distortion']}, {setting(row['strength'], row['unit'])}" if row["unit"] else "nothing"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "picture_measures")
    parser.add_argument("--crops", type=int, default=300, help="of each set, a multiple of 50")
    parser.add_argument("--pool", type=int, default=1600, help="crops that the sample sizes are drawn from")
    parser.add_argument("--repeats", type=int, default=4, help="draws for each sample size, 2 or more")
    parser.add_argument("--seed", type=int, default=0, help="of crops and draws")
    add_machine_options(parser, device=False)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    try:
        lpips_network(), dists_network()
        efficientnet_features(torch.zeros(1, 3, CROP, CROP))
    except DownloadError as error:
        raise SystemExit(str(error)) from None
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
