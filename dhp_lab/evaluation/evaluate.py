"""Rate, distortion, time and memory of a codec over a folder of pictures, beside the codecs everybody has.

Nothing is estimated. Each picture becomes the bytes of a whole .dhp file, header included; those bytes alone
are decoded, and what is judged is the result rounded to 8 bits. Figures are first averaged over the pictures
at each setting, as published curves are; BD-rates compare the averaged curves, and name the range of quality
that they cover.

    for each batch:  x --dhp_file.encode_batch--> files --dhp_file.decode_batch(K)--> x_hat    (both timed)
    per picture  ->  Measurement  --average-->  Point  --bd_rate against each other curve-->  Comparison
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.effort import check_effort
from dhp_lab.codec.realism import realism_id
from dhp_lab.core.environment import environment
from dhp_lab.core.files import check_writable, refuse_to_overwrite
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.core.settings import choose_device
from dhp_lab.data.images import Log, Picture, batches, load_pictures
from dhp_lab.data.photos import OFFLINE, offline_photos
from dhp_lab.evaluation.classical import Codec, CodecError
from dhp_lab.evaluation.codecs import choose, sweep
from dhp_lab.evaluation.config import (
    CLASSICAL_CODECS,
    DEFAULT_LAMBDA_RATES,
    DEFAULT_METRICS,
    EvaluationConfig,
)
from dhp_lab.evaluation.judges import Judges, choose_metrics, without_folders
from dhp_lab.evaluation.measurements import Measurement
from dhp_lab.evaluation.report import EvaluationReport, make_report
from dhp_lab.evaluation.samples import SampleFiles

if TYPE_CHECKING:
    from dhp_lab.codec.model import DiffusionHyperprior

REPORT_NAME = "evaluation.json"
SAMPLE_PICTURES = 4  # eighteen PNG files each, at 9 lambdas and 2 numbers of steps


def run(
    config: EvaluationConfig,
    log: Log,
    show: Callable[[EvaluationReport], None] = lambda report: None,
) -> EvaluationReport:
    """Evaluate a checkpoint on a folder of pictures and write the report to `output_dir`/evaluation.json.

    Args:
        config: what to measure.
        log: receives one line per picture, and a warning for each one skipped or converted, and for each
            codec that is left out because a package is missing.
        show: receives the report once everything is measured, even if it cannot be written.

    Raises:
        OverwriteError: there is a report already, and `config.overwrite` is not set.
        OSError: the report cannot be written; before anything is measured, where that shows.
        ValueError: a folder without a readable picture, an unknown codec or device, or a value out of range.
        CheckpointError: `model_path` holds no checkpoint.
    """
    from dhp_lab.codec.model import DiffusionHyperprior

    device = choose_device(config.device)
    config = replace(config, device=str(device), model_path=config.model_path or default_checkpoint())
    warnings = choose(config.codecs)[1] + choose_metrics(config.metrics)[1]
    path = config.output_dir / REPORT_NAME
    if not config.overwrite:
        refuse_to_overwrite([path], "take another --output_dir, or replace it (--overwrite)")
    for line in warnings:
        log(f"warning: {line}")
    notes: list[str] = []
    pictures = pictures_of(config.data_path, notes, log, output_dir=config.output_dir)
    model = DiffusionHyperprior.from_pretrained(config.model_path).to(device).eval()
    if config.low_memory:
        model = model.low_memory()
    check_writable(path)
    report = evaluate(
        model,
        pictures,
        lambda_rates=config.lambda_rates,
        steps=config.steps,
        effort=config.effort,
        gamma=config.gamma,
        seed=config.seed,
        batch_size=config.batch_size,
        device=device,
        codecs=config.codecs,
        metrics=config.metrics,
        save_samples=config.output_dir / "samples" if config.save_samples else None,
    )
    origin = {"command": command_line(config), "pictures_from": config.data_path.resolve().name}
    report = replace(report, about=origin | report.about, notes=[*notes, *report.notes])
    try:
        report.save(path)
    finally:
        show(report)
    return report


def pictures_of(
    data_path: Path, notes: list[str], log: Log, *, output_dir: Path | None = None
) -> Iterator[Picture]:
    """Iterate over the pictures of a folder, or over the packages' photos if there is none called `offline`.

    Args:
        data_path, notes, log, output_dir: as for `load_pictures`.

    Raises:
        ImageError: the folder is missing or holds no picture.
    """
    if data_path == Path(OFFLINE) and not data_path.exists():
        return offline_photos()
    return load_pictures(data_path, notes, log, output_dir=output_dir)


def command_line(config: EvaluationConfig) -> str:
    """Return the command that repeats an evaluation, with its device; folders by their last name only."""
    options = {
        "model_path": config.model_path.resolve().name,
        "data_path": config.data_path.resolve().name,
        "output_dir": config.output_dir.resolve().name,
        "steps": ",".join(str(k) for k in config.steps),
        "lambda_rates": ",".join(f"{lambda_rate:g}" for lambda_rate in config.lambda_rates),
        "effort": str(config.effort),
        "gamma": str(config.gamma),
        "seed": str(config.seed),
        "batch_size": str(config.batch_size),
        "device": config.device,
        "codecs": ",".join(config.codecs) or "none",
        "metrics": ",".join(config.metrics) or "none",
    }
    words = ["dhp", "evaluate"]
    for name, value in options.items():
        words += [f"--{name}", value]
    words += ["--save_samples"] if config.save_samples else []
    words += ["--low_memory"] if config.low_memory else []
    words += ["--overwrite"] if config.overwrite else []
    return shlex.join(words)


def evaluate(
    model: DiffusionHyperprior | None,
    pictures: Iterable[Picture],
    *,
    lambda_rates: Sequence[float] = DEFAULT_LAMBDA_RATES,
    steps: Sequence[int] = (0, 1),
    effort: int = 0,
    gamma: float = 0.0,
    seed: int = 0,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    codecs: Sequence[str] = CLASSICAL_CODECS,
    metrics: Sequence[str] = DEFAULT_METRICS,
    save_samples: Path | None = None,
) -> EvaluationReport:
    """Measure a model, and the classical codecs beside it, on pictures that are loaded one batch at a time.

    Args:
        model: on `device` already; None measures the classical codecs alone.
        pictures: (name, (1, 3, H, W) in [0, 1]) in any number and size.
        lambda_rates: settings of the model, each in 1e-6..1e-1; BD-rates need at least four. Settings that
            write the same files count once, and so does a number of steps that is given twice.
        effort: 0 .. 9, how long each picture's latents are optimised.
        steps, gamma, seed: how each file is decoded, see `DiffusionHyperprior.decompress`; `steps` lists
            several K.
        batch_size: consecutive pictures of one size are coded together; times are divided by their number.
        codecs: keys of `codecs.CODECS`; one that is not installed, or that fails, is left out with a note.
        metrics: names of `judges.METRICS`, and patch-kid; one that cannot be had is left out with a note.
        save_samples: a folder for the first pictures (at least four), see `SampleFiles`; None writes none.

    Returns:
        EvaluationReport; BD-rates against the published Kodak curves are in it when the pictures are Kodak's
        24.

    Raises:
        ValueError: no pictures, nothing to measure them with, an unknown codec or metric, or an effort that
            the model cannot spend.
    """
    chosen, notes = choose(codecs)
    found, lines = choose_metrics(metrics)
    judges = Judges(found, device=device, seed=seed)
    notes += map(without_folders, lines)
    if not (chosen if model is None else steps and lambda_rates):
        reasons = [
            "nothing to measure: give a model with lambda_rates and steps, or classical codecs",
            *notes,
        ]
        raise ValueError("; ".join(reasons))
    check_effort(effort, sends_y=model is None or model.sends_y)
    steps = list(dict.fromkeys(steps))
    lambda_rates = list({lambda_code(value): value for value in reversed(lambda_rates)}.values())[::-1]
    samples = None if save_samples is None else SampleFiles(save_samples, lambda_rates, steps)
    code = partial(measure_batch, model, steps=steps, gamma=gamma, seed=seed)
    ours: list[Measurement] = []
    classical: list[Measurement] = []
    done = 0
    for names, x in batches(pictures, batch_size):
        if model is not None:
            if done == 0:  # the first call also prepares kernels: it is not measured
                code(names, x, lambda_rates[0], effort=min(effort, 1))
            shown = samples if done < SAMPLE_PICTURES else None
            for lambda_rate in lambda_rates:
                ours += code(names, x, lambda_rate, effort=effort, samples=shown, judges=judges)
        for name, picture in zip(names, x.split(1), strict=True):
            for codec in list(chosen):
                classical += _swept(codec, name, picture, chosen, notes, judges)
        done += len(names)
    if done == 0:
        raise ValueError("no picture could be read: nothing was measured")
    about = {
        "effort": effort,
        "gamma": gamma,
        "seed": seed,
        "batch_size": batch_size,
        **environment(torch.device(device)),
    }
    if model is not None:
        about |= model_ids(model) | {"config": asdict(model.config)}
    kept = {codec.name for codec in chosen}
    report = make_report(about, ours, [one for one in classical if one.codec in kept], judges)
    return replace(report, notes=[*notes, *report.notes])


def model_ids(model: DiffusionHyperprior) -> dict[str, str | None]:
    """What pictures depend on, for results: "model_id", and "realism_id", None without a realism part."""
    part = getattr(model, "realism", None)  # other codecs have none
    drawn_by = None if part is None else realism_id(part, model.model_id).hex()
    return {"model_id": model.model_id.hex(), "realism_id": drawn_by}


def _swept(
    codec: Codec, name: str, x: Tensor, chosen: list[Codec], notes: list[str], judges: Judges
) -> list[Measurement]:
    """Measurements of a picture; of a codec that fails none, and it is taken from the chosen ones."""
    try:
        return list(sweep(codec, name, x, judges.measure))
    except CodecError as error:
        chosen.remove(codec)
        notes.append(f"{codec.name} is left out, it failed at {name}: {error}")
        return []


def measure_batch(
    model: DiffusionHyperprior,
    names: Sequence[str],
    x: Tensor,
    lambda_rate: float,
    *,
    steps: Sequence[int],
    effort: int = 0,
    gamma: float,
    seed: int,
    samples: SampleFiles | None = None,
    judges: Judges | None = None,
) -> list[Measurement]:
    """Encode pictures to files once, decode the files at each K, and measure each decoded picture.

    Args:
        names: of the B pictures.
        x: (B, 3, H, W) in [0, 1].
        lambda_rate: 1e-6 .. 1e-1.
        steps, effort, gamma, seed: as for `evaluate`.
        samples: receives the originals and the decoded pictures; None writes none.
        judges: by what they are measured; None is PSNR, MS-SSIM and texture.

    Returns:
        B * len(steps) figures; the times are the batch's, divided by B.
    """
    judges = judges or Judges()
    start = perf_counter()
    files = dhp_file.encode_batch(model, x, lambda_rate=lambda_rate, effort=effort)
    encode_seconds = (perf_counter() - start) / len(files)
    found = []
    for k in steps:
        start = perf_counter()
        x_hat = dhp_file.decode_batch(model, files, steps=k, gamma=gamma, seed=seed).float().cpu()
        decode_seconds = (perf_counter() - start) / len(files)
        for name, data, original, decoded in zip(names, files, x.split(1), x_hat.split(1), strict=True):
            found.append(
                judges.measure(
                    decoded,
                    original,
                    codec=f"dhp K={k}",
                    setting=lambda_rate,
                    picture=name,
                    n_bytes=len(data),
                    encode_seconds=encode_seconds,
                    decode_seconds=decode_seconds,
                )
            )
            if samples is not None:
                samples.save(name, original, decoded, lambda_rate, k)
    return found
