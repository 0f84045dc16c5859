"""Quality, diversity and caption accuracy of generated pictures: figures for sets of them, and for pairs.

| question                           | function                      | better | source                      |
|------------------------------------|-------------------------------|--------|-----------------------------|
| Are they distributed as real ones? | ``fid``                       | less   | Heusel et al. 2017, eq. 6   |
| The same, unbiased by their number | ``kid``                       | less   | Bińkowski et al. 2018       |
| Is each one class, do all differ?  | ``inception_score``           | more   | Salimans et al. 2016        |
| Is each good, is each kind there?  | ``improved_precision_recall`` | more   | Kynkäänniemi et al. 2019    |
| How unlike does a pair look?       | ``lpips``                     | less   | Zhang et al. 2018, eq. 1    |
| Does a picture match its caption?  | ``clip_score``                | more   | Hessel et al. 2021, w = 100 |

All of them are learned perceptual metrics. With ``features=None`` the network is that of published figures,
its weights fetched once (``dhp_lab.metrics.feature_networks``); otherwise it is any function of yours.
Figures of different networks cannot be compared. On features, the first, second and fourth are
``frechet_distance``, ``kernel_distance`` and ``precision_recall`` of ``dhp_lab.metrics.feature_distances``.

LPIPS on AlexNet and KID's kernel are torchmetrics'. Its inception score is not a number where a class has no
probability at all, and its CLIP score (1.9) stops at what transformers 5 returns: these two are written out
here, and tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from dhp_lab.metrics import feature_networks
from dhp_lab.metrics.feature_distances import (
    frechet_distance,
    kernel_distance,
    precision_recall,
)

Features = Callable[[Tensor], Tensor]
"""Pictures (B, 3, H, W) in [0, 1] to features (B, D)."""

Layers = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""Pictures (B, 3, H, W) in [0, 1] to one or several layers of features, (B, D) or maps (B, D, h, w)."""

Embed = Callable[[Tensor, Sequence[str]], tuple[Tensor, Tensor]]
"""Pictures (B, 3, H, W) in [0, 1] and B captions to two embeddings in one space, (B, D) and (B, D)."""

BATCH = 64  # pictures that a network is evaluated on at once


def fid(real: Tensor, fake: Tensor, features: Features | None = None) -> float:
    """Fréchet inception distance of two sets of pictures, see ``frechet_distance``; 0 for equal sets.

    Args:
        real, fake: (N, 3, H, W) and (M, 3, H, W) in [0, 1], N and M at least 2. Published figures have N, M
            >= 10 000.
        features: the network; None is the Inception network's last but one layer.

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
    """Kernel inception distance of two sets of pictures (Bińkowski et al. 2018).

    Pictures, features and errors as for ``fid``; the other arguments and the result, mean and standard
    deviation, as for ``kernel_distance``.
    """
    real_features, fake_features = _both(features, real, fake)
    return kernel_distance(real_features, fake_features, subsets=subsets, subset_size=subset_size, seed=seed)


def improved_precision_recall(
    real: Tensor,
    fake: Tensor,
    features: Features | None = None,
    *,
    neighbours: int = 3,
) -> tuple[float, float]:
    """Improved precision and recall of two sets of pictures (Kynkäänniemi et al. 2019).

    Pictures, features and errors as for ``fid``; ``neighbours`` and the result as for ``precision_recall``.
    The paper's network is VGG-16; None is the Inception network here, as in Dhariwal & Nichol 2021, section
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
    """exp(H(mean p) - mean H(p)), with p the class probabilities of a picture (Salimans et al. 2016).

    Args:
        pictures: (N, 3, H, W) in [0, 1].
        logits: pictures to the classes' log-probabilities (B, K), up to a constant for each picture; None is
            the Inception network's 1008.
        splits: number of random parts of equal size, each of which gives one score. With few pictures use
            one: the score of a part is at most the number of its pictures.
        seed: of the parts.

    Returns:
        Mean and standard deviation of the scores over the parts, each between 1 and the number of classes;
        p log p counts as 0 where p is 0.

    Raises:
        ValueError: pictures that do not fit, or fewer than splits.
        DownloadError: the usual network's weights cannot be had.
    """
    if not 1 <= splits <= len(pictures):
        raise ValueError(f"splits must lie in 1 .. {len(pictures)}, the number of pictures, got {splits}")
    p = _evaluate(logits or _inception_logits, pictures, "pictures").softmax(1)  # (N, K)
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(seed)).to(p.device)
    scores = torch.stack([_split_score(part) for part in p[order].tensor_split(splits)])
    return scores.mean().item(), scores.std(correction=0).item()


