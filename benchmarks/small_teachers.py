"""What do removed blocks cost a U-Net that has none to spare, and what does distillation bring back?

    python benchmarks/small_teachers.py [--seeds 0,1,2] [--training_steps 160] [--distil_steps 24]
                                        [--batch 64] [--scenes 640] [--lr 0.002] [--distil_lr 0.001]
                                        [--count 256] [--device cpu]
                                        [--output data/results/small_teachers.json]

For each seed a small U-Net of convolutions, two layers in each stage and attention in the middle alone, is
trained on the latents of `scenes-f8`, for a minute. It is the teacher. Blocks are removed from it as BK-SDM
does (`dhp_lab.latent.block_removal`): base, small, tiny. Each is measured as cut, and after distillation on
task, output and features. Two controls are trained in the same way, for as many steps: the full U-Net, which
shows what further training alone brings, and tiny from new weights, which shows what the weights that stay
are worth.

    error    of v, a mean square on --count scenes beyond those of training, the same scenes and noise for all
    all      times spread over the chain
    codec    times spread over 1 .. 300, where rounding leaves off for lambda up to 0.1
    change   the student's error minus its teacher's, in percent of the teacher's: paired, because each
             student has its own teacher. The mean over the seeds, with a 95 % interval of Student's t

The JSON is written after each seed, so what a run that was stopped had measured is kept.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from time import process_time

import torch
from block_removal import with_new_weights
from common import (
    add_machine_options,
    command_line,
    heading,
    listed,
    markdown_table,
    new_parser,
    page,
    save,
    set_threads,
)
from diffusers import UNet2DConditionModel
from scipy.stats import t as student_t
from torch import Tensor

from dhp_lab.core.environment import environment
from dhp_lab.core.settings import choose_device
from dhp_lab.diffusion.process import noise_like, q_sample, v_from_eps
from dhp_lab.latent.block_removal import SIZES, smaller_unet
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.training.distillation import DistilConfig, distil
from dhp_lab.training.latent_diffusion import LatentConfig, scaled_latents, train_latent_diffusion
from dhp_lab.training.scene_models import load_scenes

WIDTHS, ATTENTION, LAYERS, TEXT_WIDTH = (16, 16), (False, False), 2, 32
RANGES = {"all": 1000, "codec": 300}  # the last time of each
HELD_OUT = 1_000_000  # seed of the scenes that are measured
CHUNK = 64  # scenes whose error is measured together

Data = tuple[Tensor, list[str]]


@torch.no_grad()
def errors(teacher: LatentDiffusion, unet: UNet2DConditionModel, held_out: Data) -> dict[str, float]:
    """Return the mean squared error of v by range of times; scenes, times and noise are always the same."""
    z, captions = held_out
    count, found = len(z), {}
    for name, last in RANGES.items():
        order = torch.randperm(count, generator=torch.Generator().manual_seed(HELD_OUT))
        t = (1 + order * (last - 1) / max(count - 1, 1)).round().float().to(z.device)
        eps = noise_like(z, torch.Generator().manual_seed(HELD_OUT))
        z_t, target = q_sample(teacher.schedule, z, t, eps), v_from_eps(teacher.schedule, z, t, eps)
        parts = []
        for first in range(0, count, CHUNK):
            some = slice(first, first + CHUNK)
            context = teacher.context(captions[some])
            v = unet(z_t[some], t[some] - 1, encoder_hidden_states=context).sample
            parts.append((v - target[some]).square().mean((1, 2, 3)))
        found[name] = torch.cat(parts).mean().item()
    return found


def measure_seed(seed: int, first: LatentDiffusion, data: Data, held_out: Data, options) -> Iterator[dict]:
    """Train a teacher and its students, and measure one U-Net after the other."""
    config = LatentConfig(
        widths=WIDTHS,
        attention=ATTENTION,
        layers=LAYERS,
        text_width=TEXT_WIDTH,
        text_layers=1,
        scenes=options.scenes,
        training_steps=options.training_steps,
        batch_size=options.batch,
        lr=options.lr,
        average=0.99,
        seed=seed,
    )
    teacher = train_latent_diffusion(config, first.vae, data=data)
    distillation = DistilConfig(
        scenes=options.scenes,
        training_steps=options.distil_steps,
        batch_size=options.batch,
        lr=options.distil_lr,
        average=0.95,
        seed=seed,
    )

    def line(size: str, state: str, unet: UNet2DConditionModel) -> dict:
        weights = sum(p.numel() for p in unet.parameters())
        error = errors(teacher, unet, held_out)
        return {"seed": seed, "size": size, "state": state, "parameters": weights, "errors": error}

    yield line("full", "the teacher", teacher.unet)
    for size in SIZES:
        unet = smaller_unet(teacher.unet, size)
        if size != "full":
            yield line(size, "cut", unet)
        state = "distilled" if size != "full" else "trained on"
        yield line(size, state, distil(distillation, teacher, unet, data=data).unet)
    new = with_new_weights(smaller_unet(teacher.unet, SIZES[-1]))
    yield line(SIZES[-1], "new weights", distil(distillation, teacher, new, data=data).unet)


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and half the width of its 95 % interval; None for a single value, which has none."""
    if len(values) < 2:
        return values[0], None
    return fmean(values), student_t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))


