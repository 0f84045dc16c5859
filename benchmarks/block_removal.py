"""What do a U-Net's blocks weigh, and what are they worth? Blocks removed as BK-SDM does, before and after
distillation.

    python benchmarks/block_removal.py [--training_steps 400] [--batch 16] [--scenes 2048] [--lr 5e-05]
        [--new_lr 0.001]
                                       [--count 256] [--seed 1000000] [--teachers scenes-f4]
                                       [--checkpoints data/checkpoints] [--device cpu] [--output
                                       data/results/block_removal.json]

Each shipped latent diffusion model is a teacher. Of its U-Net the base, small and tiny ones are made, where
its layout lets them (`dhp_lab.latent.block_removal`; what cannot be made is told, with the reason), measured
as they are, and measured again after each of two distillations: on the task and the teacher's output, and on
these and the ends of the stages, as in the paper. The smallest one is also distilled from new weights instead
of the teacher's, with steps of size --new_lr: what the weights that stay are worth.

    s a step       of DDIM at guidance 4, two evaluations, 8 pictures at a time; median (least..greatest) of 9 steps
    error of v     mean square on --count scenes beyond those of training, times spread over the chain; most of it is noise that
                   no network can know
    from teacher   mean square of the output minus the teacher's, on the same
    features       the same of the stages' ends, summed up
    placed, obeyed the share of --count captions whose picture is as asked, in 25 steps at guidance 4, with 95 % intervals
                   (Wilson); see `caption_obedience.py`

All rows see the same scenes, captions and noise; a quarter of an hour on two cores for each teacher. Prints a
table, and writes it as JSON and Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from caption_obedience import GUIDANCE, MEASURES, STEPS, draw, identity, percent, shares
from diffusers import UNet2DConditionModel
from saving import save

from dhp_lab.core.environment import environment
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.settings import choose_device
from dhp_lab.data.scenes import batch, check_captions, parse
from dhp_lab.diffusion.process import noise_like, q_sample, v_from_eps
from dhp_lab.latent.block_removal import SIZES, smaller_unet
from dhp_lab.latent.pipeline import LatentDiffusion, V_PREDICTION
from dhp_lab.training.distillation import LOSSES, DistilConfig, distil, distillation_losses
from dhp_lab.training.latent_diffusion import scaled_latents

ROOT = Path(__file__).resolve().parents[1]
WITHOUT, WITH = "task, output", "task, output, feature"
FEATURE_WEIGHTS = {WITHOUT: 0.0, WITH: 1.0}
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
    "obeyed (95 %)",
)
CHUNK, AT_A_TIME, TIMED_STEPS = 64, 8, 10


@torch.no_grad()
def errors(teacher: LatentDiffusion, model: LatentDiffusion, count: int, seed: int) -> dict[str, float]:
    """Return the three losses on scenes that were not trained on, the same noise for every model."""
    z, captions = scaled_latents(teacher.vae, count, seed=seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    t = (
        (1 + order * (teacher.schedule.steps - 1) / max(count - 1, 1)).round().float().to(z.device)
    )  # every part of the chain
    eps, found = noise_like(z, torch.Generator().manual_seed(seed)), dict.fromkeys(LOSSES, 0.0)
    target = v_from_eps(teacher.schedule, z, t, eps) if teacher.prediction == V_PREDICTION else eps
    z_t = q_sample(teacher.schedule, z, t, eps)
    for first in range(0, count, CHUNK):
        some = slice(first, first + CHUNK)
        context = teacher.context(captions[some])
        part = distillation_losses(teacher.unet, model.unet, z_t[some], t[some], context, target[some])
        found = {name: found[name] + part[name].item() * len(context) / count for name in LOSSES}
    return found


def step_seconds(model: LatentDiffusion) -> list[float]:
    """Return the seconds of the steps of a sample but the first, `AT_A_TIME` pictures together."""
    marks = [
        perf_counter() for _ in model.states(batch(AT_A_TIME, 0)[1], steps=TIMED_STEPS, guidance=GUIDANCE)
    ]
    return [after - before for before, after in zip(marks, marks[1:], strict=False)]


def measured(teacher: LatentDiffusion, model: LatentDiffusion, options: argparse.Namespace) -> dict:
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


def distilled(
    teacher: LatentDiffusion, student: LatentDiffusion, config: DistilConfig
) -> tuple[LatentDiffusion, dict]:
    """Return a trained student, and how its training went."""
    curve, begin = [], perf_counter()
    model = distil(
        config, teacher, student.unet, progress=lambda step, losses: curve.append((perf_counter(), losses))
    )
    gaps = [after[0] - before[0] for before, after in zip(curve, curve[1:], strict=False)]
    tail = [losses for _, losses in curve[-min(50, len(curve)) :]]
    return model, {
        "config": asdict(config),
        "seconds": perf_counter() - begin,
        "training_step_seconds": median(gaps) if gaps else None,
        "first": curve[0][1],
        "last": {name: sum(one[name] for one in tail) / len(tail) for name in LOSSES},
    }


def new(unet: UNet2DConditionModel) -> UNet2DConditionModel:
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


def rows(name: str, teacher: LatentDiffusion, options: argparse.Namespace) -> Iterator[dict]:
    """Measure one line of a teacher's table after the other; sizes that cannot be made have a reason in place
    of figures.
    """
    made, reasons = students(teacher)
    config = DistilConfig(
        scenes=options.scenes, training_steps=options.training_steps, batch_size=options.batch, lr=options.lr
    )
    yield {
        "teacher": name,
        "size": "full",
        "weights": "its own",
        "trained": "no",
        **measured(teacher, teacher, options),
    }
    for size, unet in made.items():
        student, place = (
            replace(teacher, unet=unet),
            {"teacher": name, "size": size, "weights": "the teacher's"},
        )
        yield {**place, "trained": "no", **measured(teacher, student, options)}
        for trained, weight in FEATURE_WEIGHTS.items():
            model, training = distilled(teacher, student, replace(config, feature=weight))
            yield {**place, "trained": trained, "training": training, **measured(teacher, model, options)}
    for size in [*made][-1:]:
        student = replace(teacher, unet=new(made[size]))
        for trained, weight in FEATURE_WEIGHTS.items():
            model, training = distilled(teacher, student, replace(config, feature=weight, lr=options.new_lr))
            found = {
                "weights": "new",
                "trained": trained,
                "training": training,
                **measured(teacher, model, options),
            }
            yield {"teacher": name, "size": size, **found}
    yield from ({"teacher": name, "size": size, "reason": reason} for size, reason in reasons.items())


def cells(row: dict) -> list[str]:
    """Return one line of the table."""
    seconds, found = row["step_seconds"], row["errors"]
    return [
        row["teacher"],
        row["size"],
        row["weights"],
        row["trained"],
        f"{row['parameters']:,}",
        f"{median(seconds):.3f} ({min(seconds):.3f}..{max(seconds):.3f})",
        f"{found['task']:.5f}",
        f"{found['output']:.2e}",
        f"{found['feature']:.3g}",
        *(percent(row[name]["all"], interval=True) for name in MEASURES),
    ]


def table(found: dict) -> str:
    """Return everything as Markdown."""
    place = found["environment"]
    models = ", ".join(f"{name}: {model}" for name, model in found["models"].items())
    lines = [
        f"`{found['command']}` on {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, "
        f"{place['date']}; models {models}",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        4 * "|---" + "|" + (len(COLUMNS) - 4) * "---:|",
    ]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in found["rows"] if "reason" not in row]
    lines += [
        f"\n{row['teacher']}, {row['size']}: {row['reason']}." for row in found["rows"] if "reason" in row
    ]
    return "\n".join(lines)


def measure_all(options: argparse.Namespace) -> dict:
    """Return all figures, and what they depend on."""
    device = choose_device(options.device)
    models = {
        name: LatentDiffusion.load(options.checkpoints / name, device=device, check=parse)
        for name in options.teachers
    }
    names = ("training_steps", "batch", "scenes", "lr", "new_lr", "count", "seed")
    numbers = " ".join(f"--{name} {getattr(options, name)}" for name in names)
    return {
        "command": f"python benchmarks/block_removal.py {numbers} --teachers {' '.join(models)}",
        "environment": environment(device),
        "models": {name: identity(options.checkpoints / name) for name in models},
        "rows": [row for name, model in models.items() for row in rows(name, model, options)],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--training_steps", type=int, default=400, help="of each distillation")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=2048, help="to distil on")
    parser.add_argument("--lr", type=float, default=DistilConfig.lr)
    parser.add_argument("--new_lr", type=float, default=1e-3, help="of the student with new weights")
    parser.add_argument("--count", type=int, default=256, help="captions and scenes to measure on")
    parser.add_argument(
        "--seed",
        type=int,
        default=1_000_000,
        help="of the captions and scenes measured on, and of their noise",
    )
    parser.add_argument("--teachers", nargs="+", default=["scenes-f4"], help="folders in --checkpoints")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    parser.add_argument("--device", help="cpu or cuda; the fastest there is if not given")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "block_removal.json")
    options = parser.parse_args()
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
