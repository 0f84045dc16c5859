"""What realism.py and contact_sheet.py compare: one .dhp file decoded in every way, and the files of other
codecs that are no larger.

| decoder                        | the picture                                                              |
|--------------------------------|--------------------------------------------------------------------------|
| K = 0                          | of the dequantised latents                                               |
| K = 1                          | of their posterior mean                                                  |
| K = 1 + white noise            | that, and noise of the variance that the entropy model expects its error |
|                                | to have at each place: as much is added as could be missing, at random   |
| latent chain                   | of latents drawn by the latents' denoiser, as without a realism part     |
| realism                        | drawn near the pixels by the realism part                                |
| realism, errors spread evenly  | the same network, given at every place the mean over the picture of the  |
|                                | expected errors that z and the symbols predict: what is conditioned on   |
|                                | them is switched off at decoding. It was not trained so                  |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from dhp_lab.codec.bits.bitstream import read
from dhp_lab.codec.denoising.residual_unet import Conditions, pixel_scale
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.search import largest_within
from dhp_lab.core.tensors import crop_to
from dhp_lab.evaluation.classical import Codec
from dhp_lab.evaluation.codecs import find_codec

NOISE, CHAIN = "K = 1 + white noise", "latent chain"
REALISM, EVEN = "realism", "realism, errors spread evenly"
SETTINGS = {  # whole numbers, from the smallest file to the largest
    "jpeg": (1, 100),
    "webp": (0, 100),
    "avif": (0, 100),
    "avif420": (0, 100),
    "hevc": (51, 0),
    "vvc": (63, 0),
}


class Way(NamedTuple):
    """A way of decoding a file: the decoder, as in the module's table, and its K and gamma if it has them."""

    decoder: str
    steps: int | None = None
    gamma: float | None = None

    @property
    def name(self) -> str:
        """As in tables: "realism K = 4, gamma 0.5"."""
        if self.decoder not in (REALISM, EVEN, CHAIN):
            return self.decoder
        gamma = f", gamma {self.gamma:g}" if self.gamma else ""
        return f"{self.decoder}, K = {self.steps}{gamma}"


ZERO, ONE = Way("K = 0", 0), Way("K = 1", 1)


@torch.no_grad()
def decode_every_way(
    model: DiffusionHyperprior,
    data: bytes,
    *,
    steps: Sequence[int] = (4,),
    gammas: Sequence[float] = (0.0,),
    chain_steps: int = 4,
    seed: int = 0,
) -> Iterator[tuple[Way, Tensor]]:
    """Decode a file in every way: pictures (1, 3, H, W) in [0, 1] on the CPU.

    Args:
        steps, gammas: of the realism part, whose ways are left out where there is none. The last of the steps
            is also that of the one whose errors are spread evenly.
        chain_steps: of the latent chain. seed: of everything that is drawn.
    """
    file = read(data)
    state = decode_latents(model, file.strings, file.shape)

    def shown(picture: Tensor) -> Tensor:
        return crop_to(picture, file.shape).clamp(0, 1).float().cpu()

    def synthesised(steps: int) -> Tensor:
        y_hat = model.sampler.sample(state, steps=steps, seed=seed)
        return model.synthesise(y_hat, state.log2_delta, file.shape)

    yield ZERO, shown(synthesised(0))
    conditions = model.realism_conditions(state, model.sampler.sample(state, steps=1))
    yield ONE, shown(conditions.picture)
    yield Way(NOISE), shown(with_white_noise(conditions, seed))
    yield Way(CHAIN, chain_steps), shown(synthesised(chain_steps))
    if model.realism is None:
        return
    sampler = model.realism_sampler
    for k in steps:
        drawn = sampler.sample(conditions, steps=k, seed=seed)
        for gamma in gammas:
            yield Way(REALISM, k, gamma), shown(torch.lerp(drawn, conditions.picture, gamma))
    k = steps[-1]
    yield Way(EVEN, k), shown(sampler.sample(with_even_errors(conditions), steps=k, seed=seed))


def with_white_noise(conditions: Conditions, seed: int) -> Tensor:
    """The picture with independent noise whose deviation is the expected error of each place."""
    noise = torch.randn(conditions.picture.shape, generator=torch.Generator().manual_seed(seed))
    return conditions.picture + pixel_scale(conditions.errors) * noise.to(conditions.picture)


def with_even_errors(conditions: Conditions) -> Conditions:
    """The conditions with the root mean square over the picture in the place of each expected error."""
    even = conditions.errors.square().mean((2, 3), keepdim=True).sqrt()
    return replace(conditions, errors=even.expand_as(conditions.errors).contiguous())


class Rival(NamedTuple):
    """A file of another codec: how many bytes, and its picture (1, 3, H, W) in [0, 1]."""

    n_bytes: int
    picture: Tensor


def nearest_below(key: str, x: Tensor, n_bytes: int) -> Rival:
    """The largest file of a codec of at most ``n_bytes``; where none is so small, the smallest.

    Args:
        key: of SETTINGS. x: (1, 3, H, W) in [0, 1].

    Raises:
        CodecError: the codec's program failed.
    """
    codec: Codec = find_codec(key)
    least, most = SETTINGS[key]
    step = 1 if most > least else -1
    data = largest_within(lambda n: codec.encode(x, least + step * n), 0, abs(most - least), n_bytes)
    return Rival(len(data), codec.decode(data))
