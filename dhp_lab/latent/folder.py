"""The parts of a Stable Diffusion pipeline in a folder, read one by one; ``pipeline`` has the table of them.

Everything is read from the folder, never from the internet, and only safetensors and JSON are opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ModelMixin, UNet2DConditionModel
from diffusers.utils import CONFIG_NAME
from safetensors import SafetensorError
from torch import nn
from transformers.utils import logging

from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.weights import CheckpointError
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.latent.autoencoders import load_autoencoder
from dhp_lab.latent.weight_files import DIFFUSERS_STEM, TRANSFORMERS_STEM, weights_variant

INDEX = "model_index.json"
VAE, UNET, TEXT_ENCODER = (f"{name}/{CONFIG_NAME}" for name in ("vae", "unet", "text_encoder"))
TOKENIZER = "tokenizer/tokenizer_config.json"
SCHEDULER = "scheduler/scheduler_config.json"
PARTS = (VAE, UNET, TEXT_ENCODER, TOKENIZER, SCHEDULER)
IMAGE_PARTS = (VAE, UNET, SCHEDULER)
EPSILON = "epsilon"
V_PREDICTION = "v_prediction"
"""The two predictions of a U-Net that are supported, as diffusers' schedulers call them."""


class ImageParts(NamedTuple):
    """The parts of a pipeline that take no text.

    Attributes:
        vae: first stage.
        unet: the denoiser on scaled latents.
        schedule: the chain it was trained on.
        prediction: ``EPSILON`` or ``V_PREDICTION``, or another word of the folder's configuration.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    schedule: NoiseSchedule
    prediction: str


def load_vae_unet_schedule(folder: Path) -> ImageParts:
    """The parts of a pipeline that take no text, the networks in float32 and eval mode.

    Raises:
        CheckpointError: a part is missing (the message names it) or damaged.
    """
    check_parts(folder, IMAGE_PARTS)
    vae = load_autoencoder(folder / "vae")
    with as_checkpoint_error(folder):
        unet = read_network(UNet2DConditionModel, folder, "unet")
        scheduler = json.loads((folder / SCHEDULER).read_bytes())
        schedule = schedule_of(scheduler)
        return ImageParts(vae, unet, schedule, scheduler.get("prediction_type", EPSILON))


def check_parts(folder: Path, names: Sequence[str] = (INDEX, *PARTS)) -> None:
    """Check that a folder has these files.

    Raises:
        CheckpointError: some are missing; the message names them.
    """
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"no latent diffusion model at {folder}: {', '.join(missing)} not found; fetch it again"
        )


@contextmanager
def as_checkpoint_error(folder: Path) -> Iterator[None]:
    """Turn whatever a damaged part raises into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise_if_of_the_machine(error)
        raise CheckpointError(
            f"the latent diffusion model at {folder} is damaged: {error}; fetch it again"
        ) from None


def schedule_of(config: dict) -> NoiseSchedule:
    """The chain that the configuration of a diffusers scheduler describes."""
    name = config.get(
        "beta_schedule", "linear"
    )  # first: diffusers takes what is no dictionary for a model's id
    return NoiseSchedule(name, DDIMScheduler.from_config(config).betas.double())


def scheduler_of(schedule: NoiseSchedule, prediction: str = EPSILON) -> DDIMScheduler:
    """diffusers' scheduler for a chain with linear betas, its steps those of ``samplers.ddim``.

    Args:
        schedule: the chain.
        prediction: ``EPSILON`` or ``V_PREDICTION``.

    Raises:
        ValueError: the betas are not linear.
    """
    first, last = (float(f"{schedule.betas[i]:.7g}") for i in (0, -1))  # as many digits as float32 has
    scheduler = DDIMScheduler(
        num_train_timesteps=schedule.steps,
        beta_start=first,
        beta_end=last,
        beta_schedule="linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="trailing",
        prediction_type=prediction,
    )
    if not torch.allclose(scheduler.betas.double(), schedule.betas, rtol=1e-5, atol=0):
        raise ValueError(
            f"the schedule '{schedule.name}' has no linear betas, "
            "which a scheduler's configuration could name"
        )
    return scheduler


def read_network(kind: type, folder: Path, part: str) -> nn.Module:
    """Load a part in float32 and eval mode.

    Args:
        kind: its class, of diffusers or transformers.
        folder: of the pipeline.
        part: its folder's name.

    Raises:
        CheckpointError: it has no weights that can be read; the message names what is there.
        ValueError: its weights do not fit its configuration.
        OSError, SafetensorError and others: it is damaged; see ``as_checkpoint_error``.
    """
    stem = DIFFUSERS_STEM if issubclass(kind, ModelMixin) else TRANSFORMERS_STEM
    variant = weights_variant(folder / part, stem)
    if variant is None:
        check_parts(folder, [f"{part}/{stem}.safetensors"])
    with without_progress_bars():
        network, report = kind.from_pretrained(
            folder,
            subfolder=part,
            variant=variant or None,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    wrong = sorted([*report["missing_keys"], *report["unexpected_keys"]])
    if wrong:
        raise ValueError(
            f"the weights in {part} do not fit its {CONFIG_NAME}: {wrong[0]} and {len(wrong) - 1} more"
        )
    return network.eval()


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Turn off transformers' progress bars inside the block: they end before they can be read."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
