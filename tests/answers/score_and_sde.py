"""Lesson 03: right answers to its exercises, and wrong ones."""

import math
from itertools import pairwise

import numpy as np


def my_reverse_diffusion(score, x, sigmas, noises):
    for i, (sigma, goal) in enumerate(pairwise(sigmas)):
        variance = sigma**2 - goal**2
        x = x + variance * score(x, sigma)
        if i < len(sigmas) - 2:
            x = x + math.sqrt(variance) * noises[i]
    return x


def reverse_diffusion(drift=lambda a, b: a**2 - b**2, size=lambda a, b: math.sqrt(a**2 - b**2), always=False):
    """The loop with other coefficients of drift and noise."""

    def walk(score, x, sigmas, noises):
        for i, (sigma, goal) in enumerate(pairwise(sigmas)):
            x = x + drift(sigma, goal) * score(x, sigma)
            if always or goal != sigmas[-1]:
                x = x + size(sigma, goal) * noises[i]
        return x

    return walk


def score_of_the_start(score, x, sigmas, noises):
    fixed = score(x, sigmas[0])
    return my_reverse_diffusion(lambda x, sigma: fixed, x, sigmas, noises)


def spaced(rho, low):
    return lambda count, top: np.linspace(top ** (1 / rho), low ** (1 / rho), count) ** rho


RIGHT = {
    "noisy_score": lambda u, mean, std, sigma: (mean - u) / (std**2 + sigma**2),
    "reverse_diffusion": my_reverse_diffusion,
    "noise_levels": lambda count, top: np.geomspace(top, 0.03, count),
}
MISTAKES = {
    "noisy_score": [
        (lambda u, mean, std, sigma: (u - mean) / (std**2 + sigma**2), "back to the mean"),
        (lambda u, mean, std, sigma: (mean - u) / (std + sigma), "variance"),
        (lambda u, mean, std, sigma: (mean - u) / (std + sigma) ** 2, "variances add"),
        (lambda u, mean, std, sigma: (mean - u) / std**2, "variances add"),
        (lambda u, mean, std, sigma: float((mean - u) / (std**2 + sigma**2)), "TypeError"),
    ],
    "reverse_diffusion": [
        (reverse_diffusion(drift=lambda a, b: (a**2 - b**2) / 2), "the drift alone"),
        (reverse_diffusion(drift=lambda a, b: a - b), "the drift alone"),
        (reverse_diffusion(always=True), "the drift alone"),
        (reverse_diffusion(size=lambda a, b: a - b), "25 - 9"),
        (reverse_diffusion(size=lambda a, b: a**2 - b**2), "25 - 9"),
        (reverse_diffusion(size=lambda a, b: 0.0), "25 - 9"),
        (score_of_the_start, "the score of each step"),
        (lambda score, x, sigmas, noises: x + noises[0] * score, "TypeError"),
    ],
    "noise_levels": [
        (lambda count, top: np.linspace(top, 0, count), "all above 0"),
        (lambda count, top: np.geomspace(0.03, top, count), "falling"),
        (lambda count, top: np.geomspace(top, 0.03, count + 1), "as many"),
        (lambda count, top: np.geomspace(80.0, 0.03, count), "the first of them top"),
        (lambda count, top: "geometric", "falling"),
        (spaced(7, 0.002), "0.039"),
        (spaced(1, 0.03), "waste their steps"),
        (lambda count, top: np.geomspace(top, 1e-4, count), "waste their steps"),
        (lambda count, top: np.geomspace(top, 0.5, count), "waste their steps"),
    ],
}
