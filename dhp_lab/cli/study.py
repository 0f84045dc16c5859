"""``dhp train``, ``train-lessons``, ``train-scenes``, ``draw-scenes``, ``evaluate`` and ``download``."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dhp_lab.cli.app import Device, ModelPath, LowMemory, app


def _option(name: str, help: str):
    return typer.Option(f"--{name}", help=help)


@app.command()
def train(
    data_path: Annotated[str, _option("data_path", "Folder of training photos, folders below included.")],
    val_data_path: Annotated[
        str | None, _option("val_data_path", "Photos to validate on; else some are held out.")
    ] = None,
    output_dir: Annotated[
        str, _option("output_dir", "Receives checkpoints, training.log, samples/, tensorboard/.")
    ] = "outputs",
    batch_size: Annotated[int, _option("batch_size", "Crops in a step.")] = 8,
    epochs: Annotated[int, _option("epochs", "Passes over the photos for the codec.")] = 100,
    denoiser_epochs: Annotated[
        int, _option("denoiser_epochs", "Then for the denoiser, the codec frozen.")
    ] = 20,
    joint_epochs: Annotated[int, _option("joint_epochs", "Then for both together.")] = 20,
    lr: Annotated[float, _option("lr", "Peak step size of Adam.")] = 1e-4,
    lambda_rate: Annotated[
        float | None,
        _option(
            "lambda_rate", "One trade-off; else 1e-5 .. 3e-2, with --bk_sdm_path or z alone 1e-3 .. 1e-1."
        ),
    ] = None,
    N: Annotated[int, _option("N", "Width of the networks.")] = 128,
    M: Annotated[
        int, _option("M", "Channels of the latents; with --bk_sdm_path those inside the hyper-networks.")
    ] = 128,
    diffusion_steps: Annotated[
        int | None,
        _option(
            "diffusion_steps", "Times in the noise schedule; 50, or 30 with --bk_sdm_path, if not given."
        ),
    ] = None,
    schedule: Annotated[str, _option("schedule", "linear or cosine.")] = "linear",
    transmit: Annotated[str | None, _option("transmit", "z+y (as if not given) or z.")] = None,
    passes: Annotated[int | None, _option("passes", "Over the latents: 1 (as if not given), 2 or 4.")] = None,
    dead_zone: Annotated[
        float | None, _option("dead_zone", "0 (as if not given) .. 1: how much rounding leans to zero.")
    ] = None,
    image_size: Annotated[int, _option("image_size", "Side of the crops, a multiple of 64.")] = 256,
    init_from: Annotated[str | None, _option("init_from", "Checkpoint folder to start from.")] = None,
    bk_sdm_path: Annotated[
        str | None,
        _option("bk_sdm_path", "Take the VAE and the U-Net of this Stable Diffusion folder or hub id."),
    ] = None,
    use_pretrained_vae: Annotated[
        bool | None,
        typer.Option("--use_pretrained_vae/--no-use_pretrained_vae", help="The folder's VAE, or a new one."),
    ] = None,
    use_pretrained_unet: Annotated[
        bool | None,
        typer.Option(
            "--use_pretrained_unet/--no-use_pretrained_unet", help="The folder's U-Net, or a new denoiser."
        ),
    ] = None,
    seed: Annotated[int, _option("seed", "Of everything random.")] = 0,
    validate_every: Annotated[int, _option("validate_every", "Steps between validations.")] = 1000,
    device: Device = None,
    low_memory: LowMemory = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last state in output_dir.")
    ] = False,
) -> None:
    """Train a codec and its denoiser."""
    settings = dict(locals())
    from dhp_lab.training.codec_config import TrainingConfig
    from dhp_lab.training.codec_trainer import train as run

    best = run(TrainingConfig(**settings))
    typer.echo(f"best checkpoint: {best}")


@app.command("train-lessons")
def train_lessons(
    output_dir: Annotated[
        Path | None, _option("output_dir", "Receives a folder for each; data/checkpoints if not given.")
    ] = None,
    profile: Annotated[
        str, _option("profile", "gpu trains what is shipped, laptop and ci take fewer steps.")
    ] = "gpu",
    device: Device = None,
) -> None:
    """Train the small denoisers of digits that lessons 01 to 04 use."""
    from dhp_lab.core.paths import CHECKPOINTS
    from dhp_lab.training.digit_denoiser import LESSONS, lesson_config
    from dhp_lab.training.digit_denoiser import train_lessons as run

    with _bar(sum(lesson_config(name, profile).training_steps for name in LESSONS)) as progress:
        folders = run(output_dir or CHECKPOINTS, profile=profile, device=device, progress=progress)
    typer.echo("\n".join(f"checkpoint: {folder}" for folder in folders))


@app.command("train-scenes")
def train_scenes(
    output_dir: Annotated[
        Path | None, _option("output_dir", "Receives a folder for each; data/checkpoints if not given.")
    ] = None,
    only: Annotated[
        str | None, _option("only", "One of scenes-f4, scenes-f8, scenes-vq; all of them if not given.")
    ] = None,
    profile: Annotated[
        str, _option("profile", "gpu trains what is shipped, laptop and ci take fewer steps.")
    ] = "gpu",
    device: Device = None,
) -> None:
    """Train the autoencoders and latent diffusion models of captioned scenes that lesson 05 uses."""
    from dhp_lab.core.paths import CHECKPOINTS
    from dhp_lab.training.scene_models import SCENE_MODELS, scene_config
    from dhp_lab.training.scene_models import train_scenes as run

    names = [only] if only else list(SCENE_MODELS)
    with _bar(sum(scene_config(name, profile).training_steps for name in names)) as progress:
        folders = run(
            output_dir or CHECKPOINTS, names=names, profile=profile, device=device, progress=progress
        )
    typer.echo("\n".join(f"checkpoint: {folder}" for folder in folders))


@app.command("draw-scenes")
def draw_scenes(
    output_dir: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Receives 00000.png, 00001.png ... and captions.txt.")
    ],
    count: Annotated[int, _option("count", "How many scenes.")] = 2000,
    seed: Annotated[int, _option("seed", "Of the scenes; a smaller count gives the first ones.")] = 0,
) -> None:
    """Draw captioned scenes as pictures, to train on or to measure with."""
    from dhp_lab.data.images import save_image
    from dhp_lab.data.scenes import batch

    pictures, captions = batch(count, seed)
    output_dir.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        save_image(picture[None], output_dir / f"{i:05d}.png")
    (output_dir / "captions.txt").write_text("\n".join(captions) + "\n")
    typer.echo(f"{count} scenes in {output_dir}")


@app.command()
def evaluate(
    data_path: Annotated[Path, _option("data_path", "Folder of pictures, folders below included.")],
    model_path: ModelPath = None,
    output_dir: Annotated[Path, _option("output_dir", "Receives evaluation.json and samples/.")] = Path(
        "evaluation_results"
    ),
    batch_size: Annotated[int, _option("batch_size", "Pictures of one size coded together.")] = 4,
    save_samples: Annotated[
        bool, typer.Option("--save_samples", help="Write some pictures, original and decoded.")
    ] = False,
    steps: Annotated[str, _option("steps", "Numbers of diffusion steps K, separated by commas.")] = "0,1",
    lambda_rates: Annotated[
        str | None, _option("lambda_rates", "Trade-offs, separated by commas; else nine of them.")
    ] = None,
    gamma: Annotated[float, _option("gamma", "0 .. 1: 0 the sample, 1 the posterior mean.")] = 0.0,
    seed: Annotated[int, _option("seed", "Of the noise that K > 1 draws.")] = 0,
    codecs: Annotated[
        str | None, _option("codecs", "Some of jpeg,webp,jpeg2000,avif, or none; all if not given.")
    ] = None,
    device: Device = None,
    low_memory: LowMemory = False,
) -> None:
    """Measure a codec on real files, beside JPEG, WebP, JPEG 2000 and AVIF."""
    from dhp_lab.core.paths import default_checkpoint
    from dhp_lab.evaluation.evaluate import DEFAULT_LAMBDA_RATES, EvaluationConfig, run

    config = EvaluationConfig(
        model_path=Path(model_path or default_checkpoint()),
        data_path=data_path,
        output_dir=output_dir,
        batch_size=batch_size,
        save_samples=save_samples,
        device=device,
        low_memory=low_memory,
        gamma=gamma,
        seed=seed,
        steps=_numbers("steps", steps, int),
        lambda_rates=_numbers("lambda_rates", lambda_rates, float) if lambda_rates else DEFAULT_LAMBDA_RATES,
        codecs=_codecs(codecs),
    )
    report = run(config, log=lambda line: typer.echo(line, err=True))
    typer.echo(report.table())


@app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="kodak|fashion-mnist", help="The data set.")],
) -> None:
    """Fetch a data set to the folder DHP_DATA, resumed and checked."""
    from dhp_lab.data.downloads import download as fetch

    folder = fetch(name, report=typer.echo)
    typer.echo(f"{name}: complete in {folder}")


@contextmanager
def _bar(steps: int):
    """A progress bar over all steps of several trainings, as the function that they call after each step."""
    from tqdm import tqdm

    with tqdm(total=steps) as bar:

        def progress(name: str, step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(training=name, loss=f"{loss:.4f}", refresh=False)

        yield progress


def _codecs(text: str | None) -> tuple[str, ...]:
    from dhp_lab.evaluation.classical import CODECS

    return tuple(CODECS) if text is None else () if text == "none" else tuple(text.split(","))


def _numbers(name: str, text: str, kind: type) -> tuple:
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"--{name} takes numbers separated by commas, such as 0,1,4; got '{text}'") from None
