"""Lesson 10: right answers to its exercises, and wrong ones."""

import numpy as np


def my_expected_error(variances, delta):
    return delta * np.sqrt(variances.sum() / 768)


def my_draw(denoise, x_hat, e, noise, levels):
    u = levels[0] * noise
    for sigma, lower in zip(levels, [*levels[1:], 0], strict=True):
        r = denoise(u, sigma)
        u = r + lower / sigma * (u - r)
    return x_hat + e * u


def without_the_end(denoise, x_hat, e, noise, levels):
    u = levels[0] * noise
    for sigma, lower in zip(levels, levels[1:], strict=False):
        r = denoise(u, sigma)
        u = r + lower / sigma * (u - r)
    return x_hat + e * (denoise(u, levels[-1]) if len(levels) == 1 else u)


def always_fresh_noise(denoise, x_hat, e, noise, levels):
    u = levels[0] * noise
    for sigma, lower in zip(levels, [*levels[1:], 0], strict=True):
        u = denoise(u, sigma) + lower * noise
    return x_hat + e * u


def my_texture_denoiser(u, sigma, examples):
    power = (np.abs(np.fft.fft2(examples)) ** 2).mean(0) / examples[0].size
    return np.fft.ifft2(np.fft.fft2(u) * power / (power + sigma**2)).real


def white(u, sigma, examples):
    return u / (1 + sigma**2)


RIGHT = {
    "expected_error": my_expected_error,
    "draw_residual": my_draw,
    "texture_denoiser": my_texture_denoiser,
}

MISTAKES = {
    "expected_error": [
        (lambda variances, delta: delta * np.sqrt(variances.sum()), "add up"),
        (lambda variances, delta: delta**2 * variances.sum() / 768, "squared steps"),
        (lambda variances, delta: np.sqrt(variances.sum() / 768), "squared steps"),
        (lambda variances, delta: delta * np.sqrt(variances.mean()), "768 pixel values"),
    ],
    "draw_residual": [
        (lambda denoise, x_hat, e, noise, levels: x_hat + e * levels[0] * noise, "with one level"),
        (lambda denoise, x_hat, e, noise, levels: my_draw(denoise, x_hat, e, noise, [1.0]), "with one level"),
        (without_the_end, "followed by 0"),
        (always_fresh_noise, "one step"),
    ],
    "texture_denoiser": [
        (white, "a weight of its own"),
        (lambda u, sigma, examples: u, "a weight of its own"),
        (lambda u, sigma, examples: my_texture_denoiser(u, 3 * sigma, examples), "a weight of its own"),
        (lambda u, sigma, examples: examples.mean(), "a weight of its own"),
    ],
}
