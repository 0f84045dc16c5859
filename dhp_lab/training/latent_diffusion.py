"""Training of the small latent diffusion models on captioned scenes: the second stage, with the first one
frozen.

    once:    scenes and their captions;  z = scaling_factor * encode(scene)
    repeat:  a batch of z, captions, some of them dropped, times t, noise eps;
             a gradient step on |v - v_theta(z_t, t, text_encoder(caption))|^2;  EMA of the weights

Rombach et al. 2022, eq. 3, with the dropped captions of Ho & Salimans 2022. The text encoder is trained with
the U-Net. Where shapes lie is decided at high noise. An error of eps weighs little there, an error of v
(Salimans & Ho 2022, section 4) more: so the U-Net predicts v.

A run is a function of its configuration: the same on the same machine, whatever the state of torch's global
generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from dhp_lab.core.precision import autocast
from dhp_lab.core.seeding import temporary_seed
from dhp_lab.data.scenes import MAX_WORDS, WORDS, batch, parse
from dhp_lab.data.scenes.drawing import SIDE
from dhp_lab.diffusion.guidance import drop_labels
from dhp_lab.diffusion.process import draw_times, noise_like, v_weight, weighted_loss
from dhp_lab.diffusion.schedules import linear
from dhp_lab.latent.autoencoders import encode
from dhp_lab.latent.folder import V_PREDICTION
from dhp_lab.latent.pipeline import EMPTY, LatentDiffusion
from dhp_lab.training.optimisation import EMA, optimizer_step

START, END, PAD = "<start>", "<end>", "<pad>"


@dataclass(frozen=True)
class LatentConfig:
    """Everything that a run of the second stage depends on, except the first stage.

    Attributes:
        widths: the U-Net's channels at the latents' size, half of it, ...; multiples of 16.
        attention: for each of these sizes, whether it has self-attention and cross-attention to the caption.
        layers: residual blocks of a down stage, at least 1; an up stage has one more.
        text_width: D, the text encoder's channels, a multiple of 4. text_layers: at least 1.
        diffusion_steps: T. scenes: how many are drawn for training. training_steps, batch_size: at least 1.
        lr: AdamW's peak learning rate, in (0, 1). null_probability: share of captions dropped, in [0, 1].
        heaviest: the largest weight of an error of the noise, at least 1. An error of v weighs 1 + sigma^2
            times as much; without a limit the noisiest times, where there is little to learn, would outweigh
            all others.
        average: the EMA's decay, in [0, 1), see ``optimisation.EMA``. seed: of all that is random.

    Raises:
        ValueError: a value outside its range.
    """

    widths: tuple[int, ...] = (64, 128)
    attention: tuple[bool, ...] = (False, True)
    layers: int = 1
    text_width: int = 64
    text_layers: int = 2
    diffusion_steps: int = 1000
    scenes: int = 32768
    training_steps: int = 4000
    batch_size: int = 64
    lr: float = 1e-3
    null_probability: float = 0.1
    heaviest: float = 1e6
    average: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        fitting = bool(self.widths) and all(width >= 16 and width % 16 == 0 for width in self.widths)
        if not fitting or len(self.attention) != len(self.widths):
            raise ValueError(
                "widths must be multiples of 16 with an attention for each, "
                f"got {self.widths} and {self.attention}"
            )
        if self.text_width < 4 or self.text_width % 4:
            raise ValueError(f"text_width must be a multiple of 4, got {self.text_width}")
        for name in ("layers", "text_layers", "diffusion_steps", "scenes", "training_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.lr < 1 or not 0 <= self.null_probability <= 1 or not 0 <= self.average < 1:
            raise ValueError(
                "lr must lie in (0, 1), null_probability in [0, 1] and average in [0, 1), "
                f"got {self.lr:g}, {self.null_probability:g} and {self.average:g}"
            )
        if not self.heaviest >= 1:
            raise ValueError(f"heaviest must be at least 1, got {self.heaviest:g}")


def word_tokenizer(words: Sequence[str] = WORDS, length: int = MAX_WORDS) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word, between start and end, padded to ``length`` + 2 tokens."""
    vocabulary = {word: i for i, word in enumerate((PAD, START, END, *words))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        model_max_length=length + 2,
    )


