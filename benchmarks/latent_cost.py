"""What does diffusion on latents save? Parameters, operations, seconds and memory, beside diffusion on the
pixels.

    python benchmarks/latent_cost.py [--batch 16] [--pictures 8] [--steps 25] [--runs 5] [--threads 0]
                                     [--output data/results/latent_cost.json]

Three second stages, each with a new text encoder of the shipped kind, draw and learn scenes of 64 x 64:

    latents, f = 4 and 8   the shipped U-Nets, on 4 x 16 x 16 and on 4 x 8 x 8 numbers
    pixels                 the U-Net of f = 4 with two more levels of its first width in front, on 3 x 64 x 64 numbers:
                           from 16 x 16 down it is the same network, and its lowest level has the same size

A training step is one of AdamW on --batch pictures. A sample is DDIM in --steps steps at guidance 4, two
evaluations a step, --pictures at a time, and the decoder of the first stage where there is one. What the
first stages cost besides is in a table of its own; their training step is one of Adam on as many pictures.

Costs do not depend on the weights: all networks are new. An operation is a multiplication or an addition,
counted by torch's FlopCounterMode in convolutions and matrix products. Seconds are medians with the least and
the greatest in brackets, after a run that is not counted. Each figure of memory is the greatest resident set
of a process of its own, beside what that process held before: Python, torch and the networks. Prints tables,
and writes them as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from types import SimpleNamespace

from saving import save

ROOT = Path(__file__).resolve().parents[1]
SECOND_STAGES = {"pixels": "pixels", "f4": "latents, f = 4", "f8": "latents, f = 8"}
FIRST_STAGES = {"f4": "KL-reg, f = 4", "f8": "KL-reg, f = 8", "vq": "VQ-reg, f = 4"}
GUIDANCE = 4.0


# ------------------------------------------------------------------------------- in the child processes


def first_stage(name: str):
    """Return a new first stage of the shipped kind."""
    from dhp_lab.training.scene_models import SCENE_MODELS

    return SCENE_MODELS[f"scenes-{name}"].first.network().eval()


def second_stage(name: str):
    """Return a new pipeline: pixels are latents of a first stage that does nothing, with f = 1 and 3
    channels.
    """
    from dhp_lab.training.latent_diffusion import new_latent_diffusion
    from dhp_lab.training.scene_models import SCENE_MODELS

    if name != "pixels":
        return new_latent_diffusion(SCENE_MODELS[f"scenes-{name}"].second[0], first_stage(name))
    config, nothing = (
        SCENE_MODELS["scenes-f4"].second[0],
        SimpleNamespace(block_out_channels=(3,), latent_channels=3),
    )
    deeper = replace(
        config, widths=(*config.widths[:1] * 2, *config.widths), attention=(False, False, *config.attention)
    )
    return new_latent_diffusion(deeper, SimpleNamespace(config=nothing))


def parameters(*networks) -> int:
    """Return how many numbers are learnt."""
    return sum(p.numel() for network in networks for p in network.parameters())


def operations(function: Callable[[], object]) -> int:
    """Return the multiplications and additions of a call; attention is computed plainly, so that it is
    counted.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def timed(function: Callable[[], object], runs: int) -> list[float]:
    """Return the seconds of `runs` calls after one that is not counted."""
    function()
    seconds = []
    for _ in range(runs):
        start = perf_counter()
        function()
        seconds.append(perf_counter() - start)
    return seconds


