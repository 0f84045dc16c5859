"""What do a U-Net's blocks weigh, and what are they worth? Blocks removed as BK-SDM does, before and after
distillation.

    python benchmarks/block_removal.py [--training_steps 400] [--batch 16] [--scenes 2048] [--lr 5e-05]
                                       [--new_lr 0.001] [--count 256] [--seed 1000000]
                                       [--teachers scenes-f4] [--checkpoints data/checkpoints]
                                       [--device cpu] [--output data/results/block_removal.json]

Each shipped latent diffusion model is a teacher. Of its U-Net the base, small and tiny ones are made, where
its layout lets them (`dhp_lab.latent.block_removal`; of one that cannot be made the reason is printed),
measured as they are, and measured again after each of two distillations: on the task and the teacher's
output, and on these and the ends of the stages, as in the paper. The smallest one is also distilled from new
weights instead of the teacher's, at the learning rate --new_lr: what the weights that stay are worth.

    s a step         of DDIM at guidance 4, two evaluations, 8 pictures at a time; median (least..greatest) of
                     9 steps
    error of v       mean square on --count scenes beyond those of training, times spread over the chain; most
                     of it is noise that no network can predict
    from teacher     mean square of the output minus the teacher's, on the same
    features         the same of the stages' ends, summed up
    placed, matches  the share of --count captions whose picture is as the caption says, in 25 steps at
                     guidance 4, with 95 % intervals (Wilson); see `caption_accuracy.py`

All rows see the same scenes, captions and noise; a quarter of an hour on two cores for each teacher. Prints a
table, and writes it as JSON and Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import torch
from caption_accuracy import GUIDANCE, MEASURES, STEPS, draw, identity, share_cell, shares
from common import (
    add_machine_options,
    command_line,
    heading,
    markdown_table,
    new_parser,
    page,
    save,
    set_threads,
    spread,
)
from diffusers import UNet2DConditionModel

from dhp_lab.core.environment import environment
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.settings import choose_device
from dhp_lab.data.scenes import batch, check_captions, parse
from dhp_lab.diffusion.process import noise_like, q_sample, v_from_eps
from dhp_lab.latent.block_removal import SIZES, smaller_unet
from dhp_lab.latent.folder import V_PREDICTION
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.training.distillation import LOSSES, DistilConfig, distil, distillation_losses
from dhp_lab.training.latent_diffusion import scaled_latents

FEATURE_WEIGHTS = {"task, output": 0.0, "task, output, feature": 1.0}  # of the two distillations
COLUMNS = (
    "teacher",
    "U-Net",
    "weights",
    "distilled on",
    "parameters",
    "s a step",
    "error of v",
    "from teacher",
    "features",
    "placed (95 %)",
    "matches (95 %)",
)
CHUNK = 64  # scenes whose error is measured together
TIMED_PICTURES, TIMED_STEPS = 8, 10
TAIL = 50  # last training steps whose losses are averaged


@torch.no_grad()
def errors(teacher: LatentDiffusion, model: LatentDiffusion, count: int, seed: int) -> dict[str, float]:
    """Return the three losses on scenes that were not trained on, the same noise for every model."""
    z, captions = scaled_latents(teacher.vae, count, seed=seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    every_part = 1 + order * (teacher.schedule.steps - 1) / max(count - 1, 1)  # of the chain
    t = every_part.round().float().to(z.device)
    eps = noise_like(z, torch.Generator().manual_seed(seed))
    target = v_from_eps(teacher.schedule, z, t, eps) if teacher.prediction == V_PREDICTION else eps
    z_t = q_sample(teacher.schedule, z, t, eps)
    found = dict.fromkeys(LOSSES, 0.0)
    for first in range(0, count, CHUNK):
        some = slice(first, first + CHUNK)
        context = teacher.context(captions[some])
        part = distillation_losses(teacher.unet, model.unet, z_t[some], t[some], context, target[some])
        for name in LOSSES:
            found[name] += part[name].item() * len(context) / count
    return found


def step_seconds(model: LatentDiffusion) -> list[float]:
    """Return the seconds of the steps of a sample but the first, ``TIMED_PICTURES`` together."""
    captions = batch(TIMED_PICTURES, 0)[1]
    moments = [perf_counter() for _ in model.states(captions, steps=TIMED_STEPS, guidance=GUIDANCE)]
    return [after - before for before, after in pairwise(moments)]


def measure(teacher: LatentDiffusion, model: LatentDiffusion, options: argparse.Namespace) -> dict:
    """Return the figures of one line but its name."""
    captions = batch(options.count, options.seed)[1]
    pictures, seconds = draw(model, captions, GUIDANCE, STEPS, options.seed)
    return {
        "parameters": sum(p.numel() for p in model.unet.parameters()),
        "step_seconds": step_seconds(model),
        "seconds_a_picture": seconds,
        "errors": errors(teacher, model, options.count, options.seed),
        **shares(check_captions(pictures, captions), captions),
    }


def distil_student(
    teacher: LatentDiffusion, unet: UNet2DConditionModel, config: DistilConfig
) -> tuple[LatentDiffusion, dict]:
    """Return a trained student, and how its training went."""
    moments, curve = [], []

    def note(step: int, losses: dict[str, float]) -> None:
        moments.append(perf_counter())
        curve.append(losses)

    begin = perf_counter()
    model = distil(config, teacher, unet, progress=note)
    gaps = [after - before for before, after in pairwise(moments)]
    return model, {
        "config": asdict(config),
        "seconds": perf_counter() - begin,
        "training_step_seconds": median(gaps) if gaps else None,
        "first": curve[0],
        "last": {name: fmean(losses[name] for losses in curve[-TAIL:]) for name in LOSSES},
    }


def with_new_weights(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a U-Net of the same shape with new weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel.from_config(unet.config).to(unet.device).eval()


def students(teacher: LatentDiffusion) -> tuple[dict[str, UNet2DConditionModel], dict[str, str]]:
    """Return the smaller U-Nets that can be made, and why the others cannot."""
    made, reasons = {}, {}
    for size in SIZES[1:]:
        try:
            made[size] = smaller_unet(teacher.unet, size)
        except ValueError as reason:
            reasons[size] = str(reason)
    return made, reasons


def measure_teacher(name: str, teacher: LatentDiffusion, options: argparse.Namespace) -> Iterator[dict]:
    """Measure one line of a teacher's table after the other.

    Sizes that cannot be made have a reason in place of figures.
    """

    def line(size: str, weights: str, trained: str, model: LatentDiffusion, **more: object) -> dict:
        place = {"teacher": name, "size": size, "weights": weights, "trained": trained}
        return {**place, **more, **measure(teacher, model, options)}

    def distilled_lines(size: str, weights: str, unet: UNet2DConditionModel, lr: float) -> Iterator[dict]:
        for trained, weight in FEATURE_WEIGHTS.items():
            config = DistilConfig(
                scenes=options.scenes,
                training_steps=options.training_steps,
                batch_size=options.batch,
                lr=lr,
                feature=weight,
            )
            model, training = distil_student(teacher, unet, config)
            yield line(size, weights, trained, model, training=training)

    made, reasons = students(teacher)
    yield line("full", "its own", "no", teacher)
    for size, unet in made.items():
        yield line(size, "the teacher's", "no", replace(teacher, unet=unet))
        yield from distilled_lines(size, "the teacher's", unet, options.lr)
    if made:
        smallest = list(made)[-1]
        yield from distilled_lines(smallest, "new", with_new_weights(made[smallest]), options.new_lr)
    for size, reason in reasons.items():
        yield {"teacher": name, "size": size, "reason": reason}


def cells(row: dict) -> list[str]:
    """Return one line of the table."""
    found = row["errors"]
    return [
        row["teacher"],
        row["size"],
        row["weights"],
        row["trained"],
        f"{row['parameters']:,}",
        spread(row["step_seconds"]),
        f"{found['task']:.5f}",
        f"{found['output']:.2e}",
        f"{found['feature']:.3g}",
        *(share_cell(row[measure]["all"], interval=True) for measure in MEASURES),
    ]


def table(found: dict) -> str:
    """Return everything as Markdown."""
    models = ", ".join(f"{name}: {model}" for name, model in found["models"].items())
    made = [cells(row) for row in found["rows"] if "reason" not in row]
    reasons = [row for row in found["rows"] if "reason" in row]
    return page(
        heading(found, f"models {models}"),
        markdown_table(COLUMNS, made, align="llllr"),
        *(f"{row['teacher']}, {row['size']}: {row['reason']}." for row in reasons),
    )


def measure_all(options: argparse.Namespace) -> dict:
    """Return all figures, and what they depend on."""
    device = choose_device(options.device)
    folders = {name: options.checkpoints / name for name in options.teachers}
    rows = []
    for name, folder in folders.items():
        teacher = LatentDiffusion.load(folder, device=device, check=parse)
        rows += measure_teacher(name, teacher, options)
    names = ("training_steps", "batch", "scenes", "lr", "new_lr", "count", "seed", "teachers")
    return {
        "command": command_line(__file__, options, names),
        "environment": environment(device),
        "models": {name: identity(folder) for name, folder in folders.items()},
        "rows": rows,
    }


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "block_removal")
    parser.add_argument("--training_steps", type=int, default=400, help="of each distillation")
    parser.add_argument("--batch", type=int, default=16, help="scenes in a training step")
    parser.add_argument("--scenes", type=int, default=2048, help="to distil on")
    parser.add_argument("--lr", type=float, default=DistilConfig.lr, help="learning rate")
    parser.add_argument("--new_lr", type=float, default=1e-3, help="that of the student with new weights")
    parser.add_argument("--count", type=int, default=256, help="captions and scenes to measure on")
    parser.add_argument("--seed", type=int, default=1_000_000, help="of these, and of their noise")
    parser.add_argument("--teachers", nargs="+", default=["scenes-f4"], help="folders in --checkpoints")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
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