def new_latent_diffusion(config: LatentConfig, vae: AutoencoderKL) -> LatentDiffusion:
    """A pipeline with a trained first stage and an untrained second one.

    The weights are drawn from torch's global generator: see ``core.seeding.temporary_seed``.
    """
    tokenizer = word_tokenizer()
    text_encoder = _new_text_encoder(config, tokenizer)
    unet = _new_unet(config, vae)
    schedule = linear(config.diffusion_steps)
    return LatentDiffusion(vae, unet, text_encoder, tokenizer, schedule, parse, V_PREDICTION)


def _new_text_encoder(config: LatentConfig, tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            projection_dim=config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _new_unet(config: LatentConfig, vae: AutoencoderKL) -> UNet2DConditionModel:
    f = 2 ** (len(vae.config.block_out_channels) - 1)
    kinds = ["CrossAttn" if on else "" for on in config.attention]
    unet = UNet2DConditionModel(
        sample_size=SIDE // f,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        layers_per_block=config.layers,
        block_out_channels=config.widths,
        norm_num_groups=16,
        attention_head_dim=4,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        cross_attention_dim=config.text_width,
    )
    unet.set_attn_processor(AttnProcessor())  # on a CPU faster to train than the fused one; the same result
    return unet


@torch.no_grad()
def scaled_latents(
    vae: AutoencoderKL, count: int, *, seed: int = 0, chunk: int = 256
) -> tuple[Tensor, list[str]]:
    """Latents of drawn scenes and their captions, as the second stage is trained on them.

    Args:
        vae: a trained first stage, its scaling factor measured.
        count: of scenes.
        seed: of the first ``chunk`` of them; each further chunk has that number plus its first index.
        chunk: scenes encoded at once.

    Returns:
        (count, 4, h, w) latents times the scaling factor, about unit variance, and as many captions.
    """
    latents, captions = [], []
    for first in range(0, count, chunk):
        pictures, words = batch(min(chunk, count - first), seed + first)
        with autocast(vae.device):
            latents.append(encode(vae, pictures.to(vae.device)).float() * vae.config.scaling_factor)
        captions += words
    return torch.cat(latents), captions


def train_latent_diffusion(
    config: LatentConfig,
    vae: AutoencoderKL,
    *,
    start: LatentDiffusion | None = None,
    data: tuple[Tensor, list[str]] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> LatentDiffusion:
    """Train the second stage on scenes and return the pipeline with the EMA of its weights, in eval mode.

    Args:
        config: everything that the run depends on, except the first stage.
        vae: a trained first stage, its scaling factor measured.
        start: a pipeline of the same shape whose U-Net and text encoder to go on from; it stays as it is.
            None: new ones.
        data: latents and captions of ``scaled_latents``. None: those of ``config``.
        progress: ``progress(step, loss)``, called after each step, the first of them 1.

    Raises:
        ValueError: a loss that is not finite.
    """
    with temporary_seed(config.seed):  # first weights
        model = new_latent_diffusion(config, vae).to(vae.device)
    if start is not None:
        model.unet.load_state_dict(start.unet.state_dict())
        model.text_encoder.load_state_dict(start.text_encoder.state_dict())
    z, captions = data or scaled_latents(vae, config.scenes, seed=config.seed)
    tokens = model.tokens([*captions, EMPTY])  # (N + 1, L), the last is the empty caption
    network = nn.ModuleList([model.unet, model.text_encoder]).train()
    ema = EMA(network, config.average)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(1, config.training_steps + 1):
        loss = _loss(config, model, z, tokens, generator)
        optimizer_step(loss, network, optimizer, lr=config.lr, step=step, steps=config.training_steps)
        ema.update(network)
        if progress is not None:
            progress(step, loss.item())
    unet, text_encoder = ema.average
    return replace(model, unet=unet, text_encoder=text_encoder)


def _loss(
    config: LatentConfig, model: LatentDiffusion, z: Tensor, tokens: Tensor, generator: torch.Generator
) -> Tensor:
    """|v - v_theta|^2 of one batch of scaled latents, drawn from z (N, 4, h, w) with tokens (N + 1, L)."""
    chosen = torch.randint(len(z), (config.batch_size,), generator=generator)
    captions = drop_labels(chosen, len(z), probability=config.null_probability, generator=generator)
    context = model.text_encoder(tokens[captions]).last_hidden_state  # (B, L, D)
    z0 = z[chosen].contiguous(memory_format=torch.channels_last)
    t = draw_times(model.schedule, z0, generator)
    eps = noise_like(z0, generator)
    return weighted_loss(
        lambda z_t, t: model.eps(z_t, t, context),
        model.schedule,
        z0,
        t,
        eps,
        weight=lambda schedule, t: v_weight(schedule, t).clamp(max=config.heaviest),
    )
