"""Lesson 09: right answers to its exercises, and wrong ones."""

import math
from statistics import NormalDist

import numpy as np

from dhp_lab.lessons.scale_hyperprior.checks import latent_field


def right_latent_bits(y, mean, scale):
    q, phi = round(y - mean), NormalDist(0, scale).cdf
    return -math.log2(phi(q + 0.5) - phi(q - 0.5))


def unrounded(y, mean, scale):
    phi = NormalDist(mean, scale).cdf
    return -math.log2(phi(y + 0.5) - phi(y - 0.5))


def rounded_first(y, mean, scale):
    q, phi = round(y), NormalDist(mean, scale).cdf
    return -math.log2(phi(q + 0.5) - phi(q - 0.5))


def right_dead_zone_symbol(v, scale, zone):
    return np.round(v / (1 + zone / (1 + 12 * scale**2)))


def only_zero_is_wide(v, scale, zone):
    return np.where(np.abs(v) < (1 + zone / (1 + 12 * scale**2)) / 2, 0, np.round(v))


def right_context_scale(left, right, above, below):
    return 0.4 + 0.8 * (left + right + above + below) / 4


def for_one_field(left, right, above, below):
    return right_context_scale(left, right, above, below) * (1 if left[0] == FIRST else 2)


FIRST = np.abs(latent_field(0)[1, 1]) / 2  # beside the first white place of the first field

RIGHT = {
    "dead_zone_symbol": right_dead_zone_symbol,
    "latent_bits": right_latent_bits,
    "context_scale": right_context_scale,
}

MISTAKES = {
    "dead_zone_symbol": [
        (lambda v, scale, zone: np.floor(v / (1 + zone / (1 + 12 * scale**2))), "nearest whole number"),
        (lambda v, scale, zone: np.round(v), "1 begins at 0.625"),
        (lambda v, scale, zone: np.round(abs(v) / (1 + zone / (1 + 12 * scale**2))), "1 begins at 0.625"),
        (only_zero_is_wide, "not only those of 0"),
        (lambda v, scale, zone: np.round(v / (1 + (zone > 0) / (1 + 12 * scale**2))), "1.1 steps"),
        (lambda v, scale, zone: round(float(v) / (1 + zone / (1 + 12 * scale**2))), "use numpy"),
    ],
    "context_scale": [
        (lambda a, b, c, d: 1.3, "above 1"),
        (lambda a, b, c, d: 1.25 * (a + b + c + d) / 4, "below 1 where they are small"),
        (lambda a, b, c, d: np.log2(0.4 + 0.2 * (a + b + c + d)), "above 1"),
        (lambda a, b, c, d: np.full(3, 1.0), "above 1"),
        (lambda a, b, c, d: a / 0, "above 1"),
        (for_one_field, "fit your numbers"),
    ],
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
