"""Do the pictures show what their captions ask for? Checked on the pixels alone, by
dhp_lab.data.scenes.check_captions.

    python benchmarks/caption_obedience.py [--count 512] [--seed 1000000] [--checkpoints data/checkpoints]
                                           [--output data/results/caption_obedience.json]

The shipped latent diffusion models, f = 4 and 8, draw a picture for each caption by DDIM: first at several
scales of guidance, then in more and in fewer steps. Prints a table, and writes it as JSON and Markdown.

    placed   the asked colours and kinds are there, and the first thing at the asked side of the others
    obeyed   the sizes are right too, and there is nothing else

The shares have 95 % intervals (Wilson). Guidance 0 ignores the caption, 1 is the network as it was trained.
Three kinds of lines bound what can be expected: the drawn scenes themselves; these after the first stage has
coded and decoded them, which no model on its latents surpasses but by luck; and the drawn scenes beside each
other's captions, which is chance.

The captions come from a seed beyond those of training. There are 54 captions of one thing, 9 720 of two and
349 920 of three: most of those with three things are new to a model that was trained on 32 768 captions,
those with one are not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import torch
from saving import save
from scipy.stats import binomtest
from torch import Tensor

from dhp_lab.codec.checkpoint import model_id
from dhp_lab.core.environment import environment
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.settings import choose_device
from dhp_lab.data.scenes import CaptionCheck, batch, check_captions, parse
from dhp_lab.latent.autoencoders import decode, encode
from dhp_lab.latent.pipeline import LatentDiffusion

ROOT = Path(__file__).resolve().parents[1]
FACTORS = (4, 8)
GUIDANCE, STEPS = 4.0, 25
SETTINGS = (*((scale, STEPS) for scale in (0.0, 1.0, 2.0, 4.0, 7.0)), (GUIDANCE, 10), (GUIDANCE, 50))
THINGS = {1: "one thing", 2: "two", 3: "three"}
CHUNK = 64  # captions drawn together
MEASURES = {"placed": "placed", "obeyed": "matches"}  # name in the file -> attribute of a CaptionCheck


def share(held: Sequence[bool]) -> dict[str, float] | None:
    """Return a share with its 95 % interval; None of nothing."""
    if not held:
        return None
    found = binomtest(sum(held), len(held))
    low, high = found.proportion_ci(method="wilson")
    return {"share": found.statistic, "low": low, "high": high, "count": len(held)}


def shares(checks: Sequence[CaptionCheck], captions: Sequence[str]) -> dict[str, dict]:
    """Return the share of each measure, among all captions and among those with one, two and three things."""
    counts = [len(parse(caption).shapes) for caption in captions]
    found = {}
    for name, attribute in MEASURES.items():
        held = [getattr(check, attribute) for check in checks]
        some = {
            number: [one for one, count in zip(held, counts, strict=True) if count == number]
            for number in THINGS
        }
        found[name] = {"all": share(held)} | {THINGS[number]: share(part) for number, part in some.items()}
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
def through(model: LatentDiffusion, x: Tensor) -> Tensor:
    """Return pictures as the first stage gives them back."""
    parts = (decode(model.vae, encode(model.vae, part.to(model.device))).cpu() for part in x.split(CHUNK))
    return torch.cat(list(parts))


def rows(models: dict[int, LatentDiffusion], count: int, seed: int) -> Iterator[dict]:
    """Measure one line of the table after the other."""
    x, captions = batch(count, seed)
    yield {"name": "drawn scenes", **shares(check_captions(x, captions), captions)}
    for f, model in models.items():
        yield {
            "name": f"drawn scenes, coded and decoded, f = {f}",
            **shares(check_captions(through(model, x), captions), captions),
        }
    yield {
        "name": "drawn scenes, another's caption",
        **shares(check_captions(x.roll(1, 0), captions), captions),
    }
    for f, model in models.items():
        for guidance, steps in SETTINGS:
            pictures, seconds = draw(model, captions, guidance, steps, seed)
            found = shares(check_captions(pictures, captions), captions)
            yield {
                "name": f"f = {f}",
                "f": f,
                "guidance": guidance,
                "steps": steps,
                "seconds": seconds,
                **found,
            }


def percent(found: dict | None, *, interval: bool = False) -> str:
    """Return a cell: the share, and its interval."""
    if found is None:
        return "-"
    text = f"{100 * found['share']:.1f} %"
    return f"{text} ({100 * found['low']:.1f}..{100 * found['high']:.1f})" if interval else text


def table(found: dict) -> str:
    """Return everything as Markdown."""
    place = found["environment"]
    models = ", ".join(f"f = {f}: {name}" for f, name in found["models"].items())
    lines = [
        f"`{found['command']}` on {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, "
        f"{place['date']}; {found['count']} captions, DDIM; models {models}",
        "",
        "| pictures | guidance | steps | placed (95 %) | one thing | two | three | obeyed (95 %) | s a picture |",
        "|---|" + 8 * "---:|",
    ]
    for row in found["rows"]:
        setting = [f"{row['guidance']:g}", f"{row['steps']}"] if "f" in row else ["", ""]
        parts = [percent(row["placed"][name]) for name in THINGS.values()]
        whole = [percent(row[name]["all"], interval=True) for name in MEASURES]
        seconds = f"{row['seconds']:.2f}" if "f" in row else ""
        lines.append("| " + " | ".join([row["name"], *setting, whole[0], *parts, whole[1], seconds]) + " |")
    return "\n".join(lines)


def measure_all(options: argparse.Namespace) -> dict:
    """Return all figures, and what they depend on."""
    device = choose_device(options.device)
    folders = {f: options.checkpoints / f"scenes-f{f}" for f in FACTORS}
    models = {f: LatentDiffusion.load(folder, device=device, check=parse) for f, folder in folders.items()}
    found = list(rows(models, options.count, options.seed))
    return {
        "command": f"python benchmarks/caption_obedience.py --count {options.count} --seed {options.seed}",
        "environment": environment(device),
        "models": {f: identity(folder) for f, folder in folders.items()},
        "count": options.count,
        "rows": found,
    }


def identity(folder: Path) -> str:
    """Return what tells one model's files from another's."""
    parts = [(path.parent / "config.json", path) for path in sorted(folder.glob("*/*.safetensors"))]
    return model_id(
        b"".join(config.read_bytes() for config, _ in parts), b"".join(path.read_bytes() for _, path in parts)
    ).hex()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=512, help="captions for each line")
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the captions and of all noise")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help="holds scenes-f4 and scenes-f8")
    parser.add_argument("--device", help="cpu or cuda; the fastest there is if not given")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "caption_obedience.json")
    options = parser.parse_args()
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
