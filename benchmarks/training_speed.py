"""How many training steps a second: our loop beside CompressAI's own example loop, on one network and one
batch.

    python benchmarks/training_speed.py [--batch 4] [--side 256] [--N 128] [--M 320] [--steps 24] [--warm 4]
                                        [--rounds 2] [--threads 0] [--output data/results/training_speed.json]

The network is our codec, which is a CompressAI model too, new and without its denoiser: the codec's own
stage, which both loops can train. Both see the same crops of the photos that come with scikit-image and
scikit-learn, made beforehand, and one lambda, 1e-3.

    CompressAI's loop   that of its examples/train.py: Adam and an Adam for the quantiles of z, forward,
                        RateDistortionLoss, gradients clipped to norm 1, aux_loss and its own backward, a line
                        of figures every tenth step
    our loop            dhp_lab.training.codec_trainer.Trainer as `dhp train` runs it: EMA, TensorBoard, log,
                        the check that the loss is finite. The quantiles are found by bisection every 500
                        steps, and a 500th of what that takes is counted in each step.

Neither loop validates or saves in what is timed. float32 is plain; in bfloat16 the convolutions of the
picture transforms, as `dhp_lab.core.precision` has it. CompressAI's loop is made for float32; its line in
bfloat16 shows what the rest of a loop is worth. The last line, CompressAI's mbt2018-mean with N = 128 and M =
192, is another network: what people are used to.

Each line is a process of its own, started --rounds times in turn so that a slow minute of the machine meets
all of them.

| column          | meaning                                                                                  |
|-----------------|------------------------------------------------------------------------------------------|
| parameters      | of all that the loop trains, in millions; the denoiser, which rests, is not counted      |
| steps a second  | 1 / median seconds of a step                                                             |
| seconds a step  | median (least..greatest), after --warm steps that are not counted                        |
| faster          | steps a second over those of the first line; "-" for another network                     |
| CPU seconds     | median of a step, all threads together: what is left of the comparison beside other work |
| peak MB         | the greatest resident set of the process                                                 |

Prints a table, and writes it as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING

from common import (
    add_machine_options,
    answer,
    command_line,
    heading,
    markdown_table,
    new_parser,
    options_as_words,
    page,
    run_child,
    save,
    set_threads,
    spread,
)

if TYPE_CHECKING:
    from torch import Tensor

LAMBDA_RATE = 1e-3
DISTINCT = 8  # batches, taken in turn
UPDATE_EVERY = 500  # steps between our searches for the quantiles of z
LINES = {  # loop, network, bfloat16
    "CompressAI's loop, float32": ("compressai", "codec", False),
    "our loop, bfloat16": ("ours", "codec", True),
    "our loop, float32": ("ours", "codec", False),
    "CompressAI's loop, bfloat16": ("compressai", "codec", True),
    "CompressAI's loop and network, float32": ("compressai", "mbt2018-mean", False),
}
THEIRS, OURS, OURS_PLAIN = list(LINES)[:3]
SIZES = ("batch", "side", "N", "M", "steps", "warm", "threads")
Moment = tuple[float, float]  # seconds that have passed, and that this process has computed


# ------------------------------------------------------------------------------- in the child processes


def now() -> Moment:
    """Return the seconds that have passed, and those that this process has computed, all threads together."""
    return perf_counter(), process_time()


def durations(moments: list[Moment]) -> list[list[float]]:
    """Return both kinds of seconds between each moment and the next."""
    return [[after[i] - before[i] for i in (0, 1)] for before, after in pairwise(moments)]


def write_photos(folder: Path) -> list[Path]:
    """Write the photos that come with the packages to a folder; return the files."""
    from dhp_lab.data.images import save_image
    from dhp_lab.data.photos import PHOTOS, load_photo

    files = [folder / f"{name}.png" for name in PHOTOS]
    for name, file in zip(PHOTOS, files, strict=True):
        save_image(load_photo(name), file)
    return files


class Stream:
    """A few batches over and over, in place of `dhp_lab.data.crops.PhotoCrops`; notes when each is taken."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches
        self.taken: list[Moment] = []

    def __len__(self) -> int:
        return len(self.batches[0])

    def batch(self, number: int, count: int) -> Tensor:
        """Return batch ``number`` of the stream."""
        self.taken.append(now())
        return self.batches[number % len(self.batches)]


