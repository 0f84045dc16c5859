"""Lesson 12: right answers to its exercises, and wrong ones."""

import math


def my_latent_step(lambda_rate, cost, channels, f):
    return math.sqrt(6 * lambda_rate * channels / (math.log(2) * cost * f**2))


def my_clean_from_v(y_hat, sigma, v):
    s = 1 / math.sqrt(1 + sigma**2)
    return s * (s * y_hat) - math.sqrt(1 - s**2) * v


def my_averaged(a, variance_a, b, variance_b):
    total = variance_a + variance_b
    return (variance_b * a + variance_a * b) / total, variance_a * variance_b / total


RIGHT = {"latent_step": my_latent_step, "clean_from_v": my_clean_from_v, "averaged": my_averaged}

MISTAKES = {
    "latent_step": [
        (
            lambda rate, cost, channels, f: my_latent_step(rate, cost, channels, f) ** 2 * 2,
            "the lesson has the equation",
        ),
        (lambda rate, cost, channels, f: my_latent_step(rate, cost, channels, f) ** 2, "doubles the step"),
        (lambda rate, cost, channels, f: my_latent_step(rate, 1, channels, f), "half as large"),
        (lambda rate, cost, channels, f: my_latent_step(rate, 1 / cost, channels, f), "half as large"),
        (lambda rate, cost, channels, f: my_latent_step(rate, cost, channels, 1), "channels / f^2"),
        (lambda rate, cost, channels, f: my_latent_step(rate, cost, 1, f), "channels / f^2"),
        (lambda rate, cost, channels, f: 0.25 if f == 8 else my_latent_step(rate, cost, 1, f), "5.1 √λ"),
    ],
    "clean_from_v": [
        (lambda y_hat, sigma, v: y_hat - v, "without noise"),
        (lambda y_hat, sigma, v: y_hat - sigma * v, "z_t = s y_hat"),
        (lambda y_hat, sigma, v: y_hat / math.sqrt(1 + sigma**2) - sigma * v, "z_t = s y_hat"),
        (lambda y_hat, sigma, v: y_hat / (1 + sigma**2) - sigma * v, "sqrt(1 - s^2) times"),
        (
            lambda y_hat, sigma, v: y_hat / (1 + sigma**2) + sigma / math.sqrt(1 + sigma**2) * v,
            "sqrt(1 - s^2) times",
        ),
        (
            lambda y_hat, sigma, v: y_hat / (1 + sigma**2) - sigma * math.sqrt(0.5) * v,
            "gives the latents back",
        ),
    ],
    "averaged": [
        (lambda a, va, b, vb: (a + b) / 2, "equal variance"),
        (lambda a, va, b, vb: ((a + b) / 2, (va + vb) / 4), "inverse-variance weighting"),
        (
            lambda a, va, b, vb: ((va * a + vb * b) / (va + vb), va * vb / (va + vb)),
            "inverse-variance weighting",
        ),
        (lambda a, va, b, vb: (my_averaged(a, va, b, vb)[0], va / 2 if va == vb else 0.75), "tiny variance"),
        (
            lambda a, va, b, vb: (float(my_averaged(a, va, b, vb)[0]), va * vb / (va + vb)),
            "numpy arrays go in",
        ),
    ],
}
