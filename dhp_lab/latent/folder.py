"""The folder of a Stable Diffusion pipeline, read and written part by part; see the table in
``latent_diffusion``.

No network is asked, and nothing but safetensors and JSON is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import CONFIG_NAME
from safetensors import SafetensorError
from torch import nn
from transformers.utils import logging

from dhp_lab.core.weights import CheckpointError
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.latent.autoencoders import load_autoencoder

INDEX = "model_index.json"
PARTS = (
    *(f"{name}/{CONFIG_NAME}" for name in ("vae", "unet", "text_encoder")),
    "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json",
)
EPSILON, V_PREDICTION = "epsilon", "v_prediction"  # what a U-Net may predict, in a scheduler's words


def load_vae_unet_schedule(folder: Path) -> tuple[AutoencoderKL, UNet2DConditionModel, NoiseSchedule, str]:
    """The parts of a pipeline that know no words: VAE, U-Net, schedule, and what the U-Net predicts.

    Raises:
        CheckpointError: a part is missing (the message names it) or damaged.
    """
    check_parts(folder, [name for name in PARTS if not name.startswith("t")])
    vae = load_autoencoder(folder / "vae")
    with as_checkpoint_error(folder):
        unet = read_network(UNet2DConditionModel, folder, "unet")
        scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_bytes())
        return vae, unet, schedule_of(scheduler), scheduler.get("prediction_type", EPSILON)


def check_parts(folder: Path, names: Sequence[str] = (INDEX, *PARTS)) -> None:
    """Pass a folder that has these files.

    Raises:
        CheckpointError: it has not; the message names those that are missing.
    """
    if missing := [name for name in names if not (folder / name).exists()]:
        raise CheckpointError(
            f"no latent diffusion model at {folder}: {', '.join(missing)} not found; fetch it again"
        )


@contextmanager
def as_checkpoint_error(folder: Path) -> Iterator[None]:
    """Turn whatever a damaged part raises into a CheckpointError that says so."""
    try:
        yield
    except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the latent diffusion model at {folder} is damaged: {error}; fetch it again"
        ) from None


def schedule_of(config: dict) -> NoiseSchedule:
    """The chain that a scheduler's configuration of diffusers describes."""
    return NoiseSchedule(
        config.get("beta_schedule", "linear"), DDIMScheduler.from_config(config).betas.double()
    )


def scheduler_of(schedule: NoiseSchedule, prediction: str = EPSILON) -> DDIMScheduler:
    """diffusers' scheduler for a chain with linear betas, its steps those of ``samplers.ddim``.

    Raises:
        ValueError: the betas are not linear.
    """
    low, high = (
        float(f"{schedule.betas[i]:.7g}") for i in (0, -1)
    )  # float32, which they become, holds no more
    scheduler = DDIMScheduler(
        num_train_timesteps=schedule.steps,
        beta_start=low,
        beta_end=high,
        beta_schedule="linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="trailing",
        prediction_type=prediction,
    )
    if not torch.allclose(scheduler.betas.double(), schedule.betas, rtol=1e-5, atol=0):
        raise ValueError(
            f"the schedule '{schedule.name}' has no linear betas, which a scheduler's configuration could name"
        )
    return scheduler


def read_network(kind: type, folder: Path, part: str) -> nn.Module:
    """A part in float32 and eval mode.

    Raises:
        ValueError: its weights do not fit its configuration. OSError, SafetensorError and others: it is
            damaged.
    """
    with _no_bars():
        network, report = kind.from_pretrained(
            folder,
            subfolder=part,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    if wrong := sorted([*report["missing_keys"], *report["unexpected_keys"]]):
        raise ValueError(
            f"the weights in {part} do not fit its {CONFIG_NAME}: {wrong[0]} and {len(wrong) - 1} more"
        )
    return network.eval()


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the progress bars of transformers, which are over before they can be read."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
