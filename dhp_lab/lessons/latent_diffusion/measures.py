"""Lesson 05: what a latent diffusion model does inside: what its words look at, what its chain would cost in
bits, and small networks of ours through which its pictures are measured.

| function or class    | what it gives                                                                               |
|----------------------|---------------------------------------------------------------------------------------------|
| `recorded_attention` | while a block runs, what every cross-attention of a U-Net looks at                          |
| `word_maps`          | a map over the picture for each token                                                       |
| `progressive_code`   | bits received and error left on the chain's way down (Ho et al. 2020, section 4.3)          |
| `encoder_layers`     | what a first stage's encoder sees: the maps after each of its sizes                         |
| `encoder_features`   | the same as one vector for a picture: means and standard deviations of the last maps        |
| `single_things`      | pictures of one thing each, and their captions                                              |
| `CaptionedShapeClassifier`    | which of the 18 things it is, read from those vectors                                       |
| `WordReader`         | which words fit a picture: picture and caption in one space, as CLIP does it, but linearly  |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from dhp_lab.data.scenes import (
    COLOURS,
    KINDS,
    WORDS,
    Scene,
    Shape,
    CaptionedShape,
    batch,
    draw_all,
    parse,
)
from dhp_lab.data.scenes.drawing import SIDE
from dhp_lab.diffusion.bound import bound_weight
from dhp_lab.diffusion.process import noise_like, predict_eps, q_sample, x0_from_eps
from dhp_lab.latent.autoencoders import encode
from dhp_lab.latent.pipeline import LatentDiffusion

GREY_LEVELS = 255  # of a picture in files, 0 .. 255; here a picture is in [0, 1]
CHUNK = 64  # pictures that the encoder sees at once
THINGS = tuple(f"a {colour} {kind}" for colour in COLOURS for kind in KINDS)


class _Recorder:
    """A processor of diffusers' attention that computes it plainly and keeps the shares, averaged over the
    heads.
    """

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))  # (B heads, h w, d)
        key, value = (
            attn.head_to_batch_dim(layer(encoder_hidden_states)) for layer in (attn.to_k, attn.to_v)
        )
        shares = attn.get_attention_scores(query, key, attention_mask)  # (B heads, h w, L)
        self.maps.append(shares.detach().unflatten(0, (-1, attn.heads)).mean(1).float().cpu())
        found = attn.batch_to_head_dim(torch.bmm(shares, value))  # (B, h w, C)
        return attn.to_out[1](attn.to_out[0](found))


@contextmanager
def recorded_attention(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """While the block runs, each call of a cross-attention adds its map (B, h w, L) to the list; the answers
    stay the same.

    L counts the tokens. Each place's shares of them add up to 1; they are the mean over the heads, on the
    CPU.
    """
    maps, before = [], unet.attn_processors
    unet.set_attn_processor(
        {name: _Recorder(maps) if "attn2" in name else kept for name, kept in before.items()}
    )
    try:
        yield maps
    finally:
        unet.set_attn_processor(dict(before))


def word_maps(maps: Sequence[Tensor], count: int, *, side: int = SIDE) -> Tensor:
    """(count, L, side, side): how much each place looks at each token, the mean of all maps, enlarged to the
    picture's size.

    Args:
        maps: of ``recorded_attention``.
        count: how many items of each batch are meant, the first ones: guidance adds as many that ask for any
            picture.

    Raises:
        ValueError: no map, or one with fewer items.
    """
    if not maps or min(len(found) for found in maps) < count:
        raise ValueError(
            f"maps of at least {count} items are needed, got {[len(found) for found in maps][:3] or 'none'}"
        )
    total = torch.zeros(())
    for found in maps:
        high = math.isqrt(found.shape[1])
        grid = found[:count].transpose(1, 2).unflatten(2, (high, high))  # (count, L, h, w)
        total = total + F.interpolate(grid, size=(side, side), mode="bilinear")
    return total / len(maps)


@dataclass(frozen=True)
class ProgressiveCode:
    """The chain as a coder that sends a picture from coarse to fine.

    Attributes:
        times: (n,) falling from T to 1.
        bits: (n,) received until then, for one picture; estimates, no file is written.
        rmse: (n,) of the picture guessed from what was received, in grey levels 0 .. 255.
    """

    times: Tensor
    bits: Tensor
    rmse: Tensor


@torch.no_grad()
def progressive_code(
    model: LatentDiffusion,
    x: Tensor,
    captions: Sequence[str],
    *,
    count: int = 24,
    seed: int = 0,
) -> ProgressiveCode:
    """Bits and error on the way down the latents' chain: Ho et al. 2020, section 4.3, behind a first stage.

    To come from t to t - 1 costs the bound's KL. With E_t the mean squared error of the noise estimate and
    the best variance for it (``bound.elbo``), that is D/2 log2(1 + 2 w_t E_t) bits for D numbers. E_t is
    measured on these pictures at ``count`` times, evenly spaced in log(sigma), and read off between them.
    What x_T tells, next to nothing, is counted too.

    Args:
        x: (B, 3, H, W) pictures in [0, 1]. captions: B of them, or "".
        seed: of the noise.
    """
    schedule, contexts, generator = (
        model.schedule,
        model.context(captions),
        torch.Generator().manual_seed(seed),
    )
    z0 = encode(model.vae, x) * model.vae.config.scaling_factor  # (B, 4, h, w)
    ends = schedule.sigma(torch.tensor([1.0, schedule.steps])).log().tolist()
    times = schedule.time_of(torch.linspace(*ends, count, dtype=torch.float64).exp()).round().unique().flip(0)
    errors, rmse = [], []
    for t in times.tolist():
        eps = noise_like(z0, generator)
        z_t = q_sample(schedule, z0, t, eps)
        eps_hat = predict_eps(lambda z_t, t: model.eps(z_t, t, contexts), z_t, t)
        errors.append((eps - eps_hat).double().square().mean().item())
        wrong = model.pictures(x0_from_eps(schedule, z_t, t, eps_hat)) - x
        rmse.append(GREY_LEVELS * wrong.double().square().mean().sqrt().item())
    return ProgressiveCode(times, _bits(model, z0, times, torch.tensor(errors)), torch.tensor(rmse))


def _bits(model: LatentDiffusion, z0: Tensor, times: Tensor, errors: Tensor) -> Tensor:
    """(n,) bits of one picture until each of the times, falling from T to 1, from the errors (n,) there."""
    schedule, steps = model.schedule, torch.arange(2, model.schedule.steps + 1, dtype=torch.float64)
    known, asked = (schedule.sigma(t).log().numpy() for t in (times.flip(0), steps))
    between = torch.as_tensor(np.interp(asked, known, errors.flip(0).numpy()))  # (T - 1,)
    each = z0[0].numel() / 2 * torch.log2(1 + 2 * bound_weight(schedule, steps) * between)  # from t to t - 1
    left = schedule.alpha_bar(schedule.steps).item()
    prior = ((z0.double().square() - 1) * left - math.log1p(-left)).sum().item() / (2 * len(z0) * math.log(2))
    until = torch.cat(
        [each.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)]
    )  # sent until 1, 2 .. T
    return prior + until[times.long() - 1]


@torch.no_grad()
def encoder_layers(vae: AutoencoderKL, x: Tensor) -> list[Tensor]:
    """The maps (B, C, h, w) after each size of the encoder, large ones first, for pictures (B, 3, H, W) in
    [0, 1].
    """
    layers = [vae.encoder.conv_in(2 * x.to(vae.device) - 1)]
    for block in (*vae.encoder.down_blocks, vae.encoder.mid_block):
        layers.append(block(layers[-1]))
    return layers[1:]


def encoder_features(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """(B, 2 C) on the CPU: mean and standard deviation over the places of each of the encoder's last maps."""
    last = torch.cat(
        [encoder_layers(vae, part)[-1].flatten(2).cpu() for part in x.split(CHUNK)]
    )  # (B, C, h w)
    return torch.cat([last.mean(2), last.std(2)], dim=1)


