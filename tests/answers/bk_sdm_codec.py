"""Lesson 12: right answers to its exercises, and wrong ones."""

import math

import numpy as np


def my_latent_step(lambda_rate, cost, channels, f):
    return math.sqrt(6 * lambda_rate * channels / (math.log(2) * cost * f**2))


def my_clean_latent(y_hat, sigma, unet, prediction):
    s = 1 / math.sqrt(1 + sigma**2)
    output = unet(s * y_hat)
    if prediction == "epsilon":
        return y_hat - sigma * output
    return s * (s * y_hat) - math.sqrt(1 - s**2) * output


def always_v(y_hat, sigma, unet, prediction):
    return my_clean_latent(y_hat, sigma, unet, "v_prediction")


def not_scaled(y_hat, sigma, unet, prediction):
    if prediction == "epsilon":
        return y_hat - sigma * unet(y_hat)
    return y_hat / (1 + sigma**2) - sigma / math.sqrt(1 + sigma**2) * unet(y_hat)


def weight_for_one_sigma(y_hat, sigma, unet, prediction):
    s = 1 / math.sqrt(1 + sigma**2)
    return s * s * y_hat - sigma * math.sqrt(0.5) * unet(s * y_hat)


def my_combined(a, b, truth):
    v_a, v_b, shared = (
        (e * f).mean() for e, f in ((a - truth, a - truth), (b - truth, b - truth), (a - truth, b - truth))
    )
    weight = (v_b - shared) / (v_a + v_b - 2 * shared)
    return weight, 1 - weight


def inverse_variance(a, b, truth):
    v_a, v_b = np.square(a - truth).mean(), np.square(b - truth).mean()
    return v_b / (v_a + v_b), v_a / (v_a + v_b)


RIGHT = {"latent_step": my_latent_step, "clean_latent": my_clean_latent, "combined": my_combined}

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
    "clean_latent": [
        (lambda y_hat, sigma, unet, prediction: y_hat - unet(y_hat), "without noise"),
        (lambda y_hat, sigma, unet, prediction: y_hat - sigma * unet(y_hat), "z_t = s y_hat"),
        (
            lambda y_hat, sigma, unet, prediction: y_hat / (1 + sigma**2) - sigma * unet(y_hat),
            "sqrt(1 - s^2) times",
        ),
        (weight_for_one_sigma, "scaled state"),
        (not_scaled, "scaled state"),
        (always_v, "with prediction 'epsilon'"),
    ],
    "combined": [
        (lambda a, b, truth: 0.5, "least squares"),
        (lambda a, b, truth: (1.0, 0.0), "least squares"),
        (lambda a, b, truth: (0.5, 0.5), "least squares"),
        (inverse_variance, "assume uncorrelated"),
    ],
}
