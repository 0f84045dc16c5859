"""Lesson 10: right answers to its exercises, and wrong ones."""

import math

import numpy as np
from scipy.stats import norm

ROOT = math.sqrt(12)


def my_time_of_step(delta, latent_scale, alpha_bars):
    sigma = delta / ROOT / latent_scale
    return np.interp(math.log1p(sigma**2), -np.log(alpha_bars), np.arange(len(alpha_bars)))


def nearest_time(delta, latent_scale, alpha_bars):
    return float(np.abs(alpha_bars - 1 / (1 + (delta / ROOT / latent_scale) ** 2)).argmin())


def straight_alpha_bar(delta, latent_scale, alpha_bars):
    share = 1 / (1 + (delta / ROOT / latent_scale) ** 2)
    return np.interp(-share, -alpha_bars, np.arange(len(alpha_bars)))


def my_bin_mean(q, scale):
    x = q - 0.5 + (np.arange(10_000) + 0.5) / 10_000
    weights = np.exp(-(x**2) / (2 * scale**2))
    return (x * weights).sum() / weights.sum()


RIGHT = {
    "time_of_step": my_time_of_step,
    "one_step_guess": lambda q, mean, delta, eps: delta * (q + mean) - delta / ROOT * eps,
    "bin_mean": my_bin_mean,
}

MISTAKES = {
    "time_of_step": [
        (lambda delta, scale, bars: my_time_of_step(delta * ROOT, scale, bars), "delta / sqrt(12)"),
        (lambda delta, scale, bars: my_time_of_step(delta / 12 * ROOT, scale, bars), "delta / sqrt(12)"),
        (
            lambda delta, scale, bars: np.interp(1 / (1 + delta**2 / 12), bars, np.arange(len(bars))),
            "delta / sqrt(12)",
        ),
        (lambda delta, scale, bars: my_time_of_step(delta, 1.0, bars), "divide the noise by latent_scale"),
        (
            lambda delta, scale, bars: my_time_of_step(delta * scale, 1.0, bars),
            "divide the noise by latent_scale",
        ),
        (nearest_time, "straight line"),
        (straight_alpha_bar, "straight line"),
        (
            lambda delta, scale, bars: min(my_time_of_step(delta, scale, bars), 3) if len(bars) < 9 else 4,
            "every beta is 0.1",
        ),
    ],
    "one_step_guess": [
        (lambda q, mean, delta, eps: delta * q + mean, "counts steps from the mean"),
        (lambda q, mean, delta, eps: delta * (q - mean) - delta / ROOT * eps, "counts steps from the mean"),
        (lambda q, mean, delta, eps: delta * (q + mean) + delta / ROOT * eps, "take it away"),
        (lambda q, mean, delta, eps: delta * (q + mean) - delta * eps, "take it away"),
        (lambda q, mean, delta, eps: delta * (q + mean) - eps, "gives the latents back"),
    ],
    "bin_mean": [
        (lambda q, scale: 0.5, "symmetric"),
        (lambda q, scale: float(q), "weighted by"),
        (lambda q, scale: q * scale**2 / (scale**2 + 1 / 12), "weighted by"),
        (lambda q, scale: abs(my_bin_mean(q, scale)), "below 0"),
        (lambda q, scale: my_bin_mean(q, max(scale, 0.3)), "near edge"),
        (lambda q, scale: norm.expect(lambda x: x, scale=scale, lb=q - 0.5, ub=q + 0.5), "weighted by"),
        (lambda q, scale: 0.0 if scale > 50 else my_bin_mean(q, scale), "middle of the bin"),
    ],
}
