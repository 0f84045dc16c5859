"""The first stage of latent diffusion: a small autoencoder between pixels and fewer, smoother latents.

    x (B, 3, H, W) --encode--> z (B, 4, H/f, W/f) --decode--> x_hat (B, 3, H, W)

Rombach et al. 2022, section 3.1 and appendix G. Two ways keep the latents from growing without bound:

| way    | what it is                      | z                        | regulariser                     |
|--------|---------------------------------|--------------------------|---------------------------------|
| KL-reg | a VAE with a tiny KL weight     | the mean of q(z given x) | 1e-6 KL(q, standard normal)     |
| VQ-reg | a codebook, part of the decoder | before the codebook      | van den Oord et al. 2017, eq. 3 |

| paper  | E          | D          | f   | K       | beta         | 1 / sigma-hat    |
|--------|------------|------------|-----|---------|--------------|------------------|
| here   | ``encode`` | ``decode`` | `f` | `codes` | `commitment` | ``scale_factor`` |

The networks are diffusers' AutoencoderKL and VQModel, without attention. Pictures are in [0, 1] here and in
[-1, 1] inside. The paper's perceptual and adversarial losses need other trained networks; here a loss on
edges takes their place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, VQModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from torch import Tensor

from dhp_lab.core.files import write_all_atomic
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.weights import CheckpointError, weights_to_bytes
from dhp_lab.diffusion.process import noise_like
from dhp_lab.latent.weight_files import DIFFUSERS_STEM, weights_variant

Autoencoder = AutoencoderKL | VQModel
KINDS = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}
WIDTHS = (16, 32, 64, 64, 64)  # channels at full size, half, quarter ..
GROUPS = 8  # of the group normalisations; divides every width
FACTORS = (2, 4, 8, 16)
LOG_VARIANCE = -6.0  # of a new KL-reg model's latents


def kl_autoencoder(
    f: int = 8, *, widths: Sequence[int] | None = None, latent_channels: int = 4
) -> AutoencoderKL:
    """A new KL-reg autoencoder, diffusers' AutoencoderKL, its latents with a noise of exp(-6/2) = 0.05.

    Args:
        f: how many pixels a latent spans in each direction: 2, 4, 8 or 16.
        widths: channels at each size, the full one first, multiples of 8; None: as many of ``WIDTHS`` as f
            needs.
        latent_channels: channels of the latents; 4 as in Stable Diffusion.

    Raises:
        ValueError: there is no such f, or the widths do not fit.
    """
    model = AutoencoderKL(**_layers(f, widths), latent_channels=latent_channels)
    model.quant_conv.bias.data[latent_channels:] = LOG_VARIANCE
    return model


def vq_autoencoder(
    f: int = 8, *, codes: int = 512, widths: Sequence[int] | None = None, latent_channels: int = 4
) -> VQModel:
    """A new VQ-reg autoencoder, diffusers' VQModel.

    Args:
        f, widths, latent_channels: as for ``kl_autoencoder``.
        codes: vectors in the codebook, at least 1; 512 as in van den Oord et al. 2017.

    Raises:
        ValueError: as ``kl_autoencoder``, or fewer than one code.
    """
    if codes < 1:
        raise ValueError(f"codes must be at least 1, got {codes}")
    return VQModel(**_layers(f, widths), latent_channels=latent_channels, num_vq_embeddings=codes)


def encode(model: Autoencoder, x: Tensor) -> Tensor:
    """The latents of pictures: the mode of q if KL-reg, before quantisation if VQ-reg.

    They are unscaled: multiply by ``model.config.scaling_factor`` before diffusion, divide before ``decode``.

    Args:
        model: the first stage.
        x: (B, 3, H, W) in [0, 1], H and W multiples of f.

    Returns:
        (B, 4, H/f, W/f).

    Raises:
        ValueError: pictures of another shape or range, or sides that f does not divide.
    """
    _check_pictures(model, x)
    encoded = model.encode(2 * x - 1)
    return encoded.latents if isinstance(model, VQModel) else encoded.latent_dist.mode()


def decode(model: Autoencoder, latents: Tensor) -> Tensor:
    """The pictures of unscaled latents; a VQ-reg model first quantises them to their nearest codes.

    Args:
        model: the first stage.
        latents: (B, 4, h, w).

    Returns:
        (B, 3, f h, f w) in [0, 1].

    Raises:
        ValueError: latents of another shape.
    """
    if latents.ndim != 4 or latents.shape[1] != model.config.latent_channels:
        raise ValueError(
            f"latents must be (B, {model.config.latent_channels}, h, w), got {tuple(latents.shape)}"
        )
    return ((model.decode(latents).sample + 1) / 2).clamp(0, 1)


def autoencoder_loss(
    model: Autoencoder,
    x: Tensor,
    *,
    edge_weight: float = 1.0,
    kl_weight: float = 1e-6,
    commitment: float = 0.25,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The training objective "loss" and its unweighted terms, all of them scalars.

    "reconstruction" is the mean |x_hat - x| on the scale [-1, 1]; "edges" is that of its differences between
    neighbours across and down (after the gradient difference loss of Mathieu, Couprie & LeCun 2016). KL-reg
    adds "kl", in nats for each number of the picture, so that its weight is that of the paper, which sums
    both over the picture. VQ-reg adds "codebook" and "commitment", means where the paper's eq. 3 has sums;
    diffusers' own loss puts beta on the other of the two.

    Args:
        x: (B, 3, H, W) pictures in [0, 1].
        edge_weight, kl_weight: the weights of "edges" and "kl".
        commitment: beta, the weight of "commitment".
        generator: of the noise in a KL-reg model's latents.

    Raises:
        ValueError: as ``encode``.
    """
    _check_pictures(model, x)
    target = 2 * x - 1
    if isinstance(model, VQModel):
        z, terms = _quantised(model, model.encode(target).latents.float())
        x_hat = model.decode(z, force_not_quantize=True).sample
        regulariser = terms["codebook"] + commitment * terms["commitment"]
    else:
        q = DiagonalGaussianDistribution(model.encode(target).latent_dist.parameters.float())
        x_hat = model.decode(q.mean + q.std * noise_like(q.mean, generator)).sample
        terms = {"kl": q.kl().sum() / x.numel()}
        regulariser = kl_weight * terms["kl"]
    error = x_hat.float() - target
    reconstruction = error.abs().mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return {
        "loss": reconstruction + edge_weight * edges + regulariser,
        "reconstruction": reconstruction,
        "edges": edges,
        **terms,
    }


