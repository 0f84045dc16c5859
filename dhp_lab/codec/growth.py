"""A trained codec with more channels or other passes: what it has learnt is kept, new channels start silent.

The lapped transform's channels are in the order of their variance, so those of a smaller model are the first
of a larger one. A new channel has no weight in any network; its scale is predicted as that of the trained
channel whose frequency is nearest. A network of the context model starts from the old one whose pass is most
alike, as far as both see the same channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dhp_lab.codec.checkpoint import load_parts
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.context import ContextNetwork
from dhp_lab.codec.networks.lapped import lapped_filters
from dhp_lab.codec.networks.transforms import Analysis, CorrectedFilters

NEWEST = 2  # the revision of the networks that grown models have


@torch.no_grad()
def grown(model: DiffusionHyperprior, M: int, passes: int) -> DiffusionHyperprior:
    """A codec of the newest revision with M channels and other passes.

    Args:
        model: a native codec with at most M channels. M, passes: as in ``CodecConfig``.

    Raises:
        ValueError: a model with more channels or with borrowed transforms, or a value out of range.
    """
    if not isinstance(model.g_a, Analysis):
        raise ValueError("only a native codec can grow: this one's transforms are borrowed")
    if model.M > M:
        raise ValueError(f"a model of {model.M} channels cannot shrink to {M}")
    config = replace(model.config, M=M, passes=passes, revision=NEWEST)
    other = DiffusionHyperprior(config, load_parts(config))
    old, new = model.state_dict(), other.state_dict()
    same = {name: old[name] for name in new if name in old and old[name].shape == new[name].shape}
    skipped = ("gaussian_conditional.", "context.")
    other.load_state_dict(new | {k: v for k, v in same.items() if not k.startswith(skipped)})
    _copy_filters(model, other)
    _copy_channels(model, other)
    _copy_contexts(model, other)
    other.update(force=True)
    return other.to(model.log2_spread.device, memory_format=torch.channels_last).train(model.training)


def _copy_filters(model: DiffusionHyperprior, other: DiffusionHyperprior) -> None:
    for name in ("g_a", "g_s"):
        old, new = getattr(model, name).linear, getattr(other, name).linear
        if isinstance(old, CorrectedFilters):
            learnt = old.correction
        else:
            learnt = old.weight - lapped_filters(model.M)["weight"].to(old.weight.device)
        count = min(len(learnt), len(new.correction))
        new.correction[:count] = learnt[:count]


def _copy_channels(model: DiffusionHyperprior, other: DiffusionHyperprior) -> None:
    """Every layer with the channels of y as input or output."""
    m, M = model.M, other.M
    c, C = model.denoiser.corrected, other.denoiser.corrected
    outputs = {
        "g_a.exit": (1, m, M),
        "denoiser.near": (2, c, C),
        "denoiser.exit": (1, c, C),
        "denoiser.log_variance_head": (1, c, C),
    }
    inputs = {"g_s.entry": (1, m, M), "denoiser.mix": (6, c, C)}
    for name, (blocks, few, many) in outputs.items():
        old, new = model.get_submodule(name), other.get_submodule(name)
        for source, target in ((old.weight, new.weight), (old.bias, new.bias)):
            _copy_common(source, target, 0, blocks, (few, many), few)
    for name, (blocks, few, many) in inputs.items():
        old, new = model.get_submodule(name), other.get_submodule(name)
        new.weight.zero_()
        _copy_common(old.weight, new.weight, 1, blocks, (few, many), few)
        new.weight[:, blocks * many :] = old.weight[:, blocks * few :]
        new.bias.copy_(old.bias)
    old, new = model.h_a, other.h_a
    new.entry.weight.zero_()
    new.entry.weight[:, : old.apart] = old.entry.weight[:, : old.apart]
    new.entry.weight[:, -1] = old.entry.weight[:, -1]
    new.entry.bias.copy_(old.entry.bias)
    other.denoiser.posterior_weight[:m] = model.denoiser.posterior_weight
    alike = _most_alike(m, M)
    exit_, learnt = other.h_s.layers[-1], model.h_s.layers[-1]
    for old, new in ((learnt.weight, exit_.weight), (learnt.bias, exit_.bias)):
        new.zero_()
        _copy_common(old, new, 0, 2, (m, M), m)
        new[M + m :] = old[m:][alike]  # log2(scale) of the new channels
    drift = model.log2_spread - 0.5 * lapped_filters(m)["variance"].log2().to(model.log2_spread.device)
    other.log2_spread[:m] = model.log2_spread
    other.log2_spread[m:] += drift[alike]


def _most_alike(m: int, M: int) -> Tensor:
    """(M - m,): for each new channel the old one of the same colour axis whose frequency is nearest."""
    place = lapped_filters(M)["place"].float()
    place[:, 0] *= 1000  # another colour axis is far away
    return torch.cdist(place[m:], place[:m]).argmin(1)


def _copy_contexts(model: DiffusionHyperprior, other: DiffusionHyperprior) -> None:
    for number, new in enumerate(other.context.networks, 1):
        alike = [
            old
            for k, old in enumerate(model.context.networks, 1)
            if k % 2 == number % 2 and _common(old, new)
        ]
        if alike:
            _copy_context(max(alike, key=lambda old: len(_common(old, new))), new)


def _common(old: ContextNetwork, new: ContextNetwork) -> range:
    """The channels that both code."""
    return range(max(old.channels.start, new.channels.start), min(old.channels.stop, new.channels.stop))


def _copy_context(old: ContextNetwork, new: ContextNetwork) -> None:
    """What is common to both: inputs of channels that both see, outputs of channels that both code."""
    seen = min(old.decoded, new.decoded)
    starts = old.decoded, new.decoded
    for source, target in zip(old.near.parameters(), new.near.parameters(), strict=True):
        _copy_common(source, target, 0, 2, starts, seen)  # of r, of |r|
    new.mix.weight.zero_()
    _copy_common(old.mix.weight, new.mix.weight, 1, 4, starts, seen)  # r, |r| here and nearby
    scales = min(old.scales, new.scales)
    begin, old_begin = 4 * new.decoded, 4 * old.decoded
    new.mix.weight[:, begin : begin + scales] = old.mix.weight[:, old_begin : old_begin + scales]
    new.mix.weight[:, -1] = old.mix.weight[:, -1]  # log2(Delta)
    new.mix.bias.copy_(old.mix.bias)
    new.hidden.load_state_dict(old.hidden.state_dict())
    for name in ("exit", "own") if new.own is not None else ("exit",):
        layers = getattr(old, name), getattr(new, name)
        for source, target in zip(*(layer.parameters() for layer in layers), strict=True):
            _copy_coded(source, target, old.channels, new.channels)


def _copy_common(
    old: Tensor, new: Tensor, dim: int, blocks: int, lengths: tuple[int, int], count: int
) -> None:
    """The first ``count`` of each block along an axis, whose blocks have these lengths."""
    for block in range(blocks):
        source = old.narrow(dim, block * lengths[0], count)
        new.narrow(dim, block * lengths[1], count).copy_(source)


def _copy_coded(old: Tensor, new: Tensor, old_channels: slice, new_channels: slice) -> None:
    """The rows of shift and change, (2 C, ...), for the channels that both code."""
    first = max(old_channels.start, new_channels.start)
    last = min(old_channels.stop, new_channels.stop)
    for source, target in zip(old.chunk(2), new.chunk(2), strict=True):
        target[first - new_channels.start : last - new_channels.start] = source[
            first - old_channels.start : last - old_channels.start
        ]
