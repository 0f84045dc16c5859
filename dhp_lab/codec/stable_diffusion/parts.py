"""The parts of a codec around a Stable Diffusion folder, loaded from its configuration."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from dhp_lab.codec.denoising.denoiser import Denoiser, LatentDenoiser
from dhp_lab.codec.parts import CodecParts
from dhp_lab.codec.stable_diffusion.config import FOLDER, StableDiffusionConfig
from dhp_lab.codec.stable_diffusion.networks import Frozen, UNetDenoiser, VaeAnalysis, VaeSynthesis
from dhp_lab.core.hub import find_checkpoint
from dhp_lab.core.weights import CheckpointError
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.latent.autoencoders import kl_autoencoder
from dhp_lab.latent.folder import EPSILON, INDEX, V_PREDICTION, load_vae_unet_schedule

FOLDERS, KINDS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler"), ("json", "safetensors", "txt")
HUB_FILES = INDEX, *(f"{folder}/*.{kind}" for folder in FOLDERS for kind in KINDS)  # nothing that holds code
SUITABLE = "take a folder of Stable Diffusion 1 or 2, or of BK-SDM; those of SDXL do not fit"
MORE_CONDITIONS = (  # of a U-Net's configuration, each None where it takes no condition of that kind
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim_type",
    "num_class_embeds",
)
TILE = 64  # largest side of what the VAE and the U-Net see at once, in latents


def find_pipeline(name: str | Path) -> Path:
    """The local folder of ``bk_sdm_path``. Errors as for ``find_checkpoint``."""
    return find_checkpoint(name, HUB_FILES)


def stable_diffusion_parts(config: StableDiffusionConfig) -> CodecParts:
    """The folder's VAE, U-Net and schedule as parts of the codec.

    Raises:
        ValueError: more times than the folder has, or parts that do not fit each other.
        CheckpointError: the folder or a part is missing or damaged, or has other weights than
            ``config.parts`` names.
    """
    vae, unet, schedule, prediction = load_vae_unet_schedule(find_pipeline(config.bk_sdm_path))
    if config.use_pretrained_unet:
        _check_unet(unet, prediction, config.bk_sdm_path)
    digest = _check_parts(config, vae, unet, schedule)
    channels = vae.config.latent_channels
    block = 2 ** (len(vae.config.block_out_channels) - 1)  # f
    g_a, g_s = _transforms(
        vae if config.use_pretrained_vae else kl_autoencoder(block, latent_channels=channels), config
    )
    return CodecParts(
        g_a=g_a,
        g_s=g_s,
        denoiser=_denoiser(config, unet, schedule, prediction),
        noise_schedule=_kept_times(schedule, config.diffusion_steps),
        channels=channels,
        hyper_width=config.M,
        block=block,
        tile=TILE,
        log2_spread=torch.zeros(channels),  # scaled latents have about unit variance
        unit_latents=True,
        digest=digest,
    )


def _check_unet(unet: UNet2DConditionModel, prediction: str, path: str) -> None:
    """Check that a U-Net predicts noise from a latent, a time and a text alone, as it is evaluated here."""
    settings = unet.config
    found = [f"{name} {settings.get(name)!r}" for name in MORE_CONDITIONS if settings.get(name) is not None]
    if not isinstance(settings.cross_attention_dim, int):
        found.append(f"cross_attention_dim {settings.cross_attention_dim!r}")
    if settings.out_channels != settings.in_channels:
        found.append(f"in_channels {settings.in_channels}, out_channels {settings.out_channels}")
    if prediction not in (EPSILON, V_PREDICTION):
        found.append(f"prediction_type {prediction!r}")
    if found:
        raise ValueError(
            f"the U-Net at {path} does not predict noise from a latent, a time and one text alone "
            f"({', '.join(found)}): {SUITABLE}"
        )


def _check_parts(
    config: StableDiffusionConfig, vae: AutoencoderKL, unet: UNet2DConditionModel, schedule: NoiseSchedule
) -> str:
    """The digest of the weights that are taken, where everything fits."""
    if not 1 <= config.diffusion_steps <= schedule.steps:
        raise ValueError(
            f"diffusion_steps must lie in 1 .. {schedule.steps}, the folder's times; "
            f"got {config.diffusion_steps}"
        )
    given, taken = vae.config.latent_channels, unet.config.in_channels
    if given != taken:
        raise ValueError(
            f"the VAE at {config.bk_sdm_path} gives latents of {given} channels, the U-Net takes {taken}: "
            "they do not fit"
        )
    found = _digest(config, vae, unet)
    if config.parts and config.parts != found:
        raise CheckpointError(
            f"the weights at {config.bk_sdm_path} are not those that this codec was trained with: "
            f"digest {found}, not {config.parts}; fetch the same version"
        )
    return found


def _digest(config: StableDiffusionConfig, vae: nn.Module, unet: nn.Module) -> str:
    """16 hexadecimal digits of the sha256 of the weights that are taken; "" where none are."""
    chosen = [vae] * config.use_pretrained_vae + [unet] * config.use_pretrained_unet
    digest = hashlib.sha256()
    for part in chosen:
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode() + tensor.float().numpy().tobytes())
    return digest.hexdigest()[:16] if chosen else ""


def _transforms(vae: AutoencoderKL, config: StableDiffusionConfig) -> tuple[nn.Module, nn.Module]:
    into, out_of = (
        conv or nn.Identity() for conv in (vae.quant_conv, vae.post_quant_conv)
    )  # not every VAE has them
    encoder, decoder = nn.Sequential(vae.encoder, into), nn.Sequential(out_of, vae.decoder)
    if config.use_pretrained_vae:
        encoder, decoder = Frozen(encoder), Frozen(decoder)
    factor = vae.config.scaling_factor
    return VaeAnalysis(encoder, factor), VaeSynthesis(decoder, factor)


def _denoiser(
    config: StableDiffusionConfig, unet: UNet2DConditionModel, schedule: NoiseSchedule, prediction: str
) -> Denoiser:
    if config.use_pretrained_unet:
        return UNetDenoiser(unet, config.tokens, schedule, prediction, config.dead_zone)
    return LatentDenoiser(config.N, unet.config.in_channels, config.dead_zone)


def _kept_times(schedule: NoiseSchedule, count: int) -> NoiseSchedule:
    """``count`` of the folder's times, evenly spaced up to the last, as a schedule of their own."""
    times = schedule.times(count).flip(0)
    return NoiseSchedule(FOLDER, -torch.expm1(schedule.log_alpha_bar(times).diff()))
