r"""The U-Net: a network that estimates the noise in x_t.

    t --> sines --> two layers --+--> embedding --> scale and shift inside every residual block
    label --> one vector each ---+
                                            context (tokens) --> cross-attention after each self-attention
    x_t --> entry --> level 0 ---------------- skip ----------------> level 0 --> exit --> eps      H x W
                        \--> level 1 --------- skip --------> level 1 --/                           H/2 x W/2
                               \--> ... --> middle --> ... --/

The U-Net is that of Ho et al. 2020 (section 4 and appendix B), in which the embedding scales and shifts as in
Nichol & Dhariwal 2021, and cross-attention is that of Rombach et al. 2022 (section 3.3). The exit, the second
convolution of each block and the last layer of each attention have zero initialisation: a new network's
output is eps = 0. With ``patch = 2`` the entry sees each 2 x 2 pixels as four channels of half the sides
(pixel unshuffle, Shi et al. 2016, run backwards), and the exit undoes it: a quarter of the multiplications.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from torch.utils.checkpoint import checkpoint

GROUPS = 8  # of each group normalisation; all widths are multiples of it
LEAST = {"in_channels": 1, "blocks": 1, "classes": 0, "context_dim": 0, "patch": 1}  # values of a shape


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net.

    Attributes:
        in_channels: of the pictures, 1 or more.
        channels: width of each level, multiples of 8; level 0 has the full resolution, each further one half
            the sides of the one before.
        blocks: residual blocks on each level, on the way down and again on the way up.
        attention_levels: the levels with attention; the middle has it always.
        heads: of attention; divides the widths of the levels that have it.
        classes: number of classes, 0 for none. ``label = classes`` is the null label, "any".
        context_dim: width of the context's tokens for cross-attention, 0 for none.
        dropout: share of activations dropped in training, in [0, 1).
        patch: sides of the squares of pixels that level 0 has for places, 1 or more.

    Raises:
        ValueError: a value outside its range.
    """

    in_channels: int = 1
    channels: tuple[int, ...] = (32, 64)
    blocks: int = 1
    attention_levels: tuple[int, ...] = (1,)
    heads: int = 4
    classes: int = 0
    context_dim: int = 0
    dropout: float = 0.0
    patch: int = 1

    def __post_init__(self) -> None:
        levels = range(len(self.channels))
        if not levels or any(width < 1 or width % GROUPS for width in self.channels):
            raise ValueError(
                f"channels must be multiples of {GROUPS}, one for each level, got {self.channels}"
            )
        if not set(self.attention_levels) <= set(levels):
            raise ValueError(f"attention_levels must lie in 0 .. {levels[-1]}, got {self.attention_levels}")
        with_attention = {self.channels[level] for level in (*self.attention_levels, -1)}
        if self.heads < 1 or any(width % self.heads for width in with_attention):
            raise ValueError(
                f"heads must divide the widths {sorted(with_attention)} that have attention, got {self.heads}"
            )
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout:g}")


