"""Metrics of generated pictures through small networks of ours: closed forms, brute force, torchmetrics."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from oracles import largest, seeded
from torchmetrics.functional.image.lpips import _LPIPS as torchmetrics_lpips
from torchmetrics.image.inception import InceptionScore

from dhp_lab.metrics.feature_distances import frechet_distance, kernel_distance, precision_recall
from dhp_lab.metrics.generative import (
    BATCH,
    clip_score,
    fid,
    improved_precision_recall,
    inception_score,
    kid,
    lpips,
)


def colours(x):
    """A network of three features: the mean of each channel."""
    return x.mean((2, 3))


def maps(x):
    """A network whose features are maps: 2 x 2 means of each channel, and their squares."""
    h = torch.nn.functional.avg_pool2d(x, 2)
    return torch.cat([h, h.square()], 1)


def flat(colour):
    """Pictures of one colour each, (B, 3, 4, 6), float64."""
    return torch.as_tensor(colour).double()[:, :, None, None].expand(-1, -1, 4, 6)


def pictures(count, seed=0):
    return torch.rand(count, 3, 8, 8, generator=seeded(seed))


def classes(strength):
    """A classifier of four classes: the first channel is their number / 3."""
    return lambda x: strength * torch.nn.functional.one_hot((3 * colours(x)[:, 0]).round().long(), 4).double()


def test_fid_of_colours_with_known_moments():
    """Deviations 0.1 and 0.2 of red, 0.2 and 0.05 of green; means 0.1 apart in red, 0.3 in blue."""
    square = torch.tensor(
        [[1.0, 1.0, 0], [1.0, -1.0, 0], [-1.0, 1.0, 0], [-1.0, -1.0, 0]]
    ).double() * math.sqrt(3 / 4)
    real = flat(square * torch.tensor([0.1, 0.2, 1]) + torch.tensor([0.5, 0.5, 0.2]))
    fake = flat(square * torch.tensor([0.2, 0.05, 1]) + torch.tensor([0.6, 0.5, 0.5]))
    assert fid(real, fake, colours) == pytest.approx(0.1**2 + 0.3**2 + 0.1**2 + 0.15**2, abs=1e-7)
    assert abs(fid(real, real, colours)) < 1e-9


def test_sets_are_compared_by_their_features_batch_by_batch():
    real, fake = pictures(2 * BATCH + 7), pictures(BATCH + 3, seed=1) ** 2
    a, b = colours(real).double(), colours(fake).double()
    assert fid(real, fake, colours) == pytest.approx(frechet_distance(a, b), rel=1e-6)
    assert kid(real, fake, colours, subsets=3, subset_size=50, seed=5) == pytest.approx(
        kernel_distance(a, b, subsets=3, subset_size=50, seed=5), rel=1e-5
    )
    assert improved_precision_recall(real, fake, colours, neighbours=2) == precision_recall(
        a, b, neighbours=2
    )
    assert improved_precision_recall(real, real, colours) == (1, 1)


def test_a_lost_kind_costs_recall_and_noise_costs_precision():
    place = torch.tensor([[0.2, 0.2, 0.2]] * 150 + [[0.8, 0.8, 0.8]] * 150)

    def shades(seed, spread=0.03):
        return flat((place + spread * torch.randn(300, 3, generator=seeded(seed))).clamp(0, 1))

    real, fake = shades(0), shades(1)
    fair, lost, noisy = (
        improved_precision_recall(real, x, colours) for x in (fake, fake[:150], shades(2, 0.15))
    )
    assert min(fair) > 0.9 and lost[0] > 0.9 and lost[1] < 0.52 and noisy[0] < 0.5
    assert (
        fid(real, fake, colours)
        < 0.01
        < min(fid(real, fake[:150], colours), fid(real, shades(2, 0.15), colours))
    )


@pytest.mark.parametrize("kinds", [1, 2, 3, 4])
def test_inception_score_of_equally_likely_sure_classes_is_their_number(kinds):
    x = flat([[i % kinds / 3] * 3 for i in range(12 * kinds)])
    assert inception_score(x, classes(1e4), splits=1) == pytest.approx((kinds, 0), abs=1e-12)
    assert inception_score(x, classes(0), splits=5) == pytest.approx((1, 0), abs=1e-12), (
        "no picture has a class"
    )


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore`", "ignore:std")
def test_inception_score_is_that_of_torchmetrics():
    logits = 3 * torch.randn(40, 7, generator=seeded(), dtype=torch.float64)
    theirs = InceptionScore(torch.nn.Identity(), splits=1)
    theirs.update(logits)
    number = flat([[i / 40] * 3 for i in range(40)])

    def look_up(x):
        return logits[(40 * colours(x)[:, 0]).round().long()]

    assert inception_score(number, look_up, splits=1)[0] == pytest.approx(
        theirs.compute()[0].item(), rel=1e-9
    )

    order = torch.randperm(40, generator=seeded(3))
    scores = []
    for part in order.view(4, 10).tolist():
        p = [logits[i].softmax(0).tolist() for i in part]
        mean = [sum(column) / 10 for column in zip(*p, strict=True)]
        scores.append(
            math.exp(sum(q * math.log(q / m) for row in p for q, m in zip(row, mean, strict=True)) / 10)
        )
    mean = sum(scores) / 4
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / 4)
    assert inception_score(number, look_up, splits=4, seed=3) == pytest.approx((mean, deviation), rel=1e-9)


def test_lpips_of_one_layer_is_twice_one_minus_the_cosine():
    a, b = pictures(BATCH + 5), pictures(BATCH + 5, seed=1)

    def cosine(p, q):
        return sum(x * y for x, y in zip(p, q, strict=True)) / math.hypot(*p) / math.hypot(*q)

    expected = [2 - 2 * cosine(p, q) for p, q in zip(colours(a).tolist(), colours(b).tolist(), strict=True)]
    assert largest(lpips(a, b, colours) - torch.tensor(expected)) < 1e-6
    places = zip(maps(a).flatten(2).mT.tolist(), maps(b).flatten(2).mT.tolist(), strict=True)
    expected = [sum(2 - 2 * cosine(p, q) for p, q in zip(x, y, strict=True)) / 16 for x, y in places]
    assert largest(lpips(a, b, maps) - torch.tensor(expected)) < 1e-6
    assert torch.equal(lpips(a, a, maps), torch.zeros(BATCH + 5))


def layers(x):
    """A network of three layers: maps of two sizes, and one feature vector."""
    weights = torch.randn(5, 3, 3, 3, generator=seeded(9))
    h = torch.nn.functional.conv2d(x, weights).relu()
    return [h, maps(h), colours(h)]


def test_lpips_of_several_layers_is_that_of_torchmetrics():
    """Its own equation, with a network of ours in the place of AlexNet, and all weights 1."""

    def as_maps(x):
        return [layer.view(*layer.shape, *[1] * (4 - layer.ndim)) for layer in layers(x)]

    theirs = SimpleNamespace(
        scaling_layer=lambda x: x,
        resize=None,
        spatial=False,
        L=3,
        net=SimpleNamespace(forward=as_maps),
        lins=[lambda gap: gap.sum(1, keepdim=True)] * 3,
    )
    a, b = pictures(BATCH + 5), pictures(BATCH + 5, seed=1)
    expected = torchmetrics_lpips.forward(theirs, a, b).flatten()
    assert expected.shape == (BATCH + 5,) and largest(lpips(a, b, layers) - expected) < 1e-5 * expected.min()
    each = sum(lpips(a, b, lambda x, i=i: layers(x)[i]) for i in range(3))
    assert largest(lpips(a, b, layers) - each) < 1e-6


def test_clip_score_of_known_angles():
    angles = {"same": 0, "near": math.pi / 3, "unlike": math.pi / 2, "opposed": math.pi}
    captions = [list(angles)[i % 4] for i in range(BATCH + 6)]
    x = pictures(BATCH + 6)

    def embed(seen, read):
        turned = [[5 * math.cos(angles[word]), 5 * math.sin(angles[word])] for word in read]
        return torch.tensor([[2.0, 0.0]]).expand(len(seen), 2), torch.tensor(turned)

    expected = torch.tensor([{"same": 100.0, "near": 50.0}.get(word, 0.0) for word in captions])
    assert largest(clip_score(x, captions, embed) - expected) < 1e-4


def test_no_gradient_and_no_global_randomness_is_left():
    network = torch.nn.Conv2d(3, 4, 8)
    x, state = pictures(6), torch.get_rng_state()
    assert not lpips(x, x.flip(0), network).requires_grad
    kid(x, x, lambda x: network(x).flatten(1), subsets=2, subset_size=4)
    inception_score(x, lambda x: network(x).flatten(1), splits=2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda x: fid(x[0], x, colours),
            r"real must be float pictures \(B, 3, H, W\), got torch.float32 of shape \(3, 8, 8\)",
        ),
        (lambda x: fid(x, x[:, :1], colours), r"fake must be .* shape \(6, 1, 8, 8\)"),
        (lambda x: fid(x, (255 * x).byte(), colours), r"fake must be float pictures .* got torch.uint8"),
        (lambda x: fid(x[:0], x, colours), r"real must be .* shape \(0, 3, 8, 8\)"),
        (
            lambda x: kid(x, 2 * torch.ones_like(x) - 3, colours),
            r"fake must lie in \[0, 1\], got -1 .. -1; .*\(x \+ 1\) / 2",
        ),
        (lambda x: improved_precision_recall(x, x / 0, colours), r"fake must lie in \[0, 1\], got .*inf"),
        (lambda x: fid(x, x, maps), r"must turn \(B, 3, H, W\) into \(B, D\), got \(6, 6, 4, 4\) for real"),
        (lambda x: fid(x, x, lambda x: colours(x)[:1]), r"into \(B, D\), got \(1, 3\)"),
        (lambda x: fid(x, x[:1], colours), r"at least 2 features .* \(6, 3\) and \(1, 3\)"),
        (lambda x: fid(x, x, lambda x: colours(x).log() / 0), "features must be finite"),
        (lambda x: kid(x, x, colours), "subset_size lie in 2 .. 6, .* got 100 and 1000"),
        (
            lambda x: improved_precision_recall(x, x, colours, neighbours=6),
            "neighbours must lie in 1 .. 5, got 6",
        ),
        (lambda x: inception_score(x, colours), "splits must lie in 1 .. 6, the number of pictures, got 10"),
        (lambda x: inception_score(x, colours, splits=0), "got 0"),
        (lambda x: lpips(x, x[:5], colours), r"one shape, got \(6, 3, 8, 8\) and \(5, 3, 8, 8\)"),
        (lambda x: lpips(x, x + 0.5, colours), r"b must lie in \[0, 1\]"),
        (lambda x: lpips(x, x), "at least 31 x 31 pixels, got 8 x 8"),
        (
            lambda x: lpips(x, x, lambda x: x.mean()),
            r"into layers \(B, D\) or \(B, D, h, w\), got \[\(\)\] for 6 pictures",
        ),
        (
            lambda x: lpips(x, x, lambda x: [colours(x), maps(x)[:1]]),
            r"got \[\(6, 3\), \(1, 6, 4, 4\)\] for 6 pictures",
        ),
        (lambda x: lpips(x, x, lambda x: []), r"got \[\] for 6 pictures"),
        (lambda x: clip_score(x, ["a", "b"]), r"a list of 6 captions is needed, .* got \['a', 'b'\]"),
        (lambda x: clip_score(x, "circle"), "a list of 6 captions is needed, .* got 'circle'"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(pictures(6))
