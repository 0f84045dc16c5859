"""Lesson 06: right answers to its exercises, and wrong ones."""

import numpy as np


def softmax(scores, axis=-1):
    weights = np.exp(scores - scores.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def my_nearest_code(z, codes):
    return ((z[:, None] - codes) ** 2).sum(-1).argmin(1)


def my_cross_attention(q, k, v):
    return softmax(q @ k.T / np.sqrt(k.shape[1])) @ v


def overflowing(q, k, v):
    weights = np.exp(q @ k.T / np.sqrt(k.shape[1]))
    return weights / weights.sum(1, keepdims=True) @ v


def my_fitted_codebook(z, K):
    codes = np.quantile(z, (np.arange(K) + 0.5) / K)
    for _ in range(1000):
        nearest = np.abs(z[:, None] - codes).argmin(1)
        codes = np.array([z[nearest == k].mean() if (nearest == k).any() else codes[k] for k in range(K)])
    return np.sort(codes)


def codebook_from_a_grid(z, K):
    codes = np.linspace(z.min(), z.max(), K)
    for _ in range(1000):
        nearest = np.abs(z[:, None] - codes).argmin(1)
        codes = np.array([z[nearest == k].mean() if (nearest == k).any() else codes[k] for k in range(K)])
    return np.sort(codes)


RIGHT = {
    "nearest_code": my_nearest_code,
    "cross_attention": my_cross_attention,
    "fitted_codebook": my_fitted_codebook,
}

MISTAKES = {
    "nearest_code": [
        (lambda z, codes: (z @ codes.T).argmax(1), "largest product"),
        (lambda z, codes: ((z[:, None] - codes) ** 2).sum(-1).argmax(1), "compare distances"),
        (lambda z, codes: codes[my_nearest_code(z, codes)], "expected: "),
        (lambda z, codes: ((z[:, None] - codes) ** 2).sum(-1).argmin(0), "expected: "),
        (lambda z, codes: (z[:, None] - codes).sum(-1).argmin(1), "compare distances"),
        (lambda z, codes: np.abs(z[:, None] - codes).max(-1).argmin(1), "Euclid"),
        (lambda z, codes: np.abs(z[:, None] - codes).sum(-1).argmin(1), "Euclid"),
        (lambda z, codes: ((z - codes) ** 2).sum(-1).argmin(), "ValueError"),
    ],
    "cross_attention": [
        (lambda q, k, v: q @ k.T / np.sqrt(k.shape[1]) @ v, "add up to 1"),
        (lambda q, k, v: softmax(q @ k.T / np.sqrt(k.shape[1]), axis=0) @ v, "runs over the words"),
        (lambda q, k, v: softmax(q @ k.T) @ v, "square root of d"),
        (lambda q, k, v: softmax(q @ k.T / k.shape[1]) @ v, "square root of d"),
        (lambda q, k, v: softmax(q @ k.T / np.sqrt(v.shape[1])) @ v, "square root of d"),
        (lambda q, k, v: softmax(q @ k.T / np.sqrt(k.shape[1])), "expected: "),
        (overflowing, "subtract the greatest score"),
    ],
    "fitted_codebook": [
        (lambda z, K: np.linspace(z.min(), z.max(), K), "the mean of the latents nearest"),
        (codebook_from_a_grid, "a code that no latent is nearest to"),
        (lambda z, K: my_fitted_codebook(z, K)[::-1], "expected: "),
        (
            lambda z, K: (
                my_fitted_codebook(z, K) if len(z) < 100 else np.quantile(z, (np.arange(K) + 0.5) / K)
            ),
            "0.1175",
        ),
    ],
}
