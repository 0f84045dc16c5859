"""Lesson 06: right answers to its exercises, and wrong ones."""

import numpy as np


def softmax(scores, axis=-1):
    weights = np.exp(scores - scores.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def my_nearest_code(z, codes):
    return ((z[:, None] - codes) ** 2).sum(-1).argmin(1)


def my_cross_attention(q, k, v):
    return softmax(q @ k.T / np.sqrt(k.shape[1])) @ v


def entropy(p):
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), axis=-1)


def my_inception_score(p):
    return np.exp(entropy(p.mean(0)) - entropy(p).mean())


def overflowing(q, k, v):
    weights = np.exp(q @ k.T / np.sqrt(k.shape[1]))
    return weights / weights.sum(1, keepdims=True) @ v


RIGHT = {
    "nearest_code": my_nearest_code,
    "cross_attention": my_cross_attention,
    "inception_score": my_inception_score,
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
}