def _split_score(p: Tensor) -> Tensor:
    """The inception score () of class probabilities (N, K)."""
    entropy_of_mean = torch.special.entr(p.mean(0)).sum()
    mean_entropy = torch.special.entr(p).sum(1).mean()
    return (entropy_of_mean - mean_entropy).exp()


def lpips(a: Tensor, b: Tensor, features: Layers | None = None) -> Tensor:
    """Learned perceptual distance: sum_lc w_lc (f_lc(a) - f_lc(b))^2, averaged over each layer's places.

    Zhang et al. 2018, eq. 1. f are a network's features in layer l, normalised to unit length at each place.
    The usual network is AlexNet with five layers and the weights w of the paper; with one of yours all w are
    1.

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
        return torch.cat([feature_networks.alexnet_lpips(x, y) for x, y in pairs])
    with torch.no_grad():
        return torch.cat([_layer_distance(_layers(features, x), _layers(features, y)) for x, y in pairs])


def clip_score(pictures: Tensor, captions: Sequence[str], embed: Embed | None = None) -> Tensor:
    """How well each caption fits its picture: 100 max(cos(E_picture, E_caption), 0) (Hessel et al. 2021).

    The weight of 100 is that of torchmetrics; the paper's is 2.5.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        captions: B sentences.
        embed: the network that embeds both in one space; None is CLIP ViT-L/14.

    Returns:
        (B,) scores in [0, 100].

    Raises:
        ValueError: pictures that do not fit, or another number of captions.
        DownloadError: the usual network's weights cannot be had.
    """
    _check_pictures("pictures", pictures)
    if isinstance(captions, str) or len(captions) != len(pictures):
        raise ValueError(
            f"a list of {len(pictures)} captions is needed, one for each picture, got {captions!r:.80}"
        )
    embed = embed or feature_networks.clip
    scores = []
    with torch.no_grad():
        for i in range(0, len(pictures), BATCH):
            picture, caption = embed(pictures[i : i + BATCH], captions[i : i + BATCH])
            scores.append(100 * cosine_similarity(picture, caption).clamp(min=0))
    return torch.cat(scores)


def _layer_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """(B,) squared distance of normalised layers, averaged over places and summed over layers."""
    distances = []
    for x, y in zip(a, b, strict=True):
        squared = (_normalised(x) - _normalised(y)).square().sum(1)  # (B,) or (B, h, w)
        distances.append(squared.view(len(squared), -1).mean(1))
    return torch.stack(distances).sum(0)


def _normalised(x: Tensor) -> Tensor:
    """Features (B, D) or (B, D, h, w), divided by their length at each place, which is at least 1e-4."""
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
    features = features or _inception_features
    return _evaluate(features, real, "real"), _evaluate(features, fake, "fake")


def _inception_features(x: Tensor) -> Tensor:
    return feature_networks.inception(x)[0]


def _inception_logits(x: Tensor) -> Tensor:
    return feature_networks.inception(x)[1]


def _evaluate(network: Features, pictures: Tensor, name: str) -> Tensor:
    """(N, D) float64: a network's output for pictures (N, 3, H, W), batch by batch."""
    _check_pictures(name, pictures)
    outputs = []
    with torch.no_grad():
        for batch in pictures.split(BATCH):
            output = network(batch)
            if output.shape[:-1] != batch.shape[:1]:
                raise ValueError(
                    f"the network must turn (B, 3, H, W) into (B, D), got {tuple(output.shape)} for {name}"
                )
            outputs.append(output)
    return torch.cat(outputs).double()


def _check_pictures(name: str, x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"{name} must be float pictures (B, 3, H, W), got {x.dtype} of shape {tuple(x.shape)}"
        )
    low, high = x.min().item(), x.max().item()
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"{name} must lie in [0, 1], got {low:g} .. {high:g}; "
            "clamp, or turn [-1, 1] into it by (x + 1) / 2"
        )