def single_things(count: int, seed: int = 0) -> tuple[Tensor, list[str]]:
    """(count, 3, 64, 64) in [0, 1], one thing each, and "a red circle" and so on: each of ``THINGS`` in turn."""
    dice = torch.Generator().manual_seed(seed)
    scenes, captions = [], [THINGS[i % len(THINGS)] for i in range(count)]
    for caption in captions:
        _, colour, kind = caption.split()
        x, y, radius, ground = torch.rand(4, generator=dice).tolist()
        shape = Shape(CaptionedShape(colour, kind), 17 + 30 * x, 17 + 30 * y, 5.5 + 4 * radius)
        scenes.append(Scene((shape,), background=int(5 * ground)))
    return draw_all(scenes), captions


class ThingClassifier:
    """Which of ``THINGS`` a picture shows: logistic regression on ``encoder_features``, fitted on drawn
    pictures.

    Args:
        vae: whose encoder looks. count: pictures to learn from. seed: of these.
    """

    def __init__(self, vae: AutoencoderKL, *, count: int = 1800, seed: int = 1000) -> None:
        pictures, captions = single_things(count, seed)
        features = encoder_features(vae, pictures).double()
        self.vae, self.mean, self.std = vae, features.mean(0), features.std(0) + 1e-6
        labels = [THINGS.index(caption) for caption in captions]
        self.model = LogisticRegression(C=1.0, max_iter=2000).fit(self._scaled(features), labels)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 18) log-probabilities, up to a constant, for pictures (B, 3, 64, 64) in [0, 1]."""
        return torch.as_tensor(
            self.model.decision_function(self._scaled(encoder_features(self.vae, x).double()))
        )

    def _scaled(self, features: Tensor) -> np.ndarray:
        return ((features - self.mean) / self.std).numpy()


class WordReader:
    """Pictures and captions as vectors over the grammar's words: for a caption the words in it, for a picture
    a guess of them.

    The guess is linear in ``encoder_features``, by least squares with a small penalty, fitted on captioned
    scenes.

    Args:
        vae: whose encoder looks. count: scenes to learn from. seed: of these. penalty: above 0, in shares of
            the features' power.
    """

    def __init__(
        self, vae: AutoencoderKL, *, count: int = 1500, seed: int = 2000, penalty: float = 1e-3
    ) -> None:
        pictures, captions = batch(count, seed)
        features = encoder_features(vae, pictures).double()
        words = torch.stack([self.words(caption) for caption in captions])
        self.vae, self.features, self.usual = vae, features.mean(0), words.mean(0)
        a, b = features - self.features, words - self.usual
        power = a.T @ a
        self.weights = torch.linalg.solve(
            power + penalty * power.diagonal().mean() * torch.eye(len(power)), a.T @ b
        )

    @staticmethod
    def words(caption: str) -> Tensor:
        """(18,) how often each of ``WORDS`` stands in a caption. Raises ValueError for one outside the
        grammar.
        """
        parse(caption)
        return torch.tensor([caption.lower().split().count(word) for word in WORDS], dtype=torch.float64)

    def __call__(self, x: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, 18) for pictures (B, 3, 64, 64) in [0, 1] and (B, 18) for captions, both beside what is usual."""
        guessed = (encoder_features(self.vae, x).double() - self.features) @ self.weights
        return guessed, torch.stack([self.words(caption) for caption in captions]) - self.usual
