"""``dhp train``, ``train-realism``, ``train-lessons``, ``train-scenes``; ``draw-scenes`` draws pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dhp_lab.cli.app import DEVICE, LOW_MEMORY, Device, app
from dhp_lab.cli.options import options_from
from dhp_lab.training.codec_config import TrainingConfig
from dhp_lab.training.realism_config import RealismConfig

TRAINING_OPTIONS = {
    "data_path": "Folder of training photos, folders below included.",
    "val_data_path": "Photos to validate on; else some are held out.",
    "output_dir": "Receives checkpoints, training.log, samples/, tensorboard/.",
    "batch_size": "Crops in a step, of each process.",
    "epochs": "Passes over the photos for the codec.",
    "denoiser_epochs": "Then for the denoiser, the codec frozen.",
    "joint_epochs": "Then for both together.",
    "lr": "Peak learning rate of Adam.",
    "lambda_rate": "One trade-off; else 1e-5 .. 3e-2, with --bk_sdm_path or z alone 1e-3 .. 1e-1.",
    "N": "Width of the networks; 128 if not given.",
    "M": "Channels of the latents; with --bk_sdm_path those inside the hyper-networks; 128, or those of "
    "--init_from, if not given.",
    "diffusion_steps": "Times in the noise schedule; 50, or 30 with --bk_sdm_path, if not given.",
    "schedule": "linear or cosine.",
    "transmit": "z+y (as if not given) or z.",
    "passes": "Over the latents: 1 (as if not given), 2, 4 or 14.",
    "dead_zone": "0 (as if not given) .. 1: dead-zone quantisation: extra width of the zero bin.",
    "trellis": "Trellis-coded quantisation in the place of rounding: fewer bits; off if not given.",
    "image_size": "Side of the crops, a multiple of 64.",
    "init_from": "Checkpoint folder to start from.",
    "bk_sdm_path": "Take the VAE and the U-Net of this Stable Diffusion folder or hub id.",
    "use_pretrained_vae": "The folder's VAE, or a new one.",
    "use_pretrained_unet": "The folder's U-Net, or a new denoiser.",
    "seed": "Of everything random.",
    "validate_every": "Steps between validations.",
    "calibrate_every": "Steps between calibrations of the gain curve; 0: at the ends of stages alone.",
    "drawn_share": "Of the training crops that are drawings: bars, text, flat areas; 0 <= share < 1.",
    "workers": "Processes that read photos; 0: a thread.",
    "cache_gb": "Gigabytes of photos that are kept in memory.",
    "device": DEVICE,
    "low_memory": LOW_MEMORY,
    "resume": "Go on from the last state in output_dir; with more epochs, if given.",
    "overwrite": "Replace a training in output_dir.",
}

REALISM_OPTIONS = {
    "data_path": TRAINING_OPTIONS["data_path"],
    "val_data_path": TRAINING_OPTIONS["val_data_path"],
    "model_path": "Folder of the codec, which stays as it is; the shipped one if not given.",
    "output_dir": "Receives realism.json and realism.safetensors, training.log, samples/, tensorboard/.",
    "denoising_steps": "Steps of the first stage: the denoising loss alone.",
    "drawn_steps": "Then of the second: drawn in 2 or 4 steps; needs `dhp download metric-networks`.",
    "batch_size": "Crops in a step.",
    "image_size": "Side of the first stage's crops, a multiple of 64.",
    "drawn_image_size": "Side of the second stage's crops, a multiple of 64.",
    "lr": "Peak learning rate of Adam in the first stage.",
    "drawn_lr": "In the second stage.",
    "statistics_weight": "Of the Wasserstein distortion, in the second stage's loss.",
    "lpips_weight": "Of LPIPS in it.",
    "mse_weight": "Of the squared error over 0.05^2 in it.",
    "denoising_weight": "Of the denoising loss in it.",
    "widths": "Channels of the network at 1/2, 1/4 and 1/8 of the picture's sides.",
    "init_from": "Folder with a realism part to start from.",
    "seed": TRAINING_OPTIONS["seed"],
    "ema_decay": "Of the average of the weights, which is what is left.",
    "validate_every": TRAINING_OPTIONS["validate_every"],
    "minutes_between_saves": "Between savings of the state and of the average.",
    "drawn_share": TRAINING_OPTIONS["drawn_share"],
    "workers": TRAINING_OPTIONS["workers"],
    "cache_gb": TRAINING_OPTIONS["cache_gb"],
    "device": DEVICE,
    "resume": "Go on from the last state in output_dir; with more steps, if given.",
    "overwrite": TRAINING_OPTIONS["overwrite"],
}

OutputDir = Annotated[
    Path | None,
    typer.Option("--output_dir", help="Receives a folder for each; data/checkpoints if not given."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Profile = Annotated[
    str,
    typer.Option("--profile", help="gpu trains what is shipped, laptop and ci take fewer steps."),
]


@app.command()
@options_from(TrainingConfig, TRAINING_OPTIONS)
def train(config: TrainingConfig) -> None:
    """Train a codec and its denoiser."""
    from dhp_lab.training.codec_trainer import train as run

    best = run(config)
    typer.echo(f"best checkpoint: {best}")


@app.command("train-realism")
@options_from(RealismConfig, REALISM_OPTIONS)
def train_realism(config: RealismConfig) -> None:
    """Train the realism denoiser of a codec: what draws pictures that look like photos."""
    from dhp_lab.training.realism_trainer import train_realism as run

    folder = run(config)
    typer.echo(f"realism.json and realism.safetensors, to copy into the codec's folder: {folder}")


@app.command("train-lessons")
def train_lessons(
    output_dir: OutputDir = None,
    data: Annotated[str, typer.Option("--data", help="digits or fashion: what to train on.")] = "digits",
    only: Annotated[
        str | None,
        typer.Option("--only", help="One network of them, such as fashion-flow; all if not given."),
    ] = None,
    profile: Profile = "gpu",
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Train the small networks of digits or of Fashion-MNIST that lessons 01 to 05 use.

    Those of Fashion-MNIST take an hour of a core each, and go on where they were broken off.
    """
    from dhp_lab.core.paths import CHECKPOINTS
    from dhp_lab.training.digit_denoiser import LESSONS, lesson_config
    from dhp_lab.training.digit_denoiser import train_lessons as on_digits
    from dhp_lab.training.fashion_models import NAMES, fashion_steps
    from dhp_lab.training.fashion_models import train_fashion as on_fashion

    if data not in ("digits", "fashion"):
        raise ValueError(f"--data must be digits or fashion, got {data!r}")
    run, names = (on_digits, tuple(LESSONS)) if data == "digits" else (on_fashion, NAMES)
    names = (only,) if only else names
    if data == "digits":
        steps = sum(lesson_config(name, profile).training_steps for name in names)
    else:
        steps = sum(fashion_steps(name, profile) for name in names)
    with _progress_bar(steps) as progress:
        folders = run(
            output_dir or CHECKPOINTS,
            names=names,
            profile=profile,
            device=device,
            progress=progress,
            overwrite=overwrite,
        )
    _echo_checkpoints(folders)