@torch.no_grad()
def scale_factor(model: Autoencoder, x: Tensor) -> float:
    """1 / the standard deviation of the latents of pictures x (B, 3, H, W): Rombach et al. 2022, appendix G.

    Raises:
        ValueError: as ``encode``, or latents that are all alike or not finite.
    """
    std = encode(model, x).double().std(correction=0).item()
    if not 0 < std < math.inf:
        raise ValueError(
            f"the latents' standard deviation is {std:g}: train the autoencoder, or measure on other pictures"
        )
    return 1 / std


@dataclass(frozen=True)
class CodebookUse:
    """How often each code was used.

    Attributes:
        counts: (codes,) whole numbers.
    """

    counts: Tensor

    @property
    def used(self) -> int:
        """The number of codes used at least once."""
        return int(self.counts.count_nonzero())

    @property
    def perplexity(self) -> float:
        """exp(-sum p ln p), in 1 .. codes: as many equally frequent codes would have the same entropy."""
        return torch.special.entr(self.counts.double() / self.counts.sum()).sum().exp().item()


@torch.no_grad()
def code_indexes(model: VQModel, latents: Tensor) -> Tensor:
    """The nearest code of each latent.

    Args:
        model: a VQ-reg autoencoder.
        latents: (B, 4, h, w).

    Returns:
        (B, h, w) whole numbers.

    Raises:
        ValueError: the model is KL-reg and has no codes.
    """
    if not isinstance(model, VQModel):
        raise ValueError(f"a {type(model).__name__} has no codebook; make one by vq_autoencoder")
    return model.quantize(latents)[2][2].view(len(latents), *latents.shape[2:])


def codebook_use(model: VQModel, x: Tensor) -> CodebookUse:
    """Count the codes that pictures x (B, 3, H, W) in [0, 1] are quantised to.

    Raises:
        ValueError: as ``encode`` and ``code_indexes``.
    """
    indexes = code_indexes(model, encode(model, x).detach())
    return CodebookUse(indexes.flatten().bincount(minlength=model.config.num_vq_embeddings))


