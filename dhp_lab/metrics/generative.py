"""How good, how various and how obedient are generated pictures? Figures for sets of them, and for pairs.

| question                                   | function                      | better | source                                |
|--------------------------------------------|-------------------------------|--------|---------------------------------------|
| Are they spread as real ones are?          | ``fid``                       | less   | Heusel et al. 2017, eq. 6             |
| The same, with no bias from their number   | ``kid``                       | less   | Bińkowski et al. 2018                 |
| Does each look like one thing, all differ? | ``inception_score``           | more   | Salimans et al. 2016, section 4       |
| Is each good; is each kind among them?     | ``improved_precision_recall`` | more   | Kynkäänniemi et al. 2019              |
| How unlike does a pair look?               | ``lpips``                     | less   | Zhang et al. 2018, eq. 1              |
| Does a picture show what its caption says? | ``clip_score``                | more   | Hessel et al. 2021, with w = 100      |

All of them look through a network. With ``features=None`` it is the one of published figures, its weights
fetched once (``dhp_lab.metrics.feature_networks``); otherwise any function of yours: figures of one network
compare with each other alone. For features at hand the first, second and fourth are ``frechet_distance``,
``kernel_distance`` and ``precision_recall`` of ``dhp_lab.metrics.feature_distances``.

LPIPS on AlexNet and KID's kernel are torchmetrics'. Its inception score is not a number where a class has no
probability at all, and its CLIP score (1.9) stops at what transformers 5 returns: these two are written out
here, and tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from dhp_lab.metrics import feature_networks as metric_networks
from dhp_lab.metrics.feature_distances import (
    frechet_distance,
    kernel_distance,
    precision_recall,
)

Features = Callable[[Tensor], Tensor]
"""Pictures (B, 3, H, W) in [0, 1] to features (B, D)."""

Layers = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""Pictures (B, 3, H, W) in [0, 1] to one layer of features, (B, D) or maps (B, D, h, w), or to several of them."""

Embed = Callable[[Tensor, Sequence[str]], tuple[Tensor, Tensor]]
"""Pictures (B, 3, H, W) in [0, 1] and B captions to two embeddings in one space, (B, D) and (B, D)."""

BATCH = 64  # pictures that a network sees at once


def fid(real: Tensor, fake: Tensor, features: Features | None = None) -> float:
    """Fréchet inception distance of two sets of pictures, see ``frechet_distance``; 0 for equal sets.

    Args:
        real, fake: (N, 3, H, W) and (M, 3, H, W) in [0, 1], N and M at least 2. Published figures have N, M
            >= 10 000.
        features: the network to look through; None is the Inception network's last but one layer.

    Raises:
        ValueError: pictures or features that do not fit.
        DownloadError: the usual network's weights cannot be had.
    """
    return frechet_distance(*_both(features, real, fake))


