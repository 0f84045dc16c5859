"""What is each part of the codec worth? Variants of it, trained alike and measured alike.

    python benchmarks/ablation.py --data_path PHOTOS --eval_path OTHER_PHOTOS [--steps 6000] [--batch_size 4]
                                  [--image_size 256] [--N 128] [--M 320] [--lr 5e-4] [--seed 0] [--only
                                  factorised,scale]
                                  [--lambda_rates 1e-2,4.4e-3,1.9e-3,8.3e-4,3.6e-4] [--device cpu] [--threads
                                  0]
                                  [--work_dir runs/ablation] [--output data/results/ablation.json]

Trains on --data_path, for --steps steps each, and measures on --eval_path; never on one photo twice. Stopped,
it goes on from where it was when started again: what is trained and measured stays in --work_dir. The
training is `dhp train`'s own (`dhp_lab.training.codec_trainer.Trainer`), with its crops, its loss and all
lambdas in one model. What a variant changes:

| variant           | trained                    | what is different                                                          |
|-------------------|----------------------------|----------------------------------------------------------------------------|
| factorised        | a codec                    | no hyperprior: one learnt density a channel, the same for every picture    |
| scale             | a codec                    | the hyperprior gives a scale alone; the mean of y is 0 (Ballé et al. 2018) |
| mean-scale        | a codec                    | the hyperprior gives both (Minnen et al. 2018): the codec without denoiser |
| dead-zone         | a codec                    | mean-scale, and rounding leans towards zero (0.35)                         |
| passes            | a codec                    | mean-scale, in four coding passes                                          |
| denoiser          | its denoiser, codec frozen | K = 1 and K = 4; linear schedule of 50 times                               |
| cosine            | likewise                   | cosine schedule of 50 times                                                |
| T-10, T-200       | likewise                   | linear schedules of 10 and of 200 times (diffusion_steps)                  |
| uniform-rounding  | likewise                   | D never sees y rounded, but y plus uniform noise as wide as a bin          |
| gaussian-rounding | likewise                   | D never sees y rounded, but y plus Gaussian noise of a bin's variance      |
| uniform-chain     | likewise                   | the noise of the levels below t* is uniform, of the same variance          |

The last seven start from the codec of mean-scale and from one new denoiser, and share seed and crops: their K
= 0 is mean-scale. A schedule enters the training only through its last noise level, and the decoding only
where K is above 1.

| column             | meaning                                                                                          |
|--------------------|--------------------------------------------------------------------------------------------------|
| bits               | files: whole .dhp files, written and decoded. estimate: -log2 of the likelihood of y's rounded   |
|                    | numbers and the bytes of a header, for a variant that has no coder                               |
| lambda: bpp / dB   | bits per pixel and PSNR at that lambda, means over the photos                                    |
| texture            | gradient energy over the photo's, at the middle one of the lambdas                               |
| BD-rate            | by PSNR, against K = 0 of mean-scale                                                             |
| against denoiser   | BD-rate by PSNR against the variant `denoiser` at the same K                                     |
| minutes            | of its own training; those of mean-scale come before the last seven                              |

Each training and each measurement is a process of its own. Prints a table, and writes it as JSON and
Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from unittest import mock

import torch
from saving import save
from torch import Tensor, nn

from dhp_lab.codec import model as codec_model
from dhp_lab.codec.bits.bitstream import write
from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState
from dhp_lab.codec.denoising.sampling import bridge_sample
from dhp_lab.codec.hyperprior import Latents
from dhp_lab.codec.model import CodecConfig, DiffusionHyperprior
from dhp_lab.core.environment import environment
from dhp_lab.core.files import write_atomic
from dhp_lab.core.settings import choose_device
from dhp_lab.data.images import batches, load_pictures
from dhp_lab.evaluation.evaluate import evaluate
from dhp_lab.evaluation.measurements import Measurement, Point, average, measure
from dhp_lab.metrics.rd_curves import bd_rate
from dhp_lab.training import codec_objective as objective
from dhp_lab.training import codec_trainer as training
from dhp_lab.training.codec_config import TrainingConfig
from dhp_lab.training.codec_state import load_training_state

ROOT = Path(__file__).resolve().parents[1]
LADDER = [
    2.0**octave for octave in range(-6, 4)
]  # scales of the factorised density, in spreads of the channel
HURRY = 30.0  # its shares learn as fast as at so many times the step size
BASE, DENOISER = "mean-scale", "denoiser"
TRAINED_ALIKE = ("data_path", "steps", "batch_size", "image_size", "N", "M", "lr", "seed")


# ------------------------------------------------------------------------------------------------ the
# variants


class Factorised(DiffusionHyperprior):
    """No hyperprior: each channel of y has one density for all pictures, a mixture of zero-mean Gaussians.

    It is a density of y itself; the probability of a number is the density's mass in its bin, Delta wide, so
    that one set of weights serves every lambda. z is still computed and says nothing: h_s starts at mean 0
    and gets no gradient.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config)
        self.shares = nn.Parameter(torch.zeros(config.M, len(LADDER)))  # logits / HURRY

    def likelihoods(self, latents: Latents) -> dict[str, Tensor]:
        """Probabilities of y's numbers, noisy in training as the package's are; z costs nothing."""
        delta = latents.log2_delta.exp2().view(-1, 1, 1, 1)
        y = (
            latents.y + delta * (torch.rand_like(latents.y) - 0.5)
            if self.training
            else delta * latents.symbols
        )
        spread = self.log2_spread.exp2().view(-1, 1, 1)
        shares = (HURRY * self.shares).softmax(1)  # (M, 10)
        mass = sum(
            share.view(-1, 1, 1) * _mass(y.abs(), delta, scale * spread)
            for share, scale in zip(shares.unbind(1), LADDER, strict=True)
        )  # (B, M, h, w)
        return {"y": mass.clamp(min=1e-9), "z": torch.ones_like(latents.z)}


