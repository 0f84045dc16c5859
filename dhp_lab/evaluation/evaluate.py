"""Rate, distortion, time and memory of a codec over a folder of pictures, beside the codecs everybody has.

Nothing is estimated. Each picture becomes the bytes of a whole .dhp file, header included; those bytes alone
are decoded, and what is judged is the result rounded to 8 bits. Figures are first averaged over the pictures
at each setting, as published curves are; BD-rates compare the averaged curves, and name the range of quality
that they cover.

    for each batch:  x --compress--> strings --write--> file --read--> strings --decompress(K)--> x_hat   (timed)
    per picture  ->  Measurement  --average-->  Point  --bd_rate against each other curve-->  Comparison
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dhp_lab.codec.bits.bitstream import read, write
from dhp_lab.core.environment import environment
from dhp_lab.core.settings import choose_device
from dhp_lab.data.images import Log, Picture, batches, load_pictures, save_image
from dhp_lab.evaluation.classical import CODECS, find_codec, sweep
from dhp_lab.evaluation.measurements import Measurement, measure
from dhp_lab.evaluation.report import EvaluationReport, make_report

if TYPE_CHECKING:
    from dhp_lab.codec.model import DiffusionHyperprior

DEFAULT_LAMBDA_RATES = (
    2.3e-2,
    1e-2,
    4.4e-3,
    1.9e-3,
    8.3e-4,
    3.6e-4,
    1.6e-4,
    6.9e-5,
    3e-5,
)  # evenly, on a log scale
REPORT_NAME = "evaluation.json"
SAMPLE_PICTURES = 4  # eighteen PNG files each, at 9 lambdas and 2 numbers of steps


@dataclass(frozen=True)
class EvaluationConfig:
    """What `dhp evaluate` was asked for; the options not told here are told at `evaluate`.

    model_path: folder of a checkpoint. data_path: folder of pictures, folders below included. output_dir: of
    evaluation.json and samples/. device: "cpu", "cuda", ...; None takes the fastest.
    """

    model_path: Path
    data_path: Path
    output_dir: Path
    batch_size: int = 4
    save_samples: bool = False
    low_memory: bool = False
    device: str | None = None
    steps: tuple[int, ...] = (0, 1)
    lambda_rates: tuple[float, ...] = DEFAULT_LAMBDA_RATES
    gamma: float = 0.0
    seed: int = 0
    codecs: tuple[str, ...] = tuple(CODECS)

    @property
    def command(self) -> str:
        """The command line that asks for the same again; folders by their last name only."""
        words = ["dhp", "evaluate"]
        for name in ("model_path", "data_path", "output_dir"):
            words += [f"--{name}", getattr(self, name).resolve().name]
        for name in ("steps", "lambda_rates"):
            words += [f"--{name}", ",".join(f"{value:g}" for value in getattr(self, name))]
        for name in ("gamma", "seed", "batch_size"):
            words += [f"--{name}", str(getattr(self, name))]
        words += ["--device", str(choose_device(self.device)), "--codecs", ",".join(self.codecs) or "none"]
        return shlex.join(
            [*words, *(f"--{name}" for name in ("save_samples", "spare_memory") if getattr(self, name))]
        )


def run(config: EvaluationConfig, log: Log) -> EvaluationReport:
    """Evaluate a checkpoint on a folder of pictures and write the report to `output_dir`/evaluation.json.

    Args:
        config: what to measure.
        log: receives one line per picture, and a warning for each one skipped or converted.
    Raises:
        ValueError: a folder without a readable picture, an unknown codec or device, or a value out of range.
        CheckpointError: `model_path` holds no checkpoint.
    """
    from dhp_lab.codec.model import DiffusionHyperprior

    device, notes = choose_device(config.device), []
    pictures = load_pictures(config.data_path, notes, log)
    model = DiffusionHyperprior.from_pretrained(config.model_path).to(device).eval()
    model = model.low_memory() if config.low_memory else model
    config.output_dir.mkdir(parents=True, exist_ok=True)
    report = evaluate(
        model,
        pictures,
        lambda_rates=config.lambda_rates,
        steps=config.steps,
        gamma=config.gamma,
        seed=config.seed,
        batch_size=config.batch_size,
        device=device,
        codecs=config.codecs,
        save_samples=config.output_dir / "samples" if config.save_samples else None,
    )
    report = replace(
        report,
        about={"command": config.command, "pictures_from": config.data_path.resolve().name, **report.about},
        notes=[*notes, *report.notes],
    )
    report.save(config.output_dir / REPORT_NAME)
    return report


def evaluate(
    model: DiffusionHyperprior | None,
    pictures: Iterable[Picture],
    *,
    lambda_rates: Sequence[float] = DEFAULT_LAMBDA_RATES,
    steps: Sequence[int] = (0, 1),
    gamma: float = 0.0,
    seed: int = 0,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    codecs: Sequence[str] = tuple(CODECS),
    save_samples: Path | None = None,
) -> EvaluationReport:
    """Measure a model, and the classical codecs beside it, on pictures that are loaded one batch at a time.

    Args:
        model: on `device` already; None measures the classical codecs alone.
        pictures: (name, (1, 3, H, W) in [0, 1]) in any number and size.
        lambda_rates: settings of the model, each in 1e-6..1e-1; BD-rates need at least four.
        steps, gamma, seed: how each file is decoded, see `DiffusionHyperprior.decompress`; `steps` lists
            several K.
        batch_size: consecutive pictures of one size are coded together; times are divided by their number.
        codecs: keys of `classical.CODECS`.
        save_samples: a folder for the first pictures (at least four) as <picture>.png and, decoded,
            <picture>_lambda<l>_K<k>.png; None writes none.
    Returns:
        EvaluationReport; BD-rates against the published Kodak curves are in it when the pictures are Kodak's
        24.
    Raises:
        ValueError: no pictures, nothing to measure them with, or an unknown codec.
    """
    chosen, device = [find_codec(key) for key in codecs], torch.device(device)
    coder = None if model is None else Coder(model, tuple(steps), gamma, seed, device)
    if not (chosen if coder is None else steps and lambda_rates):
        raise ValueError("nothing to measure: give a model with lambda_rates and steps, or classical codecs")
    ours, classical, done = [], [], 0
    for names, x in batches(pictures, batch_size):
        if coder and not done:
            coder.code(names, x, lambda_rates[0])  # the first call also prepares kernels: not measured
        folder = save_samples if done < SAMPLE_PICTURES else None
        for lambda_rate in lambda_rates if coder else ():
            ours += coder.code(names, x, lambda_rate, folder)
        for i, name in enumerate(names):
            classical += [one for codec in chosen for one in sweep(codec, name, x[i : i + 1])]
        done += len(names)
    if not done:
        raise ValueError("no picture could be read: nothing was measured")
    about = {"gamma": gamma, "seed": seed, "batch_size": batch_size, **environment(device)}
    if coder:
        about |= {"model_id": model.model_id.hex(), "config": asdict(model.config)}
    return make_report(about, ours, classical)


@dataclass(frozen=True)
class Coder:
    """A model with all that decides how its files are decoded."""

    model: DiffusionHyperprior
    steps: tuple[int, ...]
    gamma: float
    seed: int
    device: torch.device

    def code(
        self, names: list[str], x: Tensor, lambda_rate: float, folder: Path | None = None
    ) -> list[Measurement]:
        """Encode a batch (B, 3, H, W) to files, decode them at each K, measure each picture: B * len(steps)
        figures.

        With a folder, the originals and the decoded pictures are written there as PNG.
        """
        start = perf_counter()
        files = self.encode(x, lambda_rate)
        encode_seconds, results = (perf_counter() - start) / len(files), []
        for k in self.steps:
            start = perf_counter()
            x_hat = self.decode(files, k)  # (B, 3, H, W)
            decode_seconds = (perf_counter() - start) / len(files)
            for i, name in enumerate(names):
                results.append(
                    measure(
                        x_hat[i : i + 1],
                        x[i : i + 1],
                        codec=f"dhp K={k}",
                        setting=lambda_rate,
                        picture=name,
                        n_bytes=len(files[i]),
                        encode_seconds=encode_seconds,
                        decode_seconds=decode_seconds,
                    )
                )
                if folder is not None:
                    _save_pair(folder, name, x[i : i + 1], x_hat[i : i + 1], f"lambda{lambda_rate:g}_K{k}")
        return results

    @torch.no_grad()
    def encode(self, x: Tensor, lambda_rate: float) -> list[bytes]:
        """Return a whole .dhp file for each picture of x, (B, 3, H, W) in [0, 1]."""
        coded = self.model.compress(x.to(self.device), lambda_rate=lambda_rate)
        pictures = zip(*coded["strings"], strict=True)  # B times (y, z, side)
        return [
            write([[stream] for stream in streams], coded["shape"], **self.model.file_fields)
            for streams in pictures
        ]

    @torch.no_grad()
    def decode(self, files: Sequence[bytes], steps: int) -> Tensor:
        """Return the pictures, (B, 3, H, W) on the CPU, of .dhp files that share one size."""
        parsed = [read(data) for data in files]
        strings = [[file.y for file in parsed], [file.z for file in parsed], [file.side for file in parsed]]
        result = self.model.decompress(
            strings, parsed[0].shape, steps=steps, gamma=self.gamma, seed=self.seed
        )
        return result["x_hat"].float().cpu()


def _save_pair(folder: Path, name: str, x: Tensor, x_hat: Tensor, suffix: str) -> None:
    stem = Path(name).with_suffix("").as_posix().replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    save_image(x, folder / f"{stem}.png")
    save_image(x_hat, folder / f"{stem}_{suffix}.png")