def our_seconds(stream: Stream, folder: Path, options: argparse.Namespace) -> tuple[list[list[float]], int]:
    """Train by our loop; return the seconds of each step and the number of weights that move.

    The loop takes the next batch as a step begins: seconds lie between two such moments.
    """
    from dhp_lab.training.codec_config import TrainingConfig
    from dhp_lab.training.codec_trainer import Trainer

    config = TrainingConfig(
        data_path=str(folder),
        val_data_path=str(folder),
        output_dir=str(folder / "run"),
        batch_size=options.batch,
        epochs=1,
        denoiser_epochs=0,
        joint_epochs=0,
        lambda_rate=LAMBDA_RATE,
        N=options.N,
        M=options.M,
        image_size=options.side,
        device="cpu",
        minutes_between_saves=1e6,
        validate_every=10**9,
    )
    steps = options.warm + options.steps
    lengths = (steps + 1, 0, 0)  # the last step also validates and saves
    trainer = Trainer(config, crops=stream, lengths=lengths)
    trainer.run()
    begins = stream.taken[1 : steps + 2]  # of steps 0, 1, ...; the first batch is taken ahead of all
    start = now()
    trainer.model.update(force=True, update_quantiles=True)
    (update,) = durations([start, now()])
    seconds = [
        [kind + once / UPDATE_EVERY for kind, once in zip(step, update, strict=True)]
        for step in durations(begins)
    ]
    return seconds, sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)


def their_seconds(stream: Stream, options: argparse.Namespace) -> tuple[list[list[float]], int]:
    """Train by the steps of CompressAI's examples/train.py, with its own losses and optimisers."""
    import torch
    from compressai.losses import RateDistortionLoss
    from compressai.models import MeanScaleHyperprior
    from compressai.optimizers import net_aux_optimizer

    from dhp_lab.codec.create import create_diffusion_hyperprior_model

    if options.network == "codec":
        model = create_diffusion_hyperprior_model(options.N, options.M).train()
    else:
        model = MeanScaleHyperprior(128, 192).train()
    settings = {"net": {"type": "Adam", "lr": 1e-4}, "aux": {"type": "Adam", "lr": 1e-3}}
    optimizers = net_aux_optimizer(model, settings)
    criterion = RateDistortionLoss(lmbda=1 / (255**2 * LAMBDA_RATE))
    moments = [now()]
    for step in range(options.warm + options.steps):
        x = stream.batch(step, options.batch)
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        losses = criterion(model(x), x)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers["net"].step()
        aux_loss = model.aux_loss()
        aux_loss.backward()
        optimizers["aux"].step()
        if step % 10 == 0:
            figures = [f"{name} {value.item():.3f}" for name, value in losses.items()]
            print(step, *figures, f"aux {aux_loss.item():.2f}")
        moments.append(now())
    return durations(moments), sum(p.numel() for p in model.parameters() if p.grad is not None)


def train_line(options: argparse.Namespace) -> dict[str, object]:
    """Train one line of the table in this process; return its figures."""
    import torch

    from dhp_lab.core import precision
    from dhp_lab.core.environment import environment
    from dhp_lab.data.crops import PhotoCrops

    set_threads(options)
    torch.manual_seed(0)
    if not options.bfloat16:  # what `autocast` looks up; there is no other switch, and the process is ours
        precision.has_fast_bfloat16 = lambda device_type: False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        crops = PhotoCrops(write_photos(folder), options.side, seed=0)
        stream = Stream([crops.batch(number, options.batch) for number in range(DISTINCT)])
        if options.loop == "ours":
            seconds, parameters = our_seconds(stream, folder, options)
        else:
            seconds, parameters = their_seconds(stream, options)
    about = environment(torch.device("cpu"))
    return {
        "seconds": seconds[options.warm :],
        "parameters": parameters,
        "environment": about,
        "peak_memory_mb": about["peak_memory_mb"],
    }


# ------------------------------------------------------------------------------------ in the parent process


