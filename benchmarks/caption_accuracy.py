"""Do the pictures show what their captions say? Checked on the pixels alone, by
dhp_lab.data.scenes.check_captions.

    python benchmarks/caption_accuracy.py [--count 512] [--seed 1000000] [--checkpoints data/checkpoints]
                                          [--device cpu] [--output data/results/caption_accuracy.json]

The shipped latent diffusion models, f = 4 and 8, draw a picture for each caption by DDIM: first at several
scales of guidance, then in more and in fewer steps. Prints a table, and writes it as JSON and Markdown.

    placed    the named colours and kinds are there, and the first shape at the named side of the others
    matches   the sizes are right too, and there is no other shape

The shares have 95 % intervals (Wilson). Guidance 0 ignores the caption, 1 is the network as it was trained.
Three kinds of lines bound what can be expected: the drawn scenes themselves; these after the first stage has
coded and decoded them, which no model on its latents surpasses but by luck; and the drawn scenes beside each
other's captions, which is chance.

The captions come from a seed beyond those of training. There are 54 captions of one shape, 9 720 of two and
349 920 of three: most of those with three shapes are new to a model that was trained on 32 768 captions,
those with one are not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

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
from scipy.stats import binomtest
from torch import Tensor

from dhp_lab.codec.checkpoint import model_id
from dhp_lab.core.environment import environment
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.settings import choose_device
from dhp_lab.data.scenes import CaptionCheck, batch, check_captions, parse
from dhp_lab.latent.autoencoders import decode, encode
from dhp_lab.latent.pipeline import LatentDiffusion

FACTORS = (4, 8)
GUIDANCE, STEPS = 4.0, 25
SETTINGS = (*((scale, STEPS) for scale in (0.0, 1.0, 2.0, 4.0, 7.0)), (GUIDANCE, 10), (GUIDANCE, 50))
SHAPES = {1: "one thing", 2: "two", 3: "three"}  # names in the file and in the table
CHUNK = 64  # captions drawn together
MEASURES = ("placed", "matches")  # of a CaptionCheck


def share(checks: Sequence[bool]) -> dict[str, float] | None:
    """Return the share of those that hold, with its 95 % interval; None of nothing."""
    if not checks:
        return None
    found = binomtest(sum(checks), len(checks))
    low, high = found.proportion_ci(method="wilson")
    return {"share": found.statistic, "low": low, "high": high, "count": len(checks)}


def shares(checks: Sequence[CaptionCheck], captions: Sequence[str]) -> dict[str, dict]:
    """Return the share of each measure, among all captions and among those with one, two and three shapes."""
    counts = [len(parse(caption).shapes) for caption in captions]
    found = {}
    for measure in MEASURES:
        values = [getattr(check, measure) for check in checks]
        found[measure] = {"all": share(values)}
        for number, name in SHAPES.items():
            of_number = [value for value, count in zip(values, counts, strict=True) if count == number]
            found[measure][name] = share(of_number)
    return found


def draw(
    model: LatentDiffusion, captions: Sequence[str], guidance: float, steps: int, seed: int
) -> tuple[Tensor, float]:
    """Return the pictures, and the seconds for one of them."""
    begin, pictures = perf_counter(), []
    for first in range(0, len(captions), CHUNK):
        some = captions[first : first + CHUNK]
        pictures.append(model.sample(some, guidance=guidance, steps=steps, seed=seed + first).cpu())
    return torch.cat(pictures), (perf_counter() - begin) / len(captions)


@torch.no_grad()
def reconstruct(model: LatentDiffusion, x: Tensor) -> Tensor:
    """Return pictures coded and decoded by the first stage."""
    parts = []
    for part in x.split(CHUNK):
        z = encode(model.vae, part.to(model.device))
        parts.append(decode(model.vae, z).cpu())
    return torch.cat(parts)


def measure_rows(models: dict[int, LatentDiffusion], count: int, seed: int) -> Iterator[dict]:
    """Measure one line of the table after the other."""
    x, captions = batch(count, seed)

    def accuracy(pictures: Tensor) -> dict[str, dict]:
        return shares(check_captions(pictures, captions), captions)

    yield {"name": "drawn scenes", **accuracy(x)}
    for f, model in models.items():
        yield {"name": f"drawn scenes, coded and decoded, f = {f}", **accuracy(reconstruct(model, x))}
    yield {"name": "drawn scenes, another's caption", **accuracy(x.roll(1, 0))}
    for f, model in models.items():
        for guidance, steps in SETTINGS:
            pictures, seconds = draw(model, captions, guidance, steps, seed)
            setting = {"f": f, "guidance": guidance, "steps": steps, "seconds": seconds}
            yield {"name": f"f = {f}", **setting, **accuracy(pictures)}


def share_cell(found: dict | None, *, interval: bool = False) -> str:
    """Return a cell: the share, and its interval."""
    if found is None:
        return "-"
    text = f"{100 * found['share']:.1f} %"
    return f"{text} ({100 * found['low']:.1f}..{100 * found['high']:.1f})" if interval else text


def table(found: dict) -> str:
    """Return everything as Markdown."""
    models = ", ".join(f"f = {f}: {name}" for f, name in found["models"].items())
    rows = []
    for row in found["rows"]:
        drawn = "f" in row
        setting = [f"{row['guidance']:g}", row["steps"]] if drawn else ["", ""]
        placed, matches = (share_cell(row[measure]["all"], interval=True) for measure in MEASURES)
        parts = [share_cell(row["placed"][name]) for name in SHAPES.values()]
        seconds = f"{row['seconds']:.2f}" if drawn else ""
        rows.append([row["name"], *setting, placed, *parts, matches, seconds])
    heads = [
        "pictures",
        "guidance",
        "steps",
        "placed (95 %)",
        *SHAPES.values(),
        "matches (95 %)",
        "s a picture",
    ]
    return page(
        heading(found, f"{found['count']} captions, DDIM", f"models {models}"), markdown_table(heads, rows)
    )


def identity(folder: Path) -> str:
    """Return a hash of a model's files: config.json and weights of each of its parts."""
    weights = sorted(folder.glob("*/*.safetensors"))
    configs = [path.parent / "config.json" for path in weights]
    settings, numbers = (b"".join(path.read_bytes() for path in files) for files in (configs, weights))
    return model_id(settings, numbers).hex()


def measure_all(options: argparse.Namespace) -> dict:
    """Return all figures, and what they depend on."""
    device = choose_device(options.device)
    folders = {f: options.checkpoints / f"scenes-f{f}" for f in FACTORS}
    models = {f: LatentDiffusion.load(folder, device=device, check=parse) for f, folder in folders.items()}
    rows = list(measure_rows(models, options.count, options.seed))
    return {
        "command": command_line(__file__, options, ["count", "seed"]),
        "environment": environment(device),
        "models": {f: identity(folder) for f, folder in folders.items()},
        "count": options.count,
        "rows": rows,
    }


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "caption_accuracy")
    parser.add_argument("--count", type=int, default=512, help="captions for each line")
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the captions and of all noise")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help="holds scenes-f4 and scenes-f8")
    add_machine_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