def _mass(size: Tensor, width: Tensor, scale: Tensor) -> Tensor:
    """Mass of N(0, scale^2) in a bin around `size`, taken on the side where both tails are small."""
    return torch.special.ndtr((width / 2 - size) / scale) - torch.special.ndtr((-width / 2 - size) / scale)


def new_factorised(**settings: int | str) -> Factorised:
    """A new `Factorised`, with the arguments of `create_diffusion_hyperprior_model`."""
    model = Factorised(CodecConfig(**settings))
    model.update()
    return model.to(memory_format=torch.channels_last)


def without_mean(model: DiffusionHyperprior) -> None:
    """Keep the mean that h_s gives at 0, where it starts: its half of the last layer gets no gradient."""
    for parameter in model.h_s.layers[-1].parameters():
        parameter.register_hook(
            lambda gradient: torch.cat(
                [
                    torch.zeros_like(part) if first else part
                    for first, part in zip((True, False), gradient.chunk(2), strict=True)
                ]
            )
        )


def uniform_noise(like: Tensor) -> Tensor:
    """Uniform noise of mean 0 and variance 1, shaped like a tensor."""
    return (torch.rand_like(like) - 0.5) * math.sqrt(12)


def never_rounded(noise: Callable[[Tensor], Tensor]) -> Callable[[DiffusionHyperprior], None]:
    """Return what makes a model train on y plus noise of a rounding error's variance, in place of y rounded."""

    def prepare(model: DiffusionHyperprior) -> None:
        rounded = model.decoder_state

        def decoder_state(latents: Latents, decoded: bool | None = None) -> DecoderState:
            found = rounded(latents, decoded)
            if not model.training:
                return found
            return replace(
                found, symbols=found.decoded * (latents.residual + SIGMA_Q * noise(latents.residual))
            )

        model.decoder_state = decoder_state

    return prepare


def uniformly_noised(rest: Tensor, sigma: Tensor, decoder_state: DecoderState, noise: Tensor) -> Tensor:
    """`dhp_lab.codec.denoising.sampling.bridge_sample` with other noise."""
    return bridge_sample(rest, sigma, decoder_state, uniform_noise(noise))


@dataclass(frozen=True)
class Variant:
    """What is trained and what is different in it.

    title: as in the table. base: the variant whose codec is taken and frozen; None trains a codec. prepare:
    changes the model before training. patch: (module, name, replacement) for as long as it trains. steps: the
    K that are measured.
    """

    title: str
    base: str | None = BASE
    schedule: str = "linear"
    diffusion_steps: int = 50
    prepare: Callable[[DiffusionHyperprior], None] | None = None
    patch: tuple[object, str, Callable] | None = None
    steps: tuple[int, ...] = (1, 4)
    model: type[DiffusionHyperprior] = DiffusionHyperprior
    passes: int | None = None
    dead_zone: float | None = None


