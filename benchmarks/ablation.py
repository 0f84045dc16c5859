"""What is each part of the codec worth? Variants of it, trained alike and measured alike.

    python benchmarks/ablation.py --data_path PHOTOS --eval_path OTHER_PHOTOS [--steps 6000] [--batch_size 4]
                                  [--image_size 256] [--N 128] [--M 320] [--lr 5e-4] [--seed 0]
                                  [--lambda_rates 1e-2,4.4e-3,1.9e-3,8.3e-4,3.6e-4]
                                  [--only factorised,scale] [--device cpu] [--threads 0]
                                  [--work_dir runs/ablation] [--output data/results/ablation.json]

Trains on --data_path, for --steps steps each, and measures on --eval_path; never on one photo twice. Stopped,
it goes on from where it was when started again: what is trained and measured stays in --work_dir. The
training is `dhp train`'s own (`dhp_lab.training.codec_trainer.Trainer`), with its crops, its loss and all
lambdas in one model. What a variant changes (`ablation_variants.py`):

| variant           | trained         | what is different                                                    |
|-------------------|-----------------|----------------------------------------------------------------------|
| factorised        | a codec         | no hyperprior: one learnt density a channel, for every picture       |
| scale             | a codec         | it predicts a scale alone; the mean of y is 0 (Ballé et al. 2018)    |
| mean-scale        | a codec         | it predicts both (Minnen et al. 2018): the codec without denoiser    |
| dead-zone         | a codec         | mean-scale, with dead-zone quantisation (0.35)                       |
| passes            | a codec         | mean-scale, in four coding passes                                    |
| denoiser          | its denoiser,   | K = 1 and K = 4; linear schedule of 50 times                         |
|                   | codec frozen    |                                                                      |
| cosine            | likewise        | cosine schedule of 50 times                                          |
| T-10, T-200       | likewise        | linear schedules of 10 and of 200 times (diffusion_steps)            |
| uniform-rounding  | likewise        | D is trained on y plus uniform noise as wide as a bin, not symbols   |
| gaussian-rounding | likewise        | D is trained on y plus Gaussian noise of a bin's variance, likewise  |
| uniform-chain     | likewise        | the noise of the levels below t* is uniform, of the same variance    |

The last seven start from the codec of mean-scale and from one new denoiser, and share seed and crops: their K
= 0 is mean-scale. A schedule enters the training only through its last noise level, and the decoding only
where K is above 1.

| column           | meaning                                                                                 |
|------------------|-----------------------------------------------------------------------------------------|
| bits             | files: whole .dhp files, written and decoded. estimate: -log2 of the likelihood of      |
|                  | y's symbols and the bytes of a header, for a variant that has no coder                  |
| lambda: bpp / dB | bits per pixel and PSNR at that lambda, means over the photos                           |
| texture          | gradient energy over the photo's, at the middle one of the lambdas                      |
| BD-rate          | by PSNR, against K = 0 of mean-scale                                                    |
| against denoiser | BD-rate by PSNR against the variant `denoiser` at the same K                            |
| minutes          | of its own training; those of mean-scale come before the last seven                     |

Each training and each measurement is a process of its own. Prints a table, and writes it as JSON and
Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from ablation_variants import BASE, DENOISER, VARIANTS, rate_and_distortion, train
from common import (
    ROOT,
    add_machine_options,
    answer,
    bd_rate_or_reason,
    command_line,
    heading,
    listed,
    markdown_table,
    new_parser,
    one_of,
    page,
    percent_cell,
    run_child,
    save,
    set_threads,
)

from dhp_lab.core.environment import environment
from dhp_lab.core.files import write_atomic
from dhp_lab.core.settings import choose_device
from dhp_lab.evaluation.measurements import Point

TRAINED_ALIKE = ("data_path", "steps", "batch_size", "image_size", "N", "M", "lr", "seed")
FIGURES = ("setting", "bpp", "psnr", "ms_ssim", "texture")  # of a point, that are kept
AGAINST = ("against_base", "against_denoiser")


def check_work_dir(options: argparse.Namespace) -> None:
    """Leave a note of what a folder's variants were trained with, and refuse one with another note.

    Raises:
        SystemExit: the folder holds other variants.
    """
    note = {name: str(getattr(options, name)) for name in TRAINED_ALIKE}
    file = options.work_dir / "options.json"
    options.work_dir.mkdir(parents=True, exist_ok=True)
    if file.exists() and json.loads(file.read_text()) != note:
        sys.exit(
            f"{options.work_dir} holds variants trained with {file.read_text().strip()}: "
            "name another --work_dir, or the same options"
        )
    write_atomic(file, (json.dumps(note) + "\n").encode())


def points_of(name: str, options: argparse.Namespace, words: list[str]) -> list[Point]:
    """Train and measure a variant if that has not been done; return its points.

    Args:
        words: of the command line, which the processes that do it get too.
    """

    def run(job: str) -> dict:
        print(f"{job} {name}", file=sys.stderr)
        return run_child(__file__, [*words, "--job", job, "--variant", name], show=True)

    folder = options.work_dir / name
    if not (folder / "final_checkpoint" / "model.safetensors").exists():
        run("train")
    wanted = {"eval_path": options.eval_path.name, "lambda_rates": list(options.lambda_rates)}
    file = folder / "measured.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    if found.get("wanted") != wanted:
        found = {"wanted": wanted, **run("measure")}
        write_atomic(file, (json.dumps(found) + "\n").encode())
    return [Point(**point) for point in found["points"]]


def measure_rows(points: dict[str, list[Point]], options: argparse.Namespace) -> list[dict]:
    """Return one row for each variant and K: its points, and its BD-rates."""
    curves = {}
    for name, own in points.items():
        for k in VARIANTS[name].steps:
            curves[name, k] = [point for point in own if point.codec == f"K={k}"]
    rows = []
    for (name, k), own in curves.items():
        variant = VARIANTS[name]
        seconds = json.loads((options.work_dir / name / "seconds.json").read_text())
        beside = curves.get((DENOISER, k)) if variant.base and name != DENOISER else None
        rows.append(
            {
                "variant": name,
                "title": variant.title,
                "K": k,
                "bits": "estimate" if name == "factorised" else "files",
                "minutes": seconds / 60,
                "points": [{figure: getattr(point, figure) for figure in FIGURES} for point in own],
                "against_base": gain(None if name == BASE else curves.get((BASE, 0)), own),
                "against_denoiser": gain(beside, own),
            }
        )
    return rows


def gain(anchor: list[Point] | None, test: list[Point]) -> dict | None:
    """Return the BD-rate by PSNR, or the reason why there is none; None without an anchor."""
    if anchor is None:
        return None
    curves = [([point.bpp for point in own], [point.psnr for point in own]) for own in (anchor, test)]
    return bd_rate_or_reason(*curves)


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    rates, rows, reasons = found["lambda_rates"], [], []
    for row in found["rows"]:
        pairs = [f"{point['bpp']:.3f} / {point['psnr']:.2f}" for point in row["points"]]
        texture = f"{row['points'][len(rates) // 2]['texture']:.2f}"
        gains = [percent_cell(row[name]) for name in AGAINST]
        cells = [row["title"], row["K"], row["bits"], *pairs, texture, *gains, f"{row['minutes']:.0f}"]
        rows.append(cells)
        for name in AGAINST:
            if row[name] and row[name]["percent"] is None:
                reasons.append(f"{row['title']}, K = {row['K']}: {row[name]['reason']}")
    heads = ["variant", "K", "bits", *(f"{rate:g}: bpp / dB" for rate in rates), "texture", "BD-rate"]
    return page(
        heading(found, f"{found['pictures']} photos"),
        markdown_table([*heads, "against denoiser", "minutes"], rows),
        "\n".join(dict.fromkeys(reasons)),
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "ablation")
    parser.add_argument("--data_path", type=Path, required=True, help="photos to train on")
    parser.add_argument("--eval_path", type=Path, required=True, help="other photos, to measure on")
    parser.add_argument("--steps", type=int, default=6000, help="of each training")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--image_size", type=int, default=256, help="side of the crops, a multiple of 64")
    parser.add_argument("--N", type=int, default=128)
    parser.add_argument("--M", type=int, default=320)
    parser.add_argument("--lr", type=float, default=5e-4, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    rates = (1e-2, 4.4e-3, 1.9e-3, 8.3e-4, 3.6e-4)
    parser.add_argument("--lambda_rates", type=listed(float), default=rates, help="four or more")
    parser.add_argument(
        "--only",
        type=listed(one_of(VARIANTS)),
        default=tuple(VARIANTS),
        help=f"some variants, separated by commas; {BASE} is always among them",
    )
    parser.add_argument(
        "--work_dir", type=Path, default=ROOT / "runs" / "ablation", help="trainings, kept to go on from"
    )
    add_machine_options(parser)
    parser.add_argument("--job", choices=("train", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=tuple(VARIANTS), help=argparse.SUPPRESS)
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the options: variants in our order, with the one that all others are compared with."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.data_path.resolve() == options.eval_path.resolve():
        parser.error("--data_path and --eval_path are one folder: measure on photos that were not trained on")
    options.only = tuple(name for name in VARIANTS if name in options.only or name == BASE)
    return options


def do_job(options: argparse.Namespace) -> dict:
    """Train or measure one variant in this process."""
    set_threads(options)
    if options.job == "train":
        return train(options.variant, options)
    return {"points": [asdict(point) for point in rate_and_distortion(options.variant, options)]}


def main(arguments: list[str] | None = None) -> None:
    """Be the parent, or a child where --job is given."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parse(words)
    if options.job:
        answer(lambda: do_job(options))
        return
    check_work_dir(options)
    points = {name: points_of(name, options, words) for name in options.only}
    names = ["data_path", "eval_path", *TRAINED_ALIKE[1:], "lambda_rates", "only"]
    found = {
        "command": command_line(__file__, options, names),
        "environment": environment(choose_device(options.device)),
        "lambda_rates": options.lambda_rates,
        "pictures": points[BASE][0].pictures,
        "rows": measure_rows(points, options),
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
