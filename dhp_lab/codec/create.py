"""Creators of untrained codecs, native or around a Stable Diffusion folder, and a trained one with other
settings.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dhp_lab.codec.checkpoint import load_parts
from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.growth import grown
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.gain import START
from dhp_lab.codec.stable_diffusion.config import StableDiffusionConfig
from dhp_lab.core.memory import is_out_of_memory
from dhp_lab.core.precision import float32_by_default

PROBE = 16  # side, in latents, of the picture on which the cost of an error in y is measured


@float32_by_default()
def create_diffusion_hyperprior_model(
    N: int = 128,
    M: int = 128,
    diffusion_steps: int = 50,
    schedule: str = "linear",
    transmit: str = "z+y",
    passes: int = 1,
    dead_zone: float = 0.0,
    trellis: bool = False,
) -> DiffusionHyperprior:
    """An untrained codec, which already is a lapped-transform codec. Arguments and errors as for
    ``CodecConfig``.
    """
    config = CodecConfig(N, M, diffusion_steps, schedule, transmit, passes, dead_zone, trellis=trellis)
    model = DiffusionHyperprior(config)
    model.update()
    return model.to(memory_format=torch.channels_last)


@float32_by_default()
def with_settings(model: DiffusionHyperprior, **settings: object) -> DiffusionHyperprior:
    """The same codec with other settings: trained parts are kept, new ones (later passes) get their
    initialisation; more channels, or another number of passes above 1, are those of ``growth.grown``.

    Args:
        settings: M, transmit, passes, dead_zone, trellis as in ``CodecConfig``; None leaves one as it is.

    Raises:
        ValueError: a value outside its range; fewer channels than the model has; more, or other passes, for
            one with borrowed transforms.
    """
    config = replace(model.config, **{name: value for name, value in settings.items() if value is not None})
    if config == model.config:
        return model
    passes = model.config.passes
    if config.M != model.config.M or (config.passes != passes and min(config.passes, passes) > 1):
        model = grown(model, config.M, config.passes)
        config = replace(config, revision=model.config.revision)
    other = DiffusionHyperprior(config, load_parts(config))
    wanted = other.state_dict()
    kept = {name: tensor for name, tensor in model.state_dict().items() if name in wanted}
    if config.trellis != model.config.trellis:  # other tables
        kept = {name: tensor for name, tensor in kept.items() if not name.startswith("gaussian_conditional.")}
    other.load_state_dict(wanted | kept)
    other.update()
    return other.to(model.log2_spread.device, memory_format=torch.channels_last).train(model.training)


@float32_by_default()
def create_bk_sdm_compression_model(
    bk_sdm_path: str | Path,
    N: int = 128,
    M: int = 128,
    diffusion_steps: int = 30,
    use_pretrained_vae: bool = True,
    use_pretrained_unet: bool = True,
    transmit: str = "z+y",
    passes: int = 1,
    dead_zone: float = 0.0,
    trellis: bool = False,
) -> DiffusionHyperprior:
    """An untrained hyperprior around the parts of a Stable Diffusion folder.

    Its steps Delta start where they would be best if the VAE were linear: an error of y of variance v costs c
    v of MSE, which is measured here, and Delta^2 = 6 lambda C / (ln 2 c f^2) balances c Delta^2/12 against
    -lambda log2(Delta) C / f^2. The finished codec is tried on one small picture. Arguments and errors as for
    ``StableDiffusionConfig`` and ``stable_diffusion_parts``.

    Raises:
        ValueError: also where the parts cannot be evaluated together.
    """
    try:
        return _around_folder(
            bk_sdm_path,
            N=N,
            M=M,
            diffusion_steps=diffusion_steps,
            use_pretrained_vae=use_pretrained_vae,
            use_pretrained_unet=use_pretrained_unet,
            transmit=transmit,
            passes=passes,
            dead_zone=dead_zone,
            trellis=trellis,
        )
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"the parts at {bk_sdm_path} cannot be evaluated as a codec, {type(error).__name__}: {error}; "
            "take a folder of Stable Diffusion 1 or 2, or of BK-SDM"
        ) from None


def _around_folder(
    bk_sdm_path: str | Path, *, use_pretrained_unet: bool, **settings: object
) -> DiffusionHyperprior:
    """The codec of ``create_bk_sdm_compression_model``, with whatever error its parts raise."""
    context = empty_prompt(bk_sdm_path) if use_pretrained_unet else torch.zeros(1, 1, 1)
    config = StableDiffusionConfig(
        **settings,
        bk_sdm_path=str(bk_sdm_path),
        use_pretrained_unet=use_pretrained_unet,
        tokens=context.shape[1],
    )
    parts = load_parts(config)
    model = DiffusionHyperprior(replace(config, parts=parts.digest), parts)
    with torch.no_grad():
        if use_pretrained_unet:
            _check_width(context, model.denoiser.context, bk_sdm_path)
            model.denoiser.context.copy_(context)
        best = 6 * model.M / (math.log(2) * _error_cost(model) * model.block**2)
        model.gain.knots += 0.5 * math.log2(best) - math.log2(START)
    model.update()
    model = model.to(memory_format=torch.channels_last)
    _try_once(model)
    return model


def _check_width(context: Tensor, expected: Tensor, path: str | Path) -> None:
    if context.shape != expected.shape:
        raise ValueError(
            f"the text encoder at {path} gives vectors of {context.shape[-1]} numbers, "
            f"the cross-attention of the U-Net takes {expected.shape[-1]}: they do not fit"
        )


@torch.no_grad()
def _try_once(model: DiffusionHyperprior) -> None:
    """Code a small grey picture and decode it with one evaluation of the denoiser.

    Raises:
        ValueError: what comes out is not finite or has another size; and whatever error a part raises.
    """
    was_training = model.training
    x = torch.full((1, 3, 8 * model.block, 8 * model.block), 0.5)
    x_hat = model.eval()(x, steps=1)["x_hat"]
    model.train(was_training)
    if x_hat.shape != x.shape or not bool(x_hat.isfinite().all()):
        raise ValueError(
            f"the parts at {model.config.bk_sdm_path} make no finite picture of {tuple(x.shape)}, but "
            f"{tuple(x_hat.shape)} with {int((~x_hat.isfinite()).sum())} values that are not finite"
        )


@torch.no_grad()
def empty_prompt(folder: str | Path) -> Tensor:
    """(1, L, D): a folder's text encoder on the empty prompt. Errors as for ``LatentDiffusion.load``."""
    from dhp_lab.codec.stable_diffusion.parts import find_pipeline
    from dhp_lab.latent.pipeline import EMPTY, LatentDiffusion

    return LatentDiffusion.load(find_pipeline(folder)).context([EMPTY])


def _error_cost(model: DiffusionHyperprior) -> float:
    """c: the MSE of a picture for an error in y of variance 1, measured at 0.01 of it on unit latents."""
    generator = torch.Generator().manual_seed(0)
    y, noise = (torch.randn(1, model.M, PROBE, PROBE, generator=generator) for _ in range(2))
    size, zero = (model.block * PROBE,) * 2, torch.zeros(1)
    clean, noisy = (model.synthesise(latents, zero, size) for latents in (y, y + 0.1 * noise))
    return 100 * (noisy - clean).square().mean().item()