def save_autoencoder(folder: str | Path, model: Autoencoder) -> None:
    """Write config.json and diffusion_pytorch_model.safetensors, the files of diffusers.

    Large tensors are stored in float16, which diffusers' ``from_pretrained`` turns back into float32.

    Args:
        folder: made if need be.
        model: the autoencoder, or another network of diffusers.

    Raises:
        OSError: the folder cannot be written; an older autoencoder there is intact.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(model.to_json_string())
    config.pop("_name_or_path", None)  # the path it was loaded from means nothing elsewhere
    text = json.dumps(config, indent=2) + "\n"
    write_all_atomic(
        {folder / SAFETENSORS_WEIGHTS_NAME: weights_to_bytes(model), folder / CONFIG_NAME: text.encode()}
    )


def load_autoencoder(folder: str | Path, *, device: torch.device | str = "cpu") -> Autoencoder:
    """Read an autoencoder in diffusers' layout, in eval mode; nothing is fetched.

    Args:
        folder: holds config.json, which names the class, and diffusion_pytorch_model.safetensors or a variant
            of it such as diffusion_pytorch_model.fp16.safetensors.
        device: where the autoencoder lives.

    Returns:
        A KL-reg or VQ-reg autoencoder.

    Raises:
        CheckpointError: a file is missing (the message names it), damaged or of another kind.
    """
    folder = Path(folder)
    variant = weights_variant(folder, DIFFUSERS_STEM)
    missing = [] if (folder / CONFIG_NAME).is_file() else [CONFIG_NAME]
    missing += [SAFETENSORS_WEIGHTS_NAME] if variant is None else []
    if missing:
        raise CheckpointError(
            f"no autoencoder at {folder}: {' and '.join(missing)} not found; make it by save_autoencoder"
        )
    try:
        kind = KINDS[json.loads((folder / CONFIG_NAME).read_bytes())["_class_name"]]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{folder / CONFIG_NAME} describes none of {', '.join(KINDS)}") from None
    try:
        model, report = kind.from_pretrained(
            folder,
            variant=variant or None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (AttributeError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise_if_of_the_machine(error)
        raise CheckpointError(f"the autoencoder at {folder} is damaged: {error}; fetch it again") from None
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]
    if wrong:
        raise CheckpointError(
            f"the weights at {folder} do not fit its {CONFIG_NAME}: {wrong[0]} and {len(wrong) - 1} more"
        )
    return model.to(device).eval()


def _layers(f: int, widths: Sequence[int] | None) -> dict:
    """The settings that diffusers' two classes share."""
    if f not in FACTORS:
        raise ValueError(f"f must be one of {', '.join(map(str, FACTORS))}, got {f!r}")
    n = FACTORS.index(f) + 2  # sizes: full, half .. 1/f
    widths = WIDTHS[:n] if widths is None else tuple(widths)
    if len(widths) != n or any(width < 1 or width % GROUPS for width in widths):
        raise ValueError(f"f = {f} needs {n} widths, multiples of {GROUPS}, got {widths}")
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * n,
        "norm_num_groups": GROUPS,
        "up_block_types": ("UpDecoderBlock2D",) * n,
        "mid_block_add_attention": False,
        "sample_size": 64,
    }


def _quantised(model: VQModel, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The nearest codes with a straight-through gradient to z, and the terms of eq. 3; in float32."""
    with torch.autocast(z.device.type, enabled=False):
        codes = model.quantize.embedding(code_indexes(model, z)).movedim(-1, 1)  # (B, 4, h, w)
    terms = {"codebook": F.mse_loss(codes, z.detach()), "commitment": F.mse_loss(z, codes.detach())}
    return z + (codes - z).detach(), terms


def _check_pictures(model: Autoencoder, x: Tensor) -> None:
    f = 2 ** (len(model.config.block_out_channels) - 1)
    if x.ndim != 4 or x.shape[1] != 3 or x.numel() == 0 or x.shape[2] % f or x.shape[3] % f:
        raise ValueError(f"pictures must be (B, 3, H, W), H and W multiples of {f}, got {tuple(x.shape)}")
    if not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"pictures must lie in [0, 1], got {x.min().item():g} .. {x.max().item():g}")