VARIANTS = {
    "factorised": Variant(
        "no hyperprior",
        None,
        patch=(codec_model, "create_diffusion_hyperprior_model", new_factorised),
        steps=(0,),
        model=Factorised,
    ),
    "scale": Variant("scale only", None, prepare=without_mean, steps=(0,)),
    BASE: Variant("mean + scale", None, steps=(0,)),
    "dead-zone": Variant("mean + scale, dead zone", None, steps=(0,), dead_zone=0.35),
    "passes": Variant("mean + scale, four passes", None, steps=(0,), passes=4),
    DENOISER: Variant("+ denoiser (linear, 50)"),
    "cosine": Variant("cosine schedule", schedule="cosine"),
    "T-10": Variant("10 diffusion steps", diffusion_steps=10),
    "T-200": Variant("200 diffusion steps", diffusion_steps=200),
    "uniform-rounding": Variant("uniform noise for rounding", prepare=never_rounded(uniform_noise)),
    "gaussian-rounding": Variant("Gaussian noise for rounding", prepare=never_rounded(torch.randn_like)),
    "uniform-chain": Variant("uniform noise in the chain", patch=(objective, "noised", uniformly_noised)),
}


# ------------------------------------------------------------------------------- in the child processes


def start_of(variant: Variant, folder: Path, options: argparse.Namespace) -> Path | None:
    """Write the checkpoint that a variant starts from: its base's codec, and a new denoiser with its
    schedule.
    """
    if variant.base is None:
        return None
    codec = DiffusionHyperprior.from_pretrained(options.work_dir / variant.base / "final_checkpoint")
    model = create_diffusion_hyperprior_model(options.N, options.M, variant.diffusion_steps, variant.schedule)
    model.load_state_dict(codec.state_dict())
    model.save_pretrained(folder / "start")
    return folder / "start"


def train(name: str, options: argparse.Namespace) -> None:
    """Train a variant, from the start or from where it was stopped."""
    variant, folder = VARIANTS[name], options.work_dir / name
    frozen, start = variant.base is not None, start_of(variant, folder, options)
    config = TrainingConfig(
        data_path=str(options.data_path),
        output_dir=str(folder),
        batch_size=options.batch_size,
        epochs=int(not frozen),
        denoiser_epochs=int(frozen),
        joint_epochs=0,
        lr=options.lr,
        N=options.N,
        M=options.M,
        diffusion_steps=variant.diffusion_steps,
        schedule=variant.schedule,
        image_size=options.image_size,
        device=options.device,
        init_from=start and str(start),
        seed=options.seed,
        minutes_between_saves=2.0,
        passes=variant.passes,
        dead_zone=variant.dead_zone,
    )
    with mock.patch.object(*variant.patch) if variant.patch else contextlib.nullcontext():
        trainer = training.Trainer(config)
        trainer.lengths = [0, options.steps, 0] if frozen else [options.steps, 0, 0]
        trainer.total = options.steps
        if variant.prepare:
            variant.prepare(trainer.model)
        if (state := folder / "last.safetensors").exists():
            load_training_state(state, trainer)
        seconds = folder / "seconds.json"
        before, begin = json.loads(seconds.read_text()) if seconds.exists() else 0.0, perf_counter()
        try:
            trainer.run()
        finally:
            write_atomic(seconds, json.dumps(before + perf_counter() - begin).encode())
    state.unlink()  # hundreds of MB that nobody needs any more


@torch.no_grad()
def estimates(
    model: Factorised, pictures: Iterator, lambda_rates: tuple[float, ...], device: torch.device
) -> list[Measurement]:
    """Measure a variant that has no coder: its bits are -log2 of what it thinks of the numbers, and a header."""
    header, found = (
        len(write([[b""], [b"."], [bytes.fromhex("5000") + bytes(8)]], (16, 16), model_id=bytes(8))) - 1,
        [],
    )
    for (name,), x in batches(pictures, 1):
        for lambda_rate in lambda_rates:
            latents = model.latents(x.to(device), torch.tensor([lambda_rate], device=device))
            bits = -model.likelihoods(latents)["y"].double().log2().sum().item()
            y_hat = model.denoise(model.decoder_state(latents), steps=0)
            x_hat = model.synthesise(y_hat, latents.log2_delta, x.shape[-2:]).clamp(0, 1).cpu()
            found.append(
                measure(
                    x_hat,
                    x,
                    codec="K=0",
                    setting=lambda_rate,
                    picture=name,
                    n_bytes=header + math.ceil(bits / 8),
                    encode_seconds=0.0,
                    decode_seconds=0.0,
                )
            )
    return found


