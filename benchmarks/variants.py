"""Every change that was tried on the shipped codec: what it cost to train, and what it brought on photos held
out of training.

    python benchmarks/variants.py --data_path PHOTOS --variant "fourth=data/checkpoints/diffusion-hyperprior"
                                  --variant "leaning, nothing trained=data/checkpoints/diffusion-hyperprior dead_zone=0.3"
                                  --variant "four passes=runs/fifth" [--kept "four passes"] [--crops 48] [--steps 0,1]
                                  [--output data/results/variants.json]

A variant is a name, a folder, and settings of `CodecConfig` that are changed after loading. A folder is a
checkpoint, or what `dhp train` left behind: then its best checkpoint is measured, and steps and minutes are
read from its training.log. The photos are the ones that `dhp train --data_path PHOTOS` holds out (it takes
every 66th of 1059), in crops of 256 x 256; each is written as a whole .dhp file and decoded.

| column  | meaning                                                                                   |
|---------|-------------------------------------------------------------------------------------------|
| steps   | of its training; without those of the checkpoint that it started from                     |
| minutes | of them, first to last line of the log, on whatever the machine was doing beside          |
| BD-rate | by PSNR, against the first variant at the same K                                          |
| K = 1   | BD-rate of K = 1 against K = 0 of the same variant                                        |
| kept    | whether the shipped codec has it                                                          |

A variant measured before stays in the output until it is measured again. Prints a table, and writes it as
JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from saving import save

from dhp_lab.codec.create import with_settings
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.images import list_images
from dhp_lab.evaluation.evaluate import DEFAULT_LAMBDA_RATES, evaluate
from dhp_lab.metrics.rd_curves import bd_rate
from dhp_lab.training.codec_trainer import split_validation

ROOT = Path(__file__).resolve().parents[1]
SIDE = 256
STAMP = "%Y-%m-%d %H:%M:%S"


def trained(folder: Path) -> tuple[int | None, float | None]:
    """Steps and minutes of the last training that a folder's log tells of; None without a log."""
    log = folder / "training.log"
    if not (folder / "best_checkpoint").is_dir() or not log.exists():
        return None, None
    lines = log.read_text("utf-8").splitlines()
    begin = max(i for i, line in enumerate(lines) if re.search(r"INFO \d+ steps: ", line))
    first, last = (datetime.strptime(lines[i][:19], STAMP) for i in (begin, -1))
    return max(int(step) for line in lines[begin:] for step in re.findall(r"step (\d+)", line)), (
        last - first
    ).total_seconds() / 60


def loaded(folder: Path, settings: dict[str, float | int]) -> DiffusionHyperprior:
    """The checkpoint, or the best one of a training, with some settings changed."""
    best = folder / "best_checkpoint"
    return with_settings(
        DiffusionHyperprior.from_pretrained(best if best.is_dir() else folder), **settings
    ).eval()


def measured(variant: str, pictures: list, steps: tuple[int, ...]) -> dict:
    """One row: what it is, what training it took, and its curves."""
    name, _, words = variant.partition("=")
    folder, *settings = words.split(" ")
    given = {
        key: float(value) if "." in value else int(value)
        for key, value in (setting.split("=") for setting in settings)
    }
    model = loaded(Path(folder), given)
    report = evaluate(
        model, pictures, lambda_rates=DEFAULT_LAMBDA_RATES, steps=steps, batch_size=8, codecs=()
    )
    count, minutes = trained(Path(folder))
    source = " ".join([Path(folder).resolve().name, *settings])
    return {
        "name": name,
        "source": source,
        "config": asdict(model.config),
        "model_id": model.model_id.hex(),
        "steps": count,
        "minutes": minutes,
        "points": [
            {key: asdict(point)[key] for key in ("codec", "setting", "bpp", "psnr", "texture")}
            for point in report.points
        ],
    }


def curve(row: dict, k: int) -> tuple[list[float], list[float]]:
    """(bpp, PSNR) of a row at one K."""
    points = [point for point in row["points"] if point["codec"] == f"dhp K={k}"]
    return [point["bpp"] for point in points], [point["psnr"] for point in points]


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    ks, rows = found["K"], found["rows"]
    heads = [
        "variant",
        "passes",
        "dead zone",
        "steps",
        "minutes",
        *(f"BD-rate, K = {k}" for k in ks),
        "K = 1 against 0",
        "kept",
    ]
    lines = [
        f"`{found['command']}`: {found['crops']} crops of {found['photos']} photos held out of training",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * 2 + "|---:" * (len(heads) - 3) + "|---|",
    ]
    for row in rows:
        gains = [
            f"{bd_rate(curve(rows[0], k), curve(row, k)).percent:+.1f} %" if row is not rows[0] else "-"
            for k in ks
        ]
        own = f"{bd_rate(curve(row, 0), curve(row, 1)).percent:+.1f} %" if {0, 1} <= set(ks) else "-"
        cost = [
            "-" if row["steps"] is None else f"{row['steps']}",
            "-" if row["minutes"] is None else f"{row['minutes']:.0f}",
        ]
        config = [str(row["config"]["passes"]), f"{row['config']['dead_zone']:g}"]
        lines.append(
            "| "
            + " | ".join([row["name"], *config, *cost, *gains, own, "yes" if row["kept"] else "no"])
            + " |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_path", type=Path, required=True, help="the folder of photos that the codec was trained on"
    )
    parser.add_argument(
        "--variant", action="append", default=[], help='"name=folder" or "name=folder setting=value"; several'
    )
    parser.add_argument(
        "--kept", action="append", default=[], help="name of a variant that the shipped codec has; several"
    )
    parser.add_argument("--crops", type=int, default=48)
    parser.add_argument(
        "--steps", type=lambda text: tuple(map(int, text.split(","))), default=(0, 1), help="K, several"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "variants.json")
    options = parser.parse_args()
    photos = split_validation(PhotoCrops(list_images(options.data_path), SIDE, seed=0))
    pictures = [(f"crop {i}", x[None]) for i, x in enumerate(photos.batch(0, options.crops))]
    before = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    rows = {row["name"]: row for row in before} | {
        row["name"]: row for row in (measured(v, pictures, options.steps) for v in options.variant)
    }
    for row in rows.values():
        row["kept"] = row["name"] in options.kept or (row.get("kept", False) and not options.kept)
    found = {
        "command": f"python benchmarks/variants.py --data_path {options.data_path.resolve().name} --crops {options.crops} "
        + " ".join(f'--variant "{name}={row["source"]}"' for name, row in rows.items()),
        "crops": options.crops,
        "photos": len(photos),
        "K": options.steps,
        "rows": list(rows.values()),
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
