"""Lesson 07: right answers to its exercises, and wrong ones."""

import numpy as np
import torch

from dhp_lab.metrics.feature_distances import frechet_distance


def my_psnr_of_noise(levels):
    return 20 * np.log10(255 / levels)


def kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def my_unbiased_kid(x, y):
    def within(z):
        k, n = kernel(z, z), len(z)
        return (k.sum() - np.trace(k)) / (n * (n - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


def biased_kid(x, y):
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()


def kid_of_sums(x, y):
    def within(z):
        k = (z @ z.T + 1) ** 3
        return (k.sum() - np.trace(k)) / (len(z) * (len(z) - 1))

    return within(x) + within(y) - 2 * ((x @ y.T + 1) ** 3).mean()


def kid_of_one_size(x, y):
    n = min(len(x), len(y))
    return my_unbiased_kid(x[:n], y[:n])


def entropy(p):
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), axis=-1)


def my_inception_score(p):
    return np.exp(entropy(p.mean(0)) - entropy(p).mean())


def my_fid_without_bias(a, b):
    generator, halves = torch.Generator().manual_seed(0), []
    for _ in range(8):
        order = torch.randperm(len(a), generator=generator)
        for half in order.chunk(2):
            halves.append(frechet_distance(a[half], b[half]))
    return 2 * frechet_distance(a, b) - sum(halves) / len(halves)


def fid_of_white_features(a, b):
    n, d = a.shape
    return frechet_distance(a, b) - d * (d + 5) / (2 * n)


RIGHT = {
    "psnr_of_noise": my_psnr_of_noise,
    "unbiased_kid": my_unbiased_kid,
    "inception_score": my_inception_score,
    "fid_without_bias": my_fid_without_bias,
}

MISTAKES = {
    "psnr_of_noise": [
        (lambda levels: 10 * np.log10(255 / levels), "20 dB"),
        (lambda levels: 20 * np.log(255 / levels), "20 dB"),
        (lambda levels: 20 * np.log10(levels / 255), "20 dB"),
        (lambda levels: -20 * np.log10(levels), "0 dB"),
        (lambda levels: 10 * np.log10(255**2 / levels), "0 dB"),
    ],
    "unbiased_kid": [
        (biased_kid, "may be negative"),
        (lambda x, y: abs(my_unbiased_kid(x, y)), "may be negative"),
        (kid_of_sums, "divide the product by d"),
        (lambda x, y: my_unbiased_kid(x, y) + kernel(x, y).mean(), "a feature with itself"),
        (lambda x, y: kernel(x, x).sum() / (len(x) * (len(x) - 1)), "a feature with itself"),
    ],
    "inception_score": [
        (lambda p: np.exp(-(p.mean(0) * np.log(p.mean(0))).sum() + (p * np.log(p)).sum(1).mean()), "0 log 0"),
        (lambda p: entropy(p.mean(0)) - entropy(p).mean(), "the score is 1"),
        (lambda p: np.exp(entropy(p.mean(0))), "subtract the mean entropy"),
        (lambda p: np.exp(entropy(p).mean() - entropy(p.mean(0))), "entropy of the mean"),
        (lambda p: np.exp(entropy(p.mean(1)) - entropy(p).mean()), "expected: "),
        (lambda p: np.exp((entropy(p.mean(0)) - entropy(p).mean()) / np.log(2)), "entropy of the mean"),
        (lambda p: 2 ** (entropy(p.mean(0)) - entropy(p).mean()), "entropy of the mean"),
        (
            lambda p: my_inception_score(np.round(p)) if p.max() > 0.5 else my_inception_score(p),
            "natural logarithm",
        ),
    ],
    "fid_without_bias": [
        (frechet_distance, "the distance 0"),
        (lambda a, b: 0.0, "Only the bias"),
        (lambda a, b: max(0.0, frechet_distance(a[:200], b[:200]) - 2.9), "expected: "),
        (fid_of_white_features, "different variances"),
    ],
}
