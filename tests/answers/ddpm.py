"""Lesson 01: right answers to its exercises, and wrong ones."""

import math

import numpy as np


def share(t, steps, offset):
    f = [math.cos((u / steps + offset) / (1 + offset) * math.pi / 2) ** 2 for u in (0, t)]
    return f[1] / f[0]


def kl(mean, guess, variance):
    return ((mean - guess) ** 2).sum() / (2 * variance * math.log(2))


RIGHT = {
    "cosine_share": share,
    "guess_x0": lambda x_t, eps, alpha_bar: (x_t - math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha_bar),
    "gaussian_kl": kl,
}

MISTAKES = {
    "cosine_share": [
        (lambda t, steps, offset: 1 - t / steps, "3/4"),
        (lambda t, steps, offset: math.cos(t / steps * math.pi / 2), "cos^2"),
        (lambda t, steps, offset: math.cos(t / steps) ** 2, "radians"),
        (
            lambda t, steps, offset: math.cos((t / steps + offset) / (1 + offset) * math.pi / 2) ** 2,
            "divide by f(0)",
        ),
        (lambda t, steps, offset: share(t, steps, 0.0), "30 to 60 to 90"),
        (lambda t, steps, offset: max(share(t, steps, offset), 0.01), "90 degrees"),
    ],
    "guess_x0": [
        (lambda x_t, eps, a: (x_t - math.sqrt(1 - a) * eps) / a, "alpha_bar is 1/4"),
        (lambda x_t, eps, a: x_t - math.sqrt(1 - a) * eps, "sqrt(alpha_bar) x0"),
        (lambda x_t, eps, a: (x_t - (1 - a) * eps) / math.sqrt(a), "subtract it"),
        (lambda x_t, eps, a: x_t / math.sqrt(a) - math.sqrt(1 - a) * eps, "before you divide"),
        (lambda x_t, eps, a: np.clip((x_t - math.sqrt(1 - a) * eps) / math.sqrt(a), -1, 1), "far beyond"),
        (lambda x_t, eps, a: ((x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)).ravel(), "all noise"),
    ],
    "gaussian_kl": [
        (lambda m, g, v: ((m - g) ** 2).sum() / (2 * v), "a bit is log(2) nats"),
        (lambda m, g, v: ((m - g) ** 2).sum() / (v * math.log(2)), "1/2 nat"),
        (lambda m, g, v: np.abs(m - g).sum() / (2 * v * math.log(2)), "squared"),
        (lambda m, g, v: ((m - g) ** 2).sum() / (2 * v**2 * math.log(2)), "units of the variance"),
        (lambda m, g, v: ((m - g) ** 2).mean() / (2 * v * math.log(2)), "sum over all"),
        (lambda m, g, v: kl(m, g, v) if v > 0.5 else 0.5, "measured"),
        (lambda m, g, v: kl(m, g, v) + 1, "return 0"),
    ],
}