def rate_and_distortion(name: str, options: argparse.Namespace) -> list[Point]:
    """Return the averaged figures of a variant, one for each K and lambda."""
    variant, device = VARIANTS[name], choose_device(options.device)
    model = variant.model.from_pretrained(options.work_dir / name / "final_checkpoint").to(device)
    if name == "scale" and bool(model.h_s.layers[-1].weight.chunk(2)[0].any()):
        raise RuntimeError("the hyperprior of 'scale' has learnt a mean: its gradient was not held back")
    pictures = load_pictures(options.eval_path, [], lambda line: print(line, file=sys.stderr))
    if variant.model is Factorised:
        return average(estimates(model, pictures, options.lambda_rates, device))
    report = evaluate(
        model,
        pictures,
        lambda_rates=options.lambda_rates,
        steps=variant.steps,
        batch_size=1,
        device=device,
        codecs=(),
    )
    return [replace(point, codec=point.codec.removeprefix("dhp ")) for point in report.points]


# ------------------------------------------------------------------------------------ in the parent process


def ask(options: argparse.Namespace, job: str, name: str, words: list[str]) -> None:
    """Run one job in a fresh process, on the same options."""
    print(f"{job} {name}", file=sys.stderr)
    done = subprocess.run([sys.executable, __file__, *words, "--job", job, "--variant", name])
    if done.returncode:
        sys.exit(
            f"{job} {name} ended with {done.returncode}; what was trained is in {options.work_dir}, start again to go on"
        )


def check_work_dir(options: argparse.Namespace) -> None:
    """Leave a note of what a folder's variants were trained with, and refuse one with another note."""
    note, file = (
        {name: str(getattr(options, name)) for name in TRAINED_ALIKE},
        options.work_dir / "options.json",
    )
    options.work_dir.mkdir(parents=True, exist_ok=True)
    if file.exists() and json.loads(file.read_text()) != note:
        sys.exit(
            f"{options.work_dir} holds variants trained with {file.read_text().strip()}: name another --work_dir, or ask for the same"
        )
    write_atomic(file, (json.dumps(note) + "\n").encode())


def measured(options: argparse.Namespace, name: str, words: list[str]) -> list[Point]:
    """Train and measure a variant if that has not been done; return its points."""
    folder = options.work_dir / name
    if not (folder / "final_checkpoint" / "model.safetensors").exists():
        ask(options, "train", name, words)
    asked, file = (
        {"eval_path": options.eval_path.name, "lambda_rates": list(options.lambda_rates)},
        folder / "measured.json",
    )
    found = json.loads(file.read_text()) if file.exists() else {}
    if found.get("asked") != asked:
        ask(options, "measure", name, words)
        found = {"asked": asked, "points": json.loads((folder / "points.json").read_text())}
        write_atomic(file, (json.dumps(found) + "\n").encode())
    return [Point(**point) for point in found["points"]]


def rows(points: dict[str, list[Point]], options: argparse.Namespace) -> list[dict]:
    """Return one row for each variant and K: its points, and its BD-rates."""
    curves = {
        (name, k): [p for p in own if p.codec == f"K={k}"]
        for name, own in points.items()
        for k in VARIANTS[name].steps
    }
    found = []
    for (name, k), own in curves.items():
        found.append(
            {
                "variant": name,
                "title": VARIANTS[name].title,
                "K": k,
                "bits": "estimate" if name == "factorised" else "files",
                "minutes": json.loads((options.work_dir / name / "seconds.json").read_text()) / 60,
                "points": [
                    {key: asdict(p)[key] for key in ("setting", "bpp", "psnr", "ms_ssim", "texture")}
                    for p in own
                ],
                "against_base": gain(curves.get((BASE, 0)), own) if name != BASE else None,
                "against_denoiser": gain(curves.get((DENOISER, k)), own)
                if VARIANTS[name].base and name != DENOISER
                else None,
            }
        )
    return found


