r"""Reverse channel coding: send a sample of a distribution q, with random numbers that both sides share.

Sender and receiver draw the same candidates z_1, z_2, ... ~ p and the same arrival times t_1 < t_2 < ... of a
Poisson process. The sender transmits one whole number,

    i* = argmin_i  t_i p(z_i) / q(z_i),

and z_{i*} is a sample of q, exactly: the Poisson functional representation (Li & El Gamal 2018, "Strong
functional representation lemma"; Theis & Yosri 2022, "Algorithms for the communication of samples"). Here p
is N(0, I) and q is N(mean, std^2 I) in d dimensions.

| in the papers                  | here            |                                                       |
|--------------------------------|-----------------|-------------------------------------------------------|
| D(q \| p)                      | `kl_bits`       | what a sample must cost, on average over q            |
| K                              | `encode_sample` | E[log2 K] <= D(q \| p) + 1 + log2(e)/e                |
| Zipf distribution, exponent    | `zipf_bits`     | E[bits] <= I + log2(I + 1) + 4                        |
| 1 + 1 / (I + 1 + log2(e) / e)  |                 |                                                       |
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import zeta
from scipy.stats import t as student_t

LOG_INDEX_BITS = 1 + math.log2(math.e) / math.e  # that the mean of log2 K may exceed the KL divergence by


def kl_bits(mean: np.ndarray, std: float) -> float:
    """D(N(mean, std^2 I) | N(0, I)) in bits; mean: (d,), std in (0, 1)."""
    nats = 0.5 * (mean @ mean + len(mean) * (std**2 - 1)) - len(mean) * math.log(std)
    return nats / math.log(2)


def encode_sample(mean: np.ndarray, std: float, seed: int) -> int:
    """The number, from 1, of the shared candidate that is a sample of N(mean, std^2 I).

    It stops where no later candidate can win: q/p nowhere exceeds exp(|mean|^2 / (2 (1 - std^2))) / std^d.

    Args:
        mean: (d,). std: in (0, 1).
        seed: of the candidates and arrival times.
    """
    shared, d = np.random.default_rng(seed), len(mean)
    log_largest = mean @ mean / (2 * (1 - std**2)) - d * math.log(std)
    time, best, chosen, i = 0.0, math.inf, 0, 0
    while i == 0 or math.log(time) < best + log_largest:
        i += 1
        time += shared.exponential()
        z = shared.normal(size=d)
        off = (z - mean) / std
        score = math.log(time) + (off @ off - z @ z) / 2 + d * math.log(std)
        if score < best:
            best, chosen = score, i
    return chosen


def decode_sample(index: int, d: int, seed: int) -> np.ndarray:
    """The shared candidate with this number, (d,)."""
    shared = np.random.default_rng(seed)
    for _ in range(index):
        shared.exponential()
        z = shared.normal(size=d)
    return z


def zipf_bits(index: int, information: float) -> float:
    """The ideal code length of a number under the Zipf distribution for this many bits of information."""
    exponent = 1 + 1 / (information + LOG_INDEX_BITS)
    return exponent * math.log2(index) + math.log2(zeta(exponent))


def targets(d: int, std: float, count: int, seed: int) -> np.ndarray:
    """(count, d) means for which z is N(0, I) on average, so the information is -d log2(std) bits."""
    return math.sqrt(1 - std**2) * np.random.default_rng(seed).normal(size=(count, d))


def paired_interval(differences: np.ndarray) -> tuple[float, float]:
    """The mean of paired differences, and half the width of its 95 % interval (Student's t).

    Args:
        differences: (n,), n at least 2.
    """
    values = np.asarray(differences, dtype=float)
    half = student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)