def learner(model, count: int) -> Callable[[], object]:
    """Return a function that makes one training step of a second stage on noise in place of latents, and its
    captions.
    """
    import torch

    from dhp_lab.data.scenes import batch
    from dhp_lab.diffusion.process import draw_times, noise_like, v_weight, weighted_loss

    tokens, z = model.tokens(batch(count, 0)[1]), torch.randn(count, *model.latent_shape)
    networks = torch.nn.ModuleList([model.unet, model.text_encoder]).train()
    optimizer = torch.optim.AdamW(networks.parameters())

    def step() -> None:
        context = model.text_encoder(tokens).last_hidden_state
        t, eps = draw_times(model.schedule, z), noise_like(z)
        loss = weighted_loss(
            lambda z_t, t: model.eps(z_t, t, context), model.schedule, z, t, eps, weight=v_weight
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def first_learner(model, count: int) -> Callable[[], object]:
    """Return a function that makes one training step of a first stage."""
    import torch

    from dhp_lab.core.precision import autocast
    from dhp_lab.data.scenes import batch
    from dhp_lab.latent.autoencoders import autoencoder_loss

    x, optimizer = (
        batch(count, 0)[0].to(memory_format=torch.channels_last),
        torch.optim.Adam(model.train().parameters()),
    )
    model.to(memory_format=torch.channels_last)

    def step() -> None:
        with autocast(x.device):
            loss = autoencoder_loss(model, x)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def sampler(model, count: int, steps: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a function that draws latents, and one that makes them pictures; pixels need no decoder."""
    from dhp_lab.data.scenes import batch
    from dhp_lab.diffusion.samplers import last

    captions, shape = batch(count, 0)[1], (count, *model.latent_shape)

    def draw() -> object:
        return last(model.states(captions, steps=steps, guidance=GUIDANCE)).x

    def paint() -> object:
        import torch

        return None if isinstance(model.vae, SimpleNamespace) else model.pictures(torch.zeros(shape))

    return draw, paint


def second_job(job: str, options: argparse.Namespace) -> dict:
    """Do one job for a second stage, "count", "train" or "sample"."""
    import torch

    from dhp_lab.core.environment import peak_memory_mb

    model = second_stage(options.model)
    if job == "count":
        draw, paint = sampler(model, 1, 1)
        z, t, context = torch.randn(1, *model.latent_shape), torch.ones(1), model.context(["a red circle"])
        with torch.no_grad():
            evaluation = operations(lambda: model.eps(z, t, context))
        return {
            "shape": list(model.latent_shape),
            "parameters": parameters(model.unet),
            "text_parameters": parameters(model.text_encoder),
            "evaluation": evaluation,
            "training": options.batch * operations(learner(model, 1)),
            "decoder": operations(paint),
        }
    idle = peak_memory_mb()
    if job == "train":
        found = {"seconds": timed(learner(model, options.batch), options.runs)}
    else:
        draw, paint = sampler(model, options.pictures, options.steps)
        seconds, painting = timed(draw, options.runs), timed(paint, options.runs)
        found = {
            "seconds": [one / options.pictures for one in seconds],
            "decoder_seconds": [one / options.pictures for one in painting],
        }
    return {**found, "idle_memory_mb": idle, "peak_memory_mb": peak_memory_mb()}


def first_job(job: str, options: argparse.Namespace) -> dict:
    """Do one job for a first stage, "count", "train" or "sample"; a sample is a picture coded and decoded."""
    import torch

    from dhp_lab.core.environment import peak_memory_mb
    from dhp_lab.data.scenes import batch
    from dhp_lab.latent.autoencoders import decode, encode

    model, x = first_stage(options.model), batch(options.pictures, 0)[0]
    with torch.no_grad():
        z = encode(model, x)
        if job == "count":
            ways = {"encoder": lambda: encode(model, x[:1]), "decoder": lambda: decode(model, z[:1])}
            counts = {name: operations(function) for name, function in ways.items()}
            with torch.enable_grad():
                training = options.batch * operations(first_learner(model, 1))
            return {
                "parameters": parameters(model),
                "shape": list(z.shape[1:]),
                **counts,
                "training": training,
            }
        idle = peak_memory_mb()
        if job == "sample":
            ways = {"encode": lambda: encode(model, x), "decode": lambda: decode(model, z)}
            found = {
                f"{name}_seconds": [one / len(x) for one in timed(way, options.runs)]
                for name, way in ways.items()
            }
            return {**found, "idle_memory_mb": idle, "peak_memory_mb": peak_memory_mb()}
    return {
        "seconds": timed(first_learner(model, options.batch), options.runs),
        "idle_memory_mb": idle,
        "peak_memory_mb": peak_memory_mb(),
    }


def child(options: argparse.Namespace) -> dict:
    """Do the job asked for in this process, and say what it depends on."""
    import torch

    from dhp_lab.core.environment import environment

    torch.set_num_threads(options.threads or torch.get_num_threads())
    torch.manual_seed(0)
    found = (first_job if options.stage == "first" else second_job)(options.job, options)
    return {**found, "environment": environment(torch.device("cpu"))}


# ------------------------------------------------------------------------------------ in the parent process


def ask(options: argparse.Namespace, stage: str, model: str) -> dict:
    """Run the three jobs of a model, each in a fresh process; return what they printed."""
    found = {}
    for job in ("count", "train", "sample"):
        numbers = [
            word
            for name in ("batch", "pictures", "steps", "runs", "threads")
            for word in (f"--{name}", getattr(options, name))
        ]
        words = [sys.executable, __file__, "--stage", stage, "--model", model, "--job", job, *numbers]
        done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, check=True)
        found[job] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_all(options: argparse.Namespace) -> dict:
    """Run all jobs; return every figure."""
    second = {name: ask(options, "second", name) for name in SECOND_STAGES}
    first = {name: ask(options, "first", name) for name in FIRST_STAGES}
    numbers = " ".join(
        f"--{name} {getattr(options, name)}" for name in ("batch", "pictures", "steps", "runs", "threads")
    )
    return {
        "command": f"python benchmarks/latent_cost.py {numbers}",
        "environment": second["pixels"]["train"]["environment"],
        **{name: getattr(options, name) for name in ("batch", "pictures", "steps")},
        "second": second,
        "first": first,
    }


def spread(values: list[float], digits: int = 3) -> str:
    """Return "median (least..greatest)"."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def memory(found: dict) -> str:
    """Return what a job took beyond what its process held before, in MB."""
    return f"{found['peak_memory_mb'] - found['idle_memory_mb']:.0f} (of {found['peak_memory_mb']:.0f})"


def giga(operations: float) -> str:
    """Return thousands of millions, with three digits."""
    return f"{operations / 1e9:.3g}" if operations < 1e12 else f"{operations / 1e9:.0f}"


def second_rows(found: dict) -> dict[str, Callable[[dict], str]]:
    """Return the lines of the first table."""
    steps = found["steps"]
    return {
        "numbers a picture": lambda one: " x ".join(map(str, one["count"]["shape"])),
        "parameters of the U-Net": lambda one: f"{one['count']['parameters']:,}",
        "parameters of the text encoder": lambda one: f"{one['count']['text_parameters']:,}",
        "10^9 operations an evaluation, one picture": lambda one: giga(one["count"]["evaluation"]),
        f"10^9 operations a training step, {found['batch']} pictures": lambda one: giga(
            one["count"]["training"]
        ),
        f"10^9 operations a sample, {steps} steps": lambda one: giga(
            2 * steps * one["count"]["evaluation"] + one["count"]["decoder"]
        ),
        "s a training step": lambda one: spread(one["train"]["seconds"]),
        "s a sample, without the decoder": lambda one: spread(one["sample"]["seconds"]),
        "s a sample, the decoder": lambda one: (
            spread(one["sample"]["decoder_seconds"], 4) if one["count"]["decoder"] else "-"
        ),
        "MB in training": lambda one: memory(one["train"]),
        f"MB in drawing {found['pictures']}": lambda one: memory(one["sample"]),
    }


def first_rows(found: dict) -> dict[str, Callable[[dict], str]]:
    """Return the lines of the second table."""
    return {
        "latents": lambda one: " x ".join(map(str, one["count"]["shape"])),
        "parameters": lambda one: f"{one['count']['parameters']:,}",
        "10^9 operations, encoder": lambda one: giga(one["count"]["encoder"]),
        "10^9 operations, decoder": lambda one: giga(one["count"]["decoder"]),
        f"10^9 operations a training step, {found['batch']} pictures": lambda one: giga(
            one["count"]["training"]
        ),
        "s to encode a picture": lambda one: spread(one["sample"]["encode_seconds"], 4),
        "s to decode a picture": lambda one: spread(one["sample"]["decode_seconds"], 4),
        "s a training step": lambda one: spread(one["train"]["seconds"]),
        "MB in training": lambda one: memory(one["train"]),
    }


def tables(found: dict) -> str:
    """Return all figures as Markdown."""
    place = found["environment"]
    lines = [
        f"`{found['command']}` on {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, "
        f"{place['date']}",
    ]
    for title, stage, names, rows in (
        ("second stage", "second", SECOND_STAGES, second_rows(found)),
        ("first stage", "first", FIRST_STAGES, first_rows(found)),
    ):
        lines += ["", f"| {title} | " + " | ".join(names.values()) + " |", "|---|" + len(names) * "---:|"]
        lines += [
            f"| {row} | " + " | ".join(cell(found[stage][name]) for name in names) + " |"
            for row, cell in rows.items()
        ]
    return "\n".join(lines)


def main() -> None:
    """Parse the options; be the parent, or a child where --job is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16, help="pictures in a training step")
    parser.add_argument("--pictures", type=int, default=8, help="drawn at a time")
    parser.add_argument("--steps", type=int, default=25, help="of a sample")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "latent_cost.json")
    parser.add_argument("--job", choices=("count", "train", "sample"), help=argparse.SUPPRESS)
    parser.add_argument("--stage", choices=("first", "second"), help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(child(options)))
        return
    found = measure_all(options)
    save(found, tables(found), options.output)


if __name__ == "__main__":
    main()
