"""Lesson 09: right answers to its exercises, and wrong ones."""

import math
from statistics import NormalDist


def right_latent_bits(y, mean, scale):
    q, phi = round(y - mean), NormalDist(0, scale).cdf
    return -math.log2(phi(q + 0.5) - phi(q - 0.5))


def unrounded(y, mean, scale):
    phi = NormalDist(mean, scale).cdf
    return -math.log2(phi(y + 0.5) - phi(y - 0.5))


def rounded_first(y, mean, scale):
    q, phi = round(y), NormalDist(mean, scale).cdf
    return -math.log2(phi(q + 0.5) - phi(q - 0.5))


RIGHT = {"latent_bits": right_latent_bits}

MISTAKES = {
    "latent_bits": [
        (
            lambda y, mean, scale: -math.log2(NormalDist(mean, scale).pdf(round(y - mean) + mean)),
            "height of the density",
        ),
        (unrounded, "the symbol is 0"),
        (lambda y, mean, scale: right_latent_bits(y, mean, 1.0), "units of the scale"),
        (lambda y, mean, scale: -math.log2(math.erf(0.5 / scale / math.sqrt(2))), "1.5 .. 2.5"),
        (rounded_first, "take the mean away"),
        (lambda y, mean, scale: right_latent_bits(y, 0.0, scale), "take the mean away"),
    ],
}