def summary(rows: Sequence[dict]) -> list[dict]:
    """Return for each kind of U-Net its mean error, and its change against its own teacher."""
    kinds = dict.fromkeys((row["size"], row["state"]) for row in rows)
    teachers = {row["seed"]: row["errors"] for row in rows if row["state"] == "the teacher"}
    lines = []
    for size, state in kinds:
        own = [row for row in rows if (row["size"], row["state"]) == (size, state)]
        line = {"size": size, "state": state, "parameters": own[0]["parameters"], "seeds": len(own)}
        for name in RANGES:
            changes = [100 * (row["errors"][name] / teachers[row["seed"]][name] - 1) for row in own]
            mean, half = interval(changes)
            error = fmean(row["errors"][name] for row in own)
            line[name] = {"error": error, "change": mean, "half": half, "changes": changes}
        lines.append(line)
    return lines


def table(found: dict) -> str:
    """Return everything as Markdown."""
    rows = []
    for line in found["summary"]:
        cells = [line["size"], line["state"], f"{line['parameters']:,}"]
        for name in RANGES:
            part = line[name]
            half = "" if part["half"] is None else f" ± {part['half']:.1f}"
            change = "" if line["state"] == "the teacher" else f"{part['change']:+.1f}{half} %"
            cells += [f"{part['error']:.4f}", change]
        rows.append(cells)
    heads = ["U-Net", "state", "parameters", "error, all", "change", "error, codec", "change"]
    seconds = f"seeds {', '.join(map(str, found['seeds']))}; {found['cpu_seconds']:.0f} s of CPU"
    return page(heading(found, seconds), markdown_table(heads, rows, align="llr"))


def measure_all(options: argparse.Namespace) -> None:
    """Measure seed after seed, and write what there is after each."""
    device = choose_device(options.device)
    first = load_scenes(8).to(device)
    data = scaled_latents(first.vae, options.scenes)
    held_out = scaled_latents(first.vae, options.count, seed=HELD_OUT)
    rows, done = [], []
    names = ("seeds", "training_steps", "distil_steps", "batch", "scenes", "lr", "distil_lr", "count")
    for seed in options.seeds:
        rows += measure_seed(seed, first, data, held_out, options)
        done.append(seed)
        found = {
            "command": command_line(__file__, options, names),
            "environment": environment(device),
            "seeds": done,
            "cpu_seconds": process_time(),
            "rows": rows,
            "summary": summary(rows),
        }
        save(found, table(found), options.output)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "small_teachers")
    parser.add_argument("--seeds", type=listed(int), default=(0, 1, 2), help="of weights, batches and noise")
    parser.add_argument("--training_steps", type=int, default=160, help="of each teacher")
    parser.add_argument("--distil_steps", type=int, default=24, help="of each distillation")
    parser.add_argument("--batch", type=int, default=64, help="scenes in a training step")
    parser.add_argument("--scenes", type=int, default=640, help="to train and distil on")
    parser.add_argument("--lr", type=float, default=2e-3, help="learning rate of the teachers")
    parser.add_argument("--distil_lr", type=float, default=1e-3, help="that of the students")
    parser.add_argument("--count", type=int, default=256, help="scenes to measure on")
    add_machine_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    measure_all(options)


if __name__ == "__main__":
    main()