def run_line(options: argparse.Namespace, name: str) -> dict[str, object]:
    """Run one line in a fresh process."""
    print(name, file=sys.stderr)
    loop, network, bfloat16 = LINES[name]
    words = ["--loop", loop, "--network", network, *(["--bfloat16"] if bfloat16 else [])]
    return run_child(__file__, [*words, *options_as_words(options, SIZES)])


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Run all lines in turn; return every figure."""
    from dhp_lab.core.precision import has_fast_bfloat16

    fast = has_fast_bfloat16("cpu")
    names = [name for name, (_, _, bfloat16) in LINES.items() if fast or not bfloat16]
    rounds = [{name: run_line(options, name) for name in names} for _ in range(options.rounds)]
    lines = {name: summary(name, [one[name] for one in rounds]) for name in names}
    return {
        "command": command_line(__file__, options, [*SIZES, "rounds"]),
        "environment": rounds[0][names[0]]["environment"],
        "fast_bfloat16": fast,
        "lambda_rate": LAMBDA_RATE,
        "lines": lines,
        "faster": factors(lines),
    }


def summary(name: str, runs: list[dict]) -> dict[str, object]:
    """Return the figures of all rounds of a line."""
    steps = [step for run in runs for step in run["seconds"]]
    seconds = [passed for passed, _ in steps]
    return {
        "network": LINES[name][1],
        "parameters": runs[0]["parameters"],
        "seconds": seconds,
        "cpu_seconds": [computed for _, computed in steps],
        "steps_a_second": 1 / median(seconds),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
    }


def factors(lines: dict[str, dict]) -> dict[str, float]:
    """Return how many times as fast our loop is: in all, by bfloat16, and by the rest of the loop."""
    theirs, plain = (lines[name]["steps_a_second"] for name in (THEIRS, OURS_PLAIN))
    ours = lines.get(OURS, lines[OURS_PLAIN])["steps_a_second"]
    return {"all": ours / theirs, "bfloat16": ours / plain, "the loop": plain / theirs}


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    base, factor = found["lines"][THEIRS]["steps_a_second"], found["faster"]
    rows = []
    for name, one in found["lines"].items():
        faster = f"{one['steps_a_second'] / base:.2f} x" if one["network"] == "codec" else "-"
        speed = [f"{one['steps_a_second']:.2f}", spread(one["seconds"]), faster]
        rest = [f"{median(one['cpu_seconds']):.3f}", f"{one['peak_memory_mb']:.0f}"]
        rows.append([name, f"{one['parameters'] / 1e6:.1f}", *speed, *rest])
    summary = (
        f"Our loop is {factor['all']:.2f} times as fast as CompressAI's: {factor['bfloat16']:.2f} from "
        f"bfloat16, and {factor['the loop']:.2f} from the rest of the loop, both in float32."
    )
    if not found["fast_bfloat16"]:
        summary += "\nThis processor does not multiply bfloat16 fast: the lines in bfloat16 are left out."
    heads = [
        "loop",
        "parameters, 10^6",
        "steps a second",
        "seconds a step",
        "faster",
        "CPU seconds",
        "peak MB",
    ]
    return page(heading(found), markdown_table(heads, rows), summary)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "training_speed")
    parser.add_argument(
        "--batch", type=int, default=4, help="crops in a step; 4 of 256 trained the shipped codec"
    )
    parser.add_argument("--side", type=int, default=256, help="of a crop, a multiple of 64")
    parser.add_argument("--N", type=int, default=128)
    parser.add_argument("--M", type=int, default=320)
    parser.add_argument("--steps", type=int, default=24, help="that are timed, in each round")
    parser.add_argument("--warm", type=int, default=4, help="steps before them")
    parser.add_argument("--rounds", type=int, default=2)
    add_machine_options(parser, device=False)
    parser.add_argument("--loop", choices=("ours", "compressai"), help=argparse.SUPPRESS)
    parser.add_argument("--network", choices=("codec", "mbt2018-mean"), help=argparse.SUPPRESS)
    parser.add_argument("--bfloat16", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Parse the options; be the parent, or a child where --loop is given."""
    options = make_parser().parse_args(arguments)
    if options.loop:
        answer(lambda: train_line(options))
        return
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