def gain(anchor: list[Point] | None, test: list[Point]) -> dict | None:
    """Return the BD-rate by PSNR, or the reason why there is none; None without an anchor."""
    if anchor is None:
        return None
    try:
        return asdict(
            bd_rate(*(([p.bpp for p in curve], [p.psnr for p in curve]) for curve in (anchor, test)))
        )
    except ValueError as error:
        return {"percent": None, "reason": str(error)}


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    place, rates = found["environment"], found["lambda_rates"]
    heads = [
        "variant",
        "K",
        "bits",
        *(f"{rate:g}: bpp / dB" for rate in rates),
        "texture",
        "BD-rate",
        "against denoiser",
        "minutes",
    ]
    lines = [
        f"`{found['command']}`: {found['pictures']} photos; {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, "
        f"{place['date']}",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" + (len(heads) - 1) * "|---:" + "|",
    ]
    for row in found["rows"]:
        pairs = [f"{p['bpp']:.3f} / {p['psnr']:.2f}" for p in row["points"]]
        gains = [
            "-" if one is None or one["percent"] is None else f"{one['percent']:+.1f} %"
            for one in (row["against_base"], row["against_denoiser"])
        ]
        texture = f"{row['points'][len(rates) // 2]['texture']:.2f}"
        lines.append(
            "| "
            + " | ".join(
                [row["title"], str(row["K"]), row["bits"], *pairs, texture, *gains, f"{row['minutes']:.0f}"]
            )
            + " |"
        )
    reasons = [
        f"{row['title']}, K = {row['K']}: {one['reason']}"
        for row in found["rows"]
        for one in (row["against_base"], row["against_denoiser"])
        if one and one["percent"] is None
    ]
    return "\n".join([*lines, *([""] if reasons else []), *dict.fromkeys(reasons)])


def command(options: argparse.Namespace) -> str:
    """Return the command line that asks for the same again; folders by their last name only."""
    names = ("steps", "batch_size", "image_size", "N", "M", "lr", "seed")
    words = [f"--{name} {getattr(options, name).resolve().name}" for name in ("data_path", "eval_path")]
    words += [f"--{name} {getattr(options, name):g}" for name in names]
    words += [
        "--lambda_rates " + ",".join(f"{rate:g}" for rate in options.lambda_rates),
        "--only " + ",".join(options.only),
    ]
    return f"python benchmarks/ablation.py {' '.join(words)}"


def numbers(text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    return tuple(float(word) for word in text.split(","))


def variants(text: str) -> tuple[str, ...]:
    """Names of variants separated by commas."""
    chosen = tuple(text.split(","))
    if unknown := sorted(set(chosen) - set(VARIANTS)):
        raise argparse.ArgumentTypeError(
            f"there is no variant {', '.join(unknown)}; choose from {', '.join(VARIANTS)}"
        )
    return tuple(
        name for name in VARIANTS if name in chosen or name == BASE
    )  # the others are compared with mean-scale


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True, help="photos to train on")
    parser.add_argument("--eval_path", type=Path, required=True, help="other photos, to measure on")
    parser.add_argument("--steps", type=int, default=6000, help="of each training")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--image_size", type=int, default=256, help="side of the crops, a multiple of 64")
    parser.add_argument("--N", type=int, default=128)
    parser.add_argument("--M", type=int, default=320)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--lambda_rates", type=numbers, default=(1e-2, 4.4e-3, 1.9e-3, 8.3e-4, 3.6e-4), help="four or more"
    )
    parser.add_argument(
        "--only", type=variants, default=tuple(VARIANTS), help="some variants, separated by commas"
    )
    parser.add_argument("--device", help="cpu or cuda; the fastest there is if not given")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")
    parser.add_argument(
        "--work_dir", type=Path, default=ROOT / "runs" / "ablation", help="trainings, kept to go on from"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "ablation.json")
    parser.add_argument("--job", choices=("train", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=tuple(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data_path.resolve() == options.eval_path.resolve():
        parser.error("--data_path and --eval_path are one folder: photos that were trained on tell nothing")
    return options


def main() -> None:
    """Be the parent, or a child where --job is given."""
    options = parse()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    if options.job == "train":
        train(options.variant, options)
        return
    if options.job == "measure":
        points = rate_and_distortion(options.variant, options)
        write_atomic(
            options.work_dir / options.variant / "points.json",
            json.dumps([asdict(point) for point in points]).encode(),
        )
        return
    check_work_dir(options)
    points = {name: measured(options, name, sys.argv[1:]) for name in options.only}
    found = {
        "command": command(options),
        "environment": environment(choose_device(options.device)),
        "lambda_rates": options.lambda_rates,
        "pictures": points[BASE][0].pictures,
        "rows": rows(points, options),
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