@app.command("train-scenes")
def train_scenes(
    output_dir: OutputDir = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="One of scenes-f4, scenes-f8, scenes-vq; all of them if not given."),
    ] = None,
    profile: Profile = "gpu",
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Train the autoencoders and latent diffusion models of captioned scenes that lesson 06 uses."""
    from dhp_lab.core.paths import CHECKPOINTS
    from dhp_lab.training.scene_models import SCENE_MODELS, scene_config
    from dhp_lab.training.scene_models import train_scenes as run

    names = [only] if only else list(SCENE_MODELS)
    with _progress_bar(sum(scene_config(name, profile).training_steps for name in names)) as progress:
        folders = run(
            output_dir or CHECKPOINTS,
            names=names,
            profile=profile,
            device=device,
            progress=progress,
            overwrite=overwrite,
        )
    _echo_checkpoints(folders)


@app.command("draw-scenes")
def draw_scenes(
    output_dir: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Receives 00000.png, 00001.png ... and captions.txt.")
    ],
    count: Annotated[int, typer.Option("--count", help="How many scenes.")] = 2000,
    seed: Annotated[
        int, typer.Option("--seed", help="Of the scenes; a smaller count gives the first ones.")
    ] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw captioned scenes as pictures, to train on or to measure with."""
    from dhp_lab.core.files import check_writable, refuse_to_overwrite, write_atomic
    from dhp_lab.data.images import save_image
    from dhp_lab.data.scenes import batch

    paths = [output_dir / f"{i:05d}.png" for i in range(count)]
    list_of_captions = output_dir / "captions.txt"
    if not overwrite:
        refuse_to_overwrite([list_of_captions, *paths], "take another FOLDER, or replace it (--overwrite)")
    check_writable(list_of_captions)
    pictures, captions = batch(count, seed)
    for path, picture in zip(paths, pictures, strict=True):
        save_image(picture[None], path)
    write_atomic(list_of_captions, ("\n".join(captions) + "\n").encode())
    typer.echo(f"{count} scenes in {output_dir}")


@contextmanager
def _progress_bar(steps: int) -> Iterator[Callable[[str, int, float], None]]:
    """A progress bar over all steps of several trainings, as the function that they call after each step."""
    from tqdm import tqdm

    with tqdm(total=steps, delay=0.1) as bar:  # a refusal before the first step shows none

        def progress(name: str, step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(training=name, loss=f"{loss:.4f}", refresh=False)

        yield progress


def _echo_checkpoints(folders: list[Path]) -> None:
    typer.echo("\n".join(f"checkpoint: {folder}" for folder in folders))
