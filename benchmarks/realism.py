"""The realism decoder as a trade: what does a drawn picture lose and get, and do the controls get it too?

    python benchmarks/realism.py [--data_path PHOTOS] [--model_path DIR] [--lambda_rates 2e-2,7e-3,2e-3]
                                 [--steps 2,4] [--gammas 0,0.5] [--chain_steps 4] [--seed 0]
                                 [--codecs jpeg,avif,vvc] [--device cpu] [--threads 0]
                                 [--metrics psnr,ms-ssim,texture,lpips,dists,patch-kid]
                                 [--output data/results/realism.json]

One .dhp file is written for each photo and lambda, and decoded in every way (`realism_decoders.py`): without
diffusion, as posterior mean, by the realism part with each K and gamma, and by the controls: the posterior
mean with white noise of the variance that the entropy model expects, the latents' own chain, and the realism
part with its expected errors spread evenly over the picture. Of each other codec there is the largest file
that is no larger than the .dhp file. Without --data_path the photos are those that come with scikit-image and
scikit-learn. A checkpoint without a realism part has no rows of it.

| column    | meaning                                                                              | better |
|-----------|--------------------------------------------------------------------------------------|--------|
| bpp       | bits of the whole file a pixel, mean over the photos                                 | less   |
| PSNR      | dB, mean over the photos                                                             | more   |
| MS-SSIM   | mean over the photos; left out where one has a side below 161 pixels                 | more   |
| texture   | gradient energy over the photo's, mean over the photos                               | 1      |
| LPIPS     | on AlexNet (Zhang et al. 2018), mean over the photos                                 | less   |
| DISTS     | on VGG-16 (Ding et al. 2020), mean over the photos                                   | less   |
| patch-KID | of all photos' 64-pixel patches in EfficientNet's features (`metrics.patch_distance`)| less   |

LPIPS, DISTS and patch-KID are left out, with a line, where `dhp download metric-networks` was not run.
Intervals are of 95 %, by a bootstrap over photos. The second table of each lambda has differences over the
same photos: the realism part with the last K and the first gamma less each other way, and K = 1 less K = 0.

Prints both tables for each lambda, and writes them as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from realism_decoders import CHAIN, NOISE, ONE, REALISM, SETTINGS, ZERO, Way, decode_every_way, nearest_below
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.core.environment import environment
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.core.settings import choose_device
from dhp_lab.core.weights import CheckpointError
from dhp_lab.evaluation.classical import CodecError
from dhp_lab.evaluation.codecs import choose, find_codec
from dhp_lab.evaluation.evaluate import model_ids
from dhp_lab.evaluation.judges import NAMES, PATCH_KID, Judges, choose_metrics, without_folders
from dhp_lab.evaluation.measurements import Measurement, average
from dhp_lab.metrics.paired import Interval, mean_difference
from dhp_lab.metrics.patch_distance import kernel_distance_difference

COLUMNS = {  # title and decimals
    "bpp": ("bpp", 3),
    "psnr": ("PSNR", 2),
    "ms_ssim": ("MS-SSIM", 4),
    "texture": ("texture", 3),
    "lpips": ("LPIPS", 3),
    "dists": ("DISTS", 3),
    "patch_kid": ("patch-KID", 3),
}
OURS = ("K = 0", "K = 1", REALISM)  # the other ways are controls
KEYS = {"decoder": "l", "K": "r", "gamma": "r"}  # what names a row, and how it is aligned
USUAL = ("psnr", "ms-ssim", "texture", "lpips", "dists", PATCH_KID)


@dataclass
class Run:
    """What is measured meanwhile.

    Attributes:
        judges: by what. codecs: keys of the other codecs that work.
        ways: by name, in the order of their first appearance. measured: all pictures in all ways.
        notes: lines on what is left out. larger: photos whose smallest file is larger, by lambda and codec.
    """

    judges: Judges
    codecs: list[str]
    notes: list[str]
    ways: dict[str, Way] = field(default_factory=dict)
    measured: list[Measurement] = field(default_factory=list)
    larger: dict[tuple[float, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, way: Way, rate: float, name: str, x: Tensor, x_hat: Tensor, n_bytes: int) -> None:
        """Measure a picture, (1, 3, H, W) in [0, 1], that was decoded."""
        self.ways.setdefault(way.name, way)
        facts = {"codec": way.name, "setting": rate, "picture": name, "n_bytes": n_bytes}
        self.measured.append(self.judges.measure(x_hat, x, **facts, encode_seconds=0.0, decode_seconds=0.0))

    def add_rivals(self, rate: float, name: str, x: Tensor, n_bytes: int) -> None:
        """Measure the other codecs' files of at most so many bytes."""
        for key in list(self.codecs):
            title = find_codec(key).name
            try:
                found = nearest_below(key, x, n_bytes)
            except CodecError as error:
                self.codecs.remove(key)
                self.ways.pop(title, None)
                self.measured = [one for one in self.measured if one.codec != title]
                self.notes.append(f"{title} is left out, it failed at {name}: {error}")
                continue
            if found.n_bytes > n_bytes:
                self.larger[rate, title].append(name)
            self.add(Way(title), rate, name, x, found.picture, found.n_bytes)

    def lines(self) -> list[str]:
        """The notes, and what the pictures left to be noted."""
        notes = [*self.notes, *self.judges.notes(self.measured)]
        for (rate, title), names in self.larger.items():
            notes.append(f"lambda {rate:g}: the smallest file of {title} is larger, of {', '.join(names)}")
        return notes


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Code and decode all photos by all codecs; return every figure."""
    device = choose_device(options.device)
    metrics, lines = choose_metrics(options.metrics)
    codecs, missing = choose(options.codecs)
    working = [key for key in dict.fromkeys(options.codecs) if find_codec(key) in codecs]
    notes = [*map(without_folders, lines), *missing]
    try:
        model = load_codec(options.model_path, device)
    except CheckpointError as error:
        sys.exit(str(error))
    if model.realism is None:
        notes.append(
            f"{Path(options.model_path).name} has no realism part, so there are no rows of it: "
            "`dhp train-realism` makes one"
        )
    run, names = Run(Judges(metrics, device=device, seed=options.seed), working, notes), []
    chosen = {name: getattr(options, name) for name in ("steps", "gammas", "chain_steps", "seed")}
    for name, x in photos_of(options.data_path):
        for rate in options.lambda_rates:
            data = dhp_file.encode(model, x, lambda_rate=rate)
            for way, x_hat in decode_every_way(model, data, **chosen):
                run.add(way, rate, name, x, x_hat, len(data))
            run.add_rivals(rate, name, x, len(data))
            print(f"{name}, lambda {rate:g}: {len(data)} bytes", file=sys.stderr)
        names.append(name)
    rows = rows_of(run)
    given = ("data_path", "lambda_rates", *chosen, "codecs", "metrics")
    return {
        "command": command_line(__file__, options, given),
        "model": Path(options.model_path).name,
        **model_ids(model),
        "environment": environment(device),
        "pictures": names,
        "notes": run.lines(),
        "rows": [row for row in rows if row["decoder"] in OURS],
        "controls": [row for row in rows if row["decoder"] not in OURS],
        "differences": list(differences(run)),
    }


def rows_of(run: Run) -> list[dict[str, object]]:
    """The mean figures of each way at each lambda; those that some photo has not are left out."""
    rows = []
    for point in run.judges.judge(average(run.measured)):
        way = run.ways[point.codec]
        row = {"lambda_rate": point.setting, "decoder": way.decoder, "K": way.steps, "gamma": way.gamma}
        names = [*COLUMNS, "patch_kid_low", "patch_kid_high"]
        figures = {name: getattr(point, name) for name in names}
        rows.append(row | {name: value for name, value in figures.items() if value is not None})
    return rows


def compared(ways: dict[str, Way]) -> list[tuple[str, str]]:
    """Which ways are compared, by name: the first less the second."""
    drawn = [way for way in ways.values() if way.decoder == REALISM]
    pairs = [(ONE.name, ZERO.name)]
    if not drawn:
        chain = next(name for name, way in ways.items() if way.decoder == CHAIN)
        return [*pairs, (chain, NOISE)]
    last = max(way.steps for way in drawn)
    best = next(way for way in drawn if way.steps == last)
    blends = {way.name for way in drawn if way.gamma != best.gamma}
    return pairs + [(best.name, name) for name in ways if name != best.name and name not in blends]


def differences(run: Run) -> Iterator[dict[str, object]]:
    """The differences of ``compared`` ways at each lambda, by every metric that all photos have."""
    figures = defaultdict(list)  # of the photos, in one order
    for one in run.measured:
        figures[one.setting, one.codec].append(one)
    for rate in dict.fromkeys(one.setting for one in run.measured):
        for name, other in compared(run.ways):
            pair = figures[rate, name], figures[rate, other]
            row = {"lambda_rate": rate, "of": name, "less": other}
            for metric in [metric for metric in COLUMNS if metric not in ("bpp", "patch_kid")]:
                a, b = ([getattr(one, metric) for one in own] for own in pair)
                if None not in (*a, *b):
                    row[metric] = interval_fields(mean_difference(a, b))
            if PATCH_KID in run.judges.names:
                row |= _patch_difference(run.judges, rate, name, other)
            yield row


def _patch_difference(judges: Judges, rate: float, name: str, other: str) -> dict[str, object]:
    """The difference of patch-KID; nothing where there are no two patches."""
    sets = judges.fake[name, rate], judges.fake[other, rate]
    seen = [photo for photo, features in judges.real.items() if len(features)]
    if sum(len(judges.real[photo]) for photo in seen) < 2:
        return {}
    real, fake, rival = ([one[photo] for photo in seen] for one in (judges.real, *sets))
    return {"patch_kid": interval_fields(kernel_distance_difference(real, fake, rival, seed=judges.seed))}


def interval_fields(found: Interval) -> dict[str, float | None]:
    """An interval as JSON has it."""
    return found._asdict()


# ---------------------------------------------------------------------------------------------------- tables


def table(found: dict) -> str:
    """Return all figures as Markdown, one or two tables for each lambda."""
    rows = [*found["rows"], *found.get("controls", [])]
    keys = [key for key in KEYS if key in rows[0]]
    names = [name for name in COLUMNS if all(name in row for row in rows)]
    if "decoder" not in keys:  # all rows are of one file
        names.remove("bpp")
    tables = []
    for rate in dict.fromkeys(row["lambda_rate"] for row in rows):
        tables.append(lambda_table(rate, [row for row in rows if row["lambda_rate"] == rate], keys, names))
        own = [one for one in found.get("differences", []) if one["lambda_rate"] == rate]
        tables.append(differences_table(own))
    model = f"model {found['model']} ({found['model_id']})"
    if part := found.get("realism_id"):
        model += f", realism part {part}"
    return page(
        heading(found, f"{len(found['pictures'])} photos, {model}"),
        *tables,
        "\n".join(f"- {note}" for note in found["notes"]),
    )


def lambda_table(rate: float, rows: list[dict], keys: Sequence[str], names: Sequence[str]) -> str:
    """Return the table of one lambda."""
    lines = [[*(_key(row[key]) for key in keys), *(_figure(row, name) for name in names)] for row in rows]
    first, *others = keys
    heads = [f"lambda {rate:g}, {rows[0]['bpp']:.3f} bpp: {first}", *others]
    align = "".join(KEYS[key] for key in keys) + "r"
    return markdown_table([*heads, *(COLUMNS[name][0] for name in names)], lines, align=align)


def _key(value: str | float | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"


def _figure(row: dict, name: str) -> str:
    digits = COLUMNS[name][1]
    text = f"{row[name]:.{digits}f}"
    if (low := row.get(f"{name}_low")) is not None:
        text += f" ({low:.{digits}f}..{row[f'{name}_high']:.{digits}f})"
    return text


def differences_table(rows: list[dict]) -> str:
    """Return the differences at one lambda, with their intervals."""
    if not rows:
        return ""
    names = [name for name in COLUMNS if all(name in row for row in rows)]
    lines = [
        [f"{row['of']} less {row['less']}", *(_difference(row[name], name) for name in names)] for row in rows
    ]
    return markdown_table(["difference (95 %)", *(COLUMNS[name][0] for name in names)], lines)


def _difference(found: dict, name: str) -> str:
    digits = COLUMNS[name][1]
    text = f"{found['value']:+.{digits}f}"
    if found["low"] is not None:
        text += f" ({found['low']:+.{digits}f}..{found['high']:+.{digits}f})"
    return text


# --------------------------------------------------------------------------------------------------- options


def at_least(least: float, most: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return a reader of a number in a range."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is no number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"it must lie in {least:g} .. {most:g}, got {text}")
        return value

    return read


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "realism")
    parser.add_argument("--data_path", type=Path, help="folder of photos; those of the packages if not given")
    parser.add_argument("--model_path", help="the shipped checkpoint if not given")
    parser.add_argument("--lambda_rates", type=listed(float), default=(2e-2, 7e-3, 2e-3))
    drawing = listed(at_least(2, 1000, int))
    parser.add_argument("--steps", type=drawing, default=(2, 4), help="K of the realism part, rising")
    parser.add_argument("--gammas", type=listed(at_least(0, 1, float)), default=(0.0, 0.5))
    parser.add_argument("--chain_steps", type=at_least(2, 1000, int), default=4, help="K of the latent chain")
    parser.add_argument("--seed", type=int, default=0, help="of the noise that is drawn")
    parser.add_argument("--codecs", type=listed(one_of(SETTINGS)), default=("jpeg", "avif", "vvc"))
    parser.add_argument("--metrics", type=listed(one_of(NAMES)), default=USUAL, help="as of `dhp evaluate`")
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
