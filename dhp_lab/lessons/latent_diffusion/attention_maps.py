"""What a U-Net's cross-attention looks at: the weights of each word, as maps over the picture.

Within ``recorded_attention`` diffusers' processors are replaced by one that gives softmax(q k^T / sqrt(d)) v
(Vaswani et al. 2017, eq. 1) plainly and keeps the softmax.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from dhp_lab.data.scenes.drawing import SIDE


class _RecordingProcessor:
    """A processor of diffusers' attention that keeps the attention weights, averaged over the heads."""

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
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))  # (B heads, L, d)
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        weights = attn.get_attention_scores(query, key, attention_mask)  # (B heads, h w, L)
        self.maps.append(weights.detach().unflatten(0, (-1, attn.heads)).mean(1).float().cpu())
        attended = attn.batch_to_head_dim(torch.bmm(weights, value))  # (B, h w, C)
        return attn.to_out[1](attn.to_out[0](attended))


@contextmanager
def recorded_attention(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """Within the context, each evaluation of a cross-attention adds its map to the list; results stay the
    same.

    Yields:
        The list. A map is (B, h w, L) on the CPU, the mean over the heads: L counts the tokens, and each
        place's weights add up to 1.
    """
    maps, before = [], unet.attn_processors
    recording = {
        name: _RecordingProcessor(maps) if "attn2" in name else processor
        for name, processor in before.items()
    }
    unet.set_attn_processor(recording)
    try:
        yield maps
    finally:
        unet.set_attn_processor(dict(before))


def word_maps(maps: Sequence[Tensor], count: int, *, side: int = SIDE) -> Tensor:
    """The attention weights of each token as pictures: the mean of all maps, enlarged to the picture's size.

    Args:
        maps: of ``recorded_attention``.
        count: how many items of each batch are meant, the first ones: guidance adds as many without a
            caption.
        side: of the picture in pixels.

    Returns:
        (count, L, side, side).

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