def kid(
    real: Tensor,
    fake: Tensor,
    features: Features | None = None,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Kernel inception distance of two sets of pictures, mean and deviation; see ``kernel_distance``. Else as
    ``fid``.
    """
    return kernel_distance(*_both(features, real, fake), subsets=subsets, subset_size=subset_size, seed=seed)


def improved_precision_recall(
    real: Tensor,
    fake: Tensor,
    features: Features | None = None,
    *,
    neighbours: int = 3,
) -> tuple[float, float]:
    """Precision and recall of two sets of pictures, see ``precision_recall``. Else as ``fid``.

    The paper looks through VGG-16; None is the Inception network here, as in Dhariwal & Nichol 2021, section
    2.2.
    """
    return precision_recall(*_both(features, real, fake), neighbours=neighbours)


def inception_score(
    pictures: Tensor,
    logits: Features | None = None,
    *,
    splits: int = 10,
    seed: int = 0,
) -> tuple[float, float]:
    """exp(H(mean p) - mean H(p)), with p a picture's classes: 1 at worst, at best the number of classes.

    Args:
        pictures: (N, 3, H, W) in [0, 1].
        logits: pictures to the classes' log-probabilities (B, K), up to a constant for each picture; None is
            the Inception network's 1008.
        splits: parts of equal size, drawn at random, each of which gives one score. With few pictures use
            one: a part cannot score more than it has pictures.
        seed: of the parts.

    Returns:
        The scores' mean and standard deviation over the parts; p log p counts as 0 where p is 0.

    Raises:
        ValueError: pictures that do not fit, or fewer than splits.
        DownloadError: the usual network's weights cannot be had.
    """
    if not 1 <= splits <= len(pictures):
        raise ValueError(f"splits must lie in 1 .. {len(pictures)}, the number of pictures, got {splits}")
    p = _see(logits or (lambda x: metric_networks.inception(x)[1]), pictures, "pictures").softmax(1)  # (N, K)
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(seed)).to(p.device)
    parts = p[order].tensor_split(splits)
    entropy = torch.special.entr
    scores = torch.stack(
        [(entropy(part.mean(0)).sum() - entropy(part).sum(1).mean()).exp() for part in parts]
    )
    return scores.mean().item(), scores.std(correction=0).item()


def lpips(a: Tensor, b: Tensor, features: Layers | None = None) -> Tensor:
    """How unlike the two pictures of each pair look: sum_lc w_lc (f_lc(a) - f_lc(b))^2, averaged over each
    layer's places.

    f are a network's features in layer l, divided by their length at each place. The usual network is AlexNet
    with five layers and the weights w of the paper; with one of yours all w are 1.

    Args:
        a, b: (B, 3, H, W) in [0, 1]; H and W at least 31 with the usual network.
        features: pictures to one layer, (B, D) or maps (B, D, h, w), or to a list of layers.

    Returns:
        (B,) distances, 0 for equal pictures.

    Raises:
        ValueError: pictures or layers that do not fit, or pictures that are too small.
        DownloadError: the usual network's weights cannot be had.
    """
    _check_pictures("a", a)
    _check_pictures("b", b)
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    pairs = zip(a.split(BATCH), b.split(BATCH), strict=True)
    if features is None:
        return torch.cat([metric_networks.alexnet_lpips(x, y) for x, y in pairs])
    with torch.no_grad():
        return torch.cat([_gap(_layers(features, x), _layers(features, y)) for x, y in pairs])


def clip_score(pictures: Tensor, captions: Sequence[str], embed: Embed | None = None) -> Tensor:
    """How well each caption fits its picture: 100 max(cos(E_picture, E_caption), 0), in [0, 100].

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        captions: B sentences.
        embed: the network that puts both into one space; None is CLIP ViT-L/14.

    Returns:
        (B,) scores.

    Raises:
        ValueError: pictures that do not fit, or another number of captions.
        DownloadError: the usual network's weights cannot be had.
    """
    _check_pictures("pictures", pictures)
    if isinstance(captions, str) or len(captions) != len(pictures):
        raise ValueError(
            f"a list of {len(pictures)} captions is needed, one for each picture, got {captions!r:.80}"
        )
    embed, step = embed or metric_networks.clip, range(0, len(pictures), BATCH)
    with torch.no_grad():
        pairs = [embed(pictures[i : i + BATCH], captions[i : i + BATCH]) for i in step]
    return torch.cat([100 * cosine_similarity(seen, read).clamp(min=0) for seen, read in pairs])


def _gap(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """(B,) how far two pictures' layers, each at each place of length 1, are apart."""
    gaps = [_unit(x) - _unit(y) for x, y in zip(a, b, strict=True)]
    return torch.stack([gap.square().sum(1).view(len(gap), -1).mean(1) for gap in gaps]).sum(
        0
    )  # (B, D[, h, w]) -> (B,)


def _unit(x: Tensor) -> Tensor:
    """Features (B, D) or (B, D, h, w), divided by their length at each place; it counts as 1e-4 at least, as
    in torchmetrics.
    """
    return x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _layers(network: Layers, pictures: Tensor) -> list[Tensor]:
    found = network(pictures)
    layers = [found] if isinstance(found, Tensor) else list(found)
    if not layers or any(layer.ndim not in (2, 4) or len(layer) != len(pictures) for layer in layers):
        raise ValueError(
            f"the network must turn (B, 3, H, W) into layers (B, D) or (B, D, h, w), got "
            f"{[tuple(layer.shape) for layer in layers]} for {len(pictures)} pictures"
        )
    return layers


def _both(features: Features | None, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    features = features or (lambda x: metric_networks.inception(x)[0])
    return _see(features, real, "real"), _see(features, fake, "fake")


def _see(network: Features, pictures: Tensor, name: str) -> Tensor:
    """(N, D) what a network makes of pictures, in float64."""
    _check_pictures(name, pictures)
    with torch.no_grad():
        found = [network(batch) for batch in pictures.split(BATCH)]
    if any(
        part.shape[:-1] != batch.shape[:1] for part, batch in zip(found, pictures.split(BATCH), strict=True)
    ):
        raise ValueError(
            f"the network must turn (B, 3, H, W) into (B, D), got {tuple(found[0].shape)} for {name}"
        )
    return torch.cat(found).double()


def _check_pictures(name: str, x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"{name} must be float pictures (B, 3, H, W), got {x.dtype} of shape {tuple(x.shape)}"
        )
    low, high = x.min().item(), x.max().item()
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"{name} must lie in [0, 1], got {low:g} .. {high:g}; clamp, or turn [-1, 1] into it by (x + 1) / 2"
        )
