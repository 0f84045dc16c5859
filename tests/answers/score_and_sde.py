"""Lesson 03: right answers to its exercises, and wrong ones."""

import math

import numpy as np

RIGHT = {
    "noisy_score": lambda u, mean, std, sigma: (mean - u) / (std**2 + sigma**2),
    "implicit_score_matching": lambda x, m, v: np.mean(((m - x) / v) ** 2) / 2 - 1 / v,
    "reverse_step": lambda x, score, sigma, earlier, noise: (
        x + (sigma**2 - earlier**2) * score + math.sqrt(sigma**2 - earlier**2) * noise
    ),
}
MISTAKES = {
    "noisy_score": [
        (lambda u, mean, std, sigma: (u - mean) / (std**2 + sigma**2), "back to the mean"),
        (lambda u, mean, std, sigma: (mean - u) / (std + sigma), "variance"),
        (lambda u, mean, std, sigma: (mean - u) / (std + sigma) ** 2, "variances add"),
        (lambda u, mean, std, sigma: (mean - u) / std**2, "variances add"),
        (lambda u, mean, std, sigma: float((mean - u) / (std**2 + sigma**2)), "TypeError"),
    ],
    "implicit_score_matching": [
        (lambda x, m, v: np.mean(((m - x) / v) ** 2) / 2, "ds/dx = -1/v"),
        (lambda x, m, v: np.mean(((m - x) / v) ** 2) / 2 + 1 / v, "ds/dx = -1/v"),
        (lambda x, m, v: np.mean(((m - x) / v) ** 2) - 1 / v, "s = -(3 - 1)/2"),
        (lambda x, m, v: np.mean((m - x) / v) ** 2 / 2 - 1 / v, "mean over the data"),
        (lambda x, m, v: np.sum(((m - x) / v) ** 2) / 2 - 1 / v, "mean over the data"),
    ],
    "reverse_step": [
        (lambda x, s, a, b, n: x + (a**2 - b**2) / 2 * s, "16 times 0.5"),
        (lambda x, s, a, b, n: x - (a**2 - b**2) * s + math.sqrt(a**2 - b**2) * n, "16 times 0.5"),
        (lambda x, s, a, b, n: x + (a**2 - b**2) * s + (a - b) * n, "variance is"),
        (lambda x, s, a, b, n: x + (a**2 - b**2) * s, "variance is"),
        (
            lambda x, s, a, b, n: (x + (a**2 - b**2) * s + math.sqrt(a**2 - b**2) * n).round(),
            "AttributeError",
        ),
    ],
}
