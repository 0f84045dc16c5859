"""The lesson on DDPM: right answers to its exercises, and wrong ones."""

import math

import numpy as np


def step(x_t, eps, z, now, before):
    x0 = (x_t - math.sqrt(1 - now) * eps) / math.sqrt(now)
    beta = 1 - now / before
    mean = math.sqrt(before) * beta / (1 - now) * x0 + math.sqrt(1 - beta) * (1 - before) / (1 - now) * x_t
    return mean + math.sqrt(beta * (1 - before) / (1 - now)) * z


def better_x0(x0_hat, sigma, mean):
    return mean + (x0_hat - mean) / (1 + (sigma / 8) ** 4)


RIGHT = {
    "guess_x0": lambda x_t, eps, alpha_bar: (x_t - math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha_bar),
    "ddpm_step": step,
    "better_x0": better_x0,
}

MISTAKES = {
    "guess_x0": [
        (lambda x_t, eps, a: (x_t - math.sqrt(1 - a) * eps) / a, "alpha_bar is 1/4"),
        (lambda x_t, eps, a: x_t - math.sqrt(1 - a) * eps, "sqrt(alpha_bar) x0"),
        (lambda x_t, eps, a: (x_t - (1 - a) * eps) / math.sqrt(a), "subtract it"),
        (lambda x_t, eps, a: x_t / math.sqrt(a) - math.sqrt(1 - a) * eps, "before you divide"),
        (lambda x_t, eps, a: np.clip((x_t - math.sqrt(1 - a) * eps) / math.sqrt(a), -1, 1), "far beyond"),
        (lambda x_t, eps, a: ((x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)).ravel(), "all noise"),
    ],
    "ddpm_step": [
        (lambda x, e, z, a, b: step(x, e, z, a, b) + 0.1 * z, "the variance is 0 there"),
        (lambda x, e, z, a, b: step(x, e, z, a, b) if b == 1 else x, "only fades"),
        (lambda x, e, z, a, b: step(x, 0.0 * e if b < 1 else e, z, a, b), "here x0 = 0"),
        (lambda x, e, z, a, b: step(x, e, 0 * z, a, b), "square root of its variance"),
        (lambda x, e, z, a, b: step(x, e, z * math.sqrt(1 - a / b), a, b), "square root of its variance"),
        (lambda x, e, z, a, b: step(x, e, z, a, b) if x.size == 1 else x, "measured"),
    ],
    "better_x0": [
        (lambda x, sigma, mean: mean + 0 * x, "nothing needs to be changed"),
        (lambda x, sigma, mean: x.clamp(-1, 1), "the better part of the answer"),
        (lambda x, sigma, mean: x if sigma < 20 else mean + 0 * x, "the better part of the answer"),
        (lambda x, sigma, mean: better_x0(x, min(sigma, 12.0), mean), "clipping to -1 .. 1 is not enough"),
        (lambda x, sigma, mean: better_x0(x, sigma, 0 * mean), "mean digit"),
        (lambda x, sigma, mean: better_x0(x, sigma, mean) if sigma > 3 else 0.3 * x, "nothing needs"),
    ],
}