class UNet(nn.Module):
    """eps = network(x_t, t): the noise estimate; the diagram is in the module's docstring.

    Args:
        config: its shape.
        checkpointing: gradient checkpointing, which stores only the blocks' inputs and computes the rest
            again: less memory, a third slower.
    """

    def __init__(self, config: UNetConfig, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = checkpointing
        widths = config.channels
        size = 4 * widths[0]  # of the embedding
        self.time = nn.Sequential(nn.Linear(widths[0], size), nn.SiLU(), nn.Linear(size, size))
        self.label = nn.Embedding(config.classes + 1, size) if config.classes else None
        pixels = config.in_channels * config.patch**2  # channels of one place
        self.entry = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down, self.smaller = nn.ModuleList(), nn.ModuleList()
        self.up, self.larger = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            attends = level in config.attention_levels
            above = widths[max(level - 1, 0)]
            self.smaller.append(nn.Conv2d(above, width, 3, stride=2, padding=1) if level else nn.Identity())
            self.down.append(
                nn.ModuleList(Block(width, width, config, attends) for _ in range(config.blocks))
            )
            self.up.append(
                nn.ModuleList(Block(2 * width, width, config, attends) for _ in range(config.blocks))
            )
            larger = nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(width, above, 3, padding=1))
            self.larger.append(larger if level else nn.Identity())
        self.middle = Block(widths[-1], widths[-1], config, attends=True)
        last = zero_init(nn.Conv2d(widths[0], pixels, 3, padding=1))
        self.exit = nn.Sequential(nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), last)

    @property
    def null(self) -> int:
        """The null label, which stands for "any class"."""
        return self.config.classes

    def forward(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Estimate the noise.

        Args:
            x: (B, in_channels, H, W) the state; H and W are multiples of patch 2 ** (levels - 1).
            t: (B,) times.
            label: (B,) whole numbers, 0 .. classes, the last one "any"; None is "any" for all. Only if there
                are classes.
            context: (B, L, context_dim) tokens; needed exactly if context_dim is not 0.

        Returns:
            (B, in_channels, H, W).

        Raises:
            ValueError: a shape or label that does not fit.
        """
        self._check(x, t, context)
        embedding = self._embedding(t, label)  # (B, 4 * channels[0])
        h = self.entry(pixel_unshuffle(x, self.config.patch))  # (B, channels[0], H/patch, W/patch)
        skips = []
        for smaller, blocks in zip(self.smaller, self.down, strict=True):
            h = smaller(h)  # (B, C, H, W) -> (B, C', H/2, W/2)
            for block in blocks:
                h = self._run(block, h, embedding, context)
                skips.append(h)
        h = self._run(self.middle, h, embedding, context)
        for larger, blocks in zip(reversed(self.larger), reversed(self.up), strict=True):
            for block in blocks:
                h = self._run(block, torch.cat([h, skips.pop()], 1), embedding, context)
            h = larger(h)  # (B, C', H/2, W/2) -> (B, C, H, W)
        return pixel_shuffle(self.exit(h), self.config.patch)

    def _run(self, block: Block, h: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, h, embedding, context, use_reentrant=False)
        return block(h, embedding, context)

    def _embedding(self, t: Tensor, label: Tensor | None) -> Tensor:
        sines = time_embedding(t, self.config.channels[0])
        embedding = self.time(sines.to(self.time[0].weight.dtype))
        if self.label is None:
            if label is not None:
                raise ValueError("label is given, but this network has no classes")
            return embedding
        if label is None:
            label = torch.full(t.shape, self.null, device=t.device)
        outside = bool(((label < 0) | (label > self.null)).any())
        if label.shape != t.shape or label.is_floating_point() or outside:
            wanted = f"{len(t)} whole numbers in 0 .. {self.null}, the last for any class"
            raise ValueError(f"label must hold {wanted}; got {label.tolist()}")
        return embedding + self.label(label)

    def _check(self, x: Tensor, t: Tensor, context: Tensor | None) -> None:
        multiple = self.config.patch * 2 ** (len(self.config.channels) - 1)
        channels = self.config.in_channels
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % multiple or x.shape[3] % multiple:
            raise ValueError(
                f"x must be (B, {channels}, H, W) with sides that are multiples of {multiple}, "
                f"got {tuple(x.shape)}"
            )
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have the shape ({len(x)},), got {tuple(t.shape)}")
        width = self.config.context_dim
        found = None if context is None else (context.ndim, context.shape[0], context.shape[-1])
        if found != ((3, len(x), width) if width else None):
            wanted = f"({len(x)}, L, {width})" if width else "None"
            raise ValueError(
                f"context must be {wanted}, got {None if context is None else tuple(context.shape)}"
            )


class Block(nn.Module):
    """A residual block; where it attends, self-attention and (given a context) cross-attention after it."""

    def __init__(self, into: int, out: int, config: UNetConfig, attends: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.GroupNorm(GROUPS, into), nn.SiLU(), nn.Conv2d(into, out, 3, padding=1))
        self.scale_shift = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.channels[0], 2 * out))
        self.norm = nn.GroupNorm(GROUPS, out)
        self.leave = nn.Sequential(
            nn.SiLU(), nn.Dropout(config.dropout), zero_init(nn.Conv2d(out, out, 3, padding=1))
        )
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()
        self.self_attention = Attention(out, config.heads) if attends else None
        self.cross_attention = (
            Attention(out, config.heads, config.context_dim) if attends and config.context_dim else None
        )

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        """x (B, into, H, W), embedding (B, E), context (B, L, context_dim) or None -> (B, out, H, W)."""
        scale, shift = self.scale_shift(embedding)[..., None, None].chunk(2, 1)  # (B, out, 1, 1) each
        h = self.skip(x) + self.leave(self.norm(self.enter(x)) * (1 + scale) + shift)
        h = self.self_attention(h) if self.self_attention else h
        return self.cross_attention(h, context) if self.cross_attention else h


class Attention(nn.Module):
    """Multi-head attention to all places, or to a context: softmax(q k^T / sqrt(d)) v.

    Vaswani et al. 2017, eq. 1, with the places of a picture as tokens.
    """

    def __init__(self, channels: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(context_dim or channels, 2 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), context (B, L, context_dim) or None for x itself -> (B, C, H, W)."""
        tokens = self.norm(x).flatten(2).mT  # (B, HW, C)
        source = tokens if context is None else context  # (B, L, ...)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, HW or L, d)
            for part in (self.q(tokens), *self.kv(source).chunk(2, -1))
        )
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)  # (B, heads, HW, L)
        mixed = (weights @ v).transpose(1, 2).flatten(2)  # (B, HW, C)
        return x + self.out(mixed).mT.unflatten(2, x.shape[2:])


def time_embedding(t: Tensor, size: int) -> Tensor:
    """Sines, then cosines, of t at frequencies from 1 to nearly 1/10000 (Vaswani et al. 2017, section 3.5).

    Args:
        t: (B,) times.
        size: even.

    Returns:
        (B, size).
    """
    half = size // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, device=t.device))
    angles = t.float()[:, None] * frequencies  # (B, size / 2)
    return torch.cat([angles.sin(), angles.cos()], 1)


def zero_init(layer: nn.Module) -> nn.Module:
    """Zero initialisation: the layer with all its parameters set to 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
