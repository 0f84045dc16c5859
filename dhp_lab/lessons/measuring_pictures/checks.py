"""The exercises of the lesson on measuring pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def psnr_of_noise() -> Iterator[Case]:
    """Return the PSNR in dB of white noise with a standard deviation of so many grey levels of 255:
    psnr_of_noise(levels).
    """
    yield Case({"levels": 255.0}, 0.0, hint="noise as strong as the whole range has an MSE of 1: 0 dB")
    twenty = (
        "a tenth of the amplitude is a hundredth of the MSE: 20 dB; PSNR takes the square of the deviation"
    )
    yield Case({"levels": 25.5}, 20.0, hint=twenty)
    yield Case({"levels": 8.0}, 30.069, hint="20 log10(255 / levels): the logarithm has base 10")


@exercise
def unbiased_kid() -> Iterator[Case]:
    """Return the unbiased estimate of the squared MMD of features x (N, d) and y (M, d) with the kernel
    (x . y / d + 1)^3: unbiased_kid(x, y).
    """
    itself = (
        "leave out the N pairs of a feature with itself, and divide by N (N - 1): here k is 1 for "
        "every pair, within x, within y and between them"
    )
    yield Case({"x": np.zeros((2, 2)), "y": np.zeros((3, 2))}, 0.0, hint=itself)
    one = (
        "with d = 1: within x there is the pair (1, -1) with k = 0, within y the pair (2, 0) with k = 1; "
        "between them k is 27, 1, -1 and 1, mean 7. So 0 + 1 - 2 * 7 = -13: an unbiased one may be negative"
    )
    x, y = np.array([[1.0], [-1.0]]), np.array([[2.0], [0.0]])
    yield Case({"x": x, "y": y}, -13.0, hint=one)
    width = "divide the product by d, the number of features: here 2, so that k of (2, 0) and (2, 0) is 27"
    yield Case({"x": np.array([[2.0, 0.0], [2.0, 0.0]]), "y": np.zeros((2, 2))}, 26.0, hint=width)
    unequal = "N and M may differ: the mean of all N M values between the sets, twice"
    yield Case({"x": np.zeros((2, 1)), "y": np.array([[1.0], [0.0], [0.0]])}, 0.0, hint=unequal)


@exercise
def inception_score() -> Iterator[Case]:
    """Return exp(H(mean of p) - mean of H(p)) for the classes' probabilities p (N, K) of N pictures:
    inception_score(p).
    """
    alike = "all pictures show the same class: the score is 1. In an entropy 0 log 0 counts as 0"
    yield Case({"p": np.array([[1.0, 0.0], [1.0, 0.0]])}, 1.0, hint=alike)
    each = (
        "three pictures of three classes, each with certainty: the score is 3. "
        "Take the entropy of the mean over the pictures"
    )
    yield Case({"p": np.eye(3)}, 3.0, hint=each)
    unsure = "pictures that look like everything score 1: subtract the mean entropy of the single pictures"
    yield Case({"p": np.full((5, 4), 0.25)}, 1.0, hint=unsure)
    yield Case(
        {"p": np.array([[0.9, 0.1], [0.1, 0.9]])},
        2 * 0.9**0.9 * 0.1**0.1,
        hint="entropies in nats go with exp: use the natural logarithm",
    )


def _normal(count: int, scales: Tensor, shift: float, seed: int) -> Tensor:
    """Features (count, d) with the standard deviations ``scales`` (d,) and the mean ``shift`` in the last."""
    x = scales * torch.randn(count, len(scales), generator=torch.Generator().manual_seed(seed)).double()
    x[:, -1] += shift
    return x


@exercise
def fid_without_bias() -> Iterator[Case]:
    """Estimate the Fréchet distance of the distributions behind features a and b (N, d), N = 400, within a
    fifth of its value: fid_without_bias(a, b).
    """
    flat, falling = torch.ones(32, dtype=torch.float64), torch.linspace(3.0, 0.1, 32, dtype=torch.float64)
    plain = (
        "two sets of one distribution have the distance 0. frechet_distance gives d (d + 5) / (2 N) = 1.5 "
        "or so: its bias falls as 1 / N, so measure at two sizes and go on to N = infinity"
    )
    yield Case({"a": _normal(400, flat, 0, 1), "b": _normal(400, flat, 0, 2)}, 0.0, plain, 0.2)
    far = "the means differ by 2 in one feature, nothing else does: 4. Only the bias may be subtracted"
    yield Case({"a": _normal(400, flat, 0, 3), "b": _normal(400, flat, 2, 4)}, 4.0, far, 0.2)
    uneven = (
        "here the features have different variances: d (d + 5) / (2 N) is the bias of equal ones only. "
        "Measure how the distance changes with N instead"
    )
    a, b = _normal(400, falling, 0, 5), _normal(400, falling, 1.5, 6)
    yield Case({"a": a, "b": b}, 2.25, uneven, 0.2)
