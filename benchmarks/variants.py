"""Every change that was tried on the shipped codec: what it cost to train, and what it brought on photos held
out of training.

    python benchmarks/variants.py --data_path PHOTOS
                                  --variant "fourth=data/checkpoints/diffusion-hyperprior"
                                  --variant "as it is=data/checkpoints/diffusion-hyperprior dead_zone=0.3"
                                  --variant "four passes=runs/fifth"
                                  --variant "with a trellis=runs/fifth trellis=true"
                                  [--kept "four passes"] [--crops 48] [--steps 0,1]
                                  [--output data/results/variants.json]

A variant is a name, a folder, and settings of `CodecConfig` that are changed after loading. A folder is a
checkpoint, or what `dhp train` left behind: then its best checkpoint is measured, and steps and minutes are
read from its training.log. The photos are the validation set of `dhp train --data_path PHOTOS` (every 66th of
1059), in crops of 256 x 256; each is written as a whole .dhp file and decoded.

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
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from common import (
    command_line,
    heading,
    listed,
    load_codec,
    markdown_table,
    new_parser,
    page,
    percent_cell,
    save,
)
from torch import Tensor

from dhp_lab.codec.create import with_settings
from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.images import list_images
from dhp_lab.evaluation.config import DEFAULT_LAMBDA_RATES
from dhp_lab.evaluation.evaluate import evaluate
from dhp_lab.metrics.rd_curves import Curve, bd_rate
from dhp_lab.training.codec_photos import split_validation

SIDE = 256
STAMP = "%Y-%m-%d %H:%M:%S"
STAMP_LENGTH = 19


@dataclass(frozen=True)
class Variant:
    """What is measured: a folder, and settings that are changed after loading, as they were typed."""

    name: str
    folder: Path
    settings: tuple[str, ...]

    @property
    def values(self) -> dict[str, bool | float | int]:
        """The settings as numbers, or as true and false."""
        pairs = (setting.split("=") for setting in self.settings)
        words = {"true": True, "false": False}
        return {
            key: words[value] if value in words else float(value) if "." in value else int(value)
            for key, value in pairs
        }

    @property
    def source(self) -> str:
        """The folder's last name and the settings, as they are typed."""
        return " ".join([self.folder.resolve().name, *self.settings])


def variant(text: str) -> Variant:
    """Read "name=folder setting=value"."""
    name, _, words = text.partition("=")
    if not words:
        raise argparse.ArgumentTypeError(f'a variant is "name=folder" with settings behind it, got "{text}"')
    folder, *settings = words.split(" ")
    return Variant(name, Path(folder), tuple(settings))


def trained(folder: Path) -> tuple[int | None, float | None]:
    """Return the steps and minutes of the last training in a folder's log; None without a log."""
    log = folder / "training.log"
    if not (folder / "best_checkpoint").is_dir() or not log.exists():
        return None, None
    lines = log.read_text("utf-8").splitlines()
    begin = max(i for i, line in enumerate(lines) if re.search(r"INFO \d+ steps: ", line))
    steps = [int(step) for line in lines[begin:] for step in re.findall(r"step (\d+)", line)]
    first, last = (datetime.strptime(line[:STAMP_LENGTH], STAMP) for line in (lines[begin], lines[-1]))
    return max(steps), (last - first).total_seconds() / 60


def measure(variant: Variant, pictures: list[tuple[str, Tensor]], steps: tuple[int, ...]) -> dict:
    """Return one row: what it is, what training it took, and its curves."""
    best = variant.folder / "best_checkpoint"
    model = load_codec(best if best.is_dir() else variant.folder)
    model = with_settings(model, **variant.values).eval()
    report = evaluate(
        model, pictures, lambda_rates=DEFAULT_LAMBDA_RATES, steps=steps, batch_size=8, codecs=()
    )
    count, minutes = trained(variant.folder)
    names = ("codec", "setting", "bpp", "psnr", "texture")
    return {
        "name": variant.name,
        "source": variant.source,
        "config": asdict(model.config),
        "model_id": model.model_id.hex(),
        "steps": count,
        "minutes": minutes,
        "points": [{name: getattr(point, name) for name in names} for point in report.points],
    }


def curve(row: dict, k: int) -> Curve:
    """Return (bpp, PSNR) of a row at one K."""
    points = [point for point in row["points"] if point["codec"] == f"dhp K={k}"]
    return [point["bpp"] for point in points], [point["psnr"] for point in points]


def gain_cell(anchor: Curve, test: Curve) -> str:
    """Return a BD-rate as a cell; "-" where one of the two was not measured."""
    if not (anchor[0] and test[0]):
        return "-"
    return percent_cell(asdict(bd_rate(anchor, test)))


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    ks, first = found["K"], found["rows"][0]
    rows = []
    for row in found["rows"]:
        cells = [row["name"], row["config"]["passes"], f"{row['config']['dead_zone']:g}"]
        cells.append("-" if row["steps"] is None else row["steps"])
        cells.append("-" if row["minutes"] is None else f"{row['minutes']:.0f}")
        cells += ["-" if row is first else gain_cell(curve(first, k), curve(row, k)) for k in ks]
        cells.append(gain_cell(curve(row, 0), curve(row, 1)) if {0, 1} <= set(ks) else "-")
        cells.append("yes" if row["kept"] else "no")
        rows.append(cells)
    gains = [f"BD-rate, K = {k}" for k in ks]
    heads = ["variant", "passes", "dead zone", "steps", "minutes", *gains, "K = 1 against 0", "kept"]
    facts = f"{found['crops']} crops of {found['photos']} photos held out of training"
    return page(heading(found, facts), markdown_table(heads, rows, align="l" + "r" * (len(heads) - 2) + "l"))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "variants")
    parser.add_argument(
        "--data_path", type=Path, required=True, help="the folder of photos that the codec was trained on"
    )
    parser.add_argument(
        "--variant",
        type=variant,
        action="append",
        default=[],
        help='"name=folder" or "name=folder setting=value"; several',
    )
    parser.add_argument(
        "--kept", action="append", default=[], help="name of a variant that the shipped codec has; several"
    )
    parser.add_argument("--crops", type=int, default=48)
    parser.add_argument("--steps", type=listed(int), default=(0, 1), help="K, several")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    photos = split_validation(PhotoCrops(list_images(options.data_path), SIDE, seed=0))
    pictures = [(f"crop {i}", x[None]) for i, x in enumerate(photos.batch(0, options.crops))]
    before = json.loads(options.output.read_text("utf-8"))["rows"] if options.output.exists() else []
    rows = {row["name"]: row for row in before}
    for one in options.variant:
        rows[one.name] = measure(one, pictures, options.steps)
    for row in rows.values():
        kept_before = row.get("kept", False) and not options.kept
        row["kept"] = row["name"] in options.kept or kept_before
    variants = [f'--variant "{name}={row["source"]}"' for name, row in rows.items()]
    found = {
        "command": " ".join([command_line(__file__, options, ["data_path", "crops"]), *variants]),
        "crops": options.crops,
        "photos": len(photos),
        "K": options.steps,
        "rows": list(rows.values()),
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
