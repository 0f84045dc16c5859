"""Lesson 13: right answers to its exercises, and wrong ones."""

import numpy as np
from scipy.stats import gmean


def my_noise_left(keep, add):
    after = np.append(np.cumprod(keep[::-1])[::-1], 1.0)  # the product of keep from each step on
    return add * after[1:]


def errors_by_motion(frame, reference, reach, size_matters=False):
    rows, cols = frame.shape
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            r, c = (
                slice(max(0, -down), min(rows, rows - down)),
                slice(max(0, -right), min(cols, cols - right)),
            )
            there = reference[r.start + down : r.stop + down, c.start + right : c.stop + right]
            error = (frame[r, c] - there) ** 2
            yield error.sum() if size_matters else error.mean(), (down, right)


def my_best_shift(frame, reference, reach):
    return min(errors_by_motion(frame, reference, reach))[1]


def away(frame, reference, reach):
    return tuple(-step for step in my_best_shift(frame, reference, reach))


def smallest_sum(frame, reference, reach):
    return min(errors_by_motion(frame, reference, reach, size_matters=True))[1]


RIGHT = {
    "noise_left": my_noise_left,
    "block_lambdas": lambda lambda_rate, weights: lambda_rate * gmean(weights, axis=None) / weights,
    "best_shift": my_best_shift,
}

MISTAKES = {
    "noise_left": [
        (lambda keep, add: keep * add, "is what is left"),
        (lambda keep, add: add, "every later step"),
        (lambda keep, add: add * np.cumprod(keep[::-1])[::-1], "is what is left"),
        (lambda keep, add: add * np.append(keep[1:], 1.0), "both multiply it"),
        (lambda keep, add: add * np.prod(keep) / np.cumprod(keep), "divides nothing"),
    ],
    "block_lambdas": [
        (lambda lambda_rate, weights: lambda_rate / weights, "keeps lambda_rate"),
        (lambda lambda_rate, weights: lambda_rate * weights / gmean(weights, axis=None), "want lambda / w"),
        (lambda lambda_rate, weights: lambda_rate * weights.mean() / weights, "geometric mean"),
        (
            lambda lambda_rate, weights: lambda_rate * np.sqrt(gmean(weights, axis=None) / weights),
            "want lambda / w",
        ),
        (
            lambda lambda_rate, weights: lambda_rate * np.sqrt(weights.max() * weights.min()) / weights,
            "log(lambda)",
        ),
        (lambda lambda_rate, weights: lambda_rate * gmean(weights) / weights, "one mean over all blocks"),
    ],
    "best_shift": [
        (lambda frame, reference, reach: (reach, reach), "is (0, 0)"),
        (away, "mind the sign"),
        (lambda *arguments: my_best_shift(*arguments)[::-1], "mind the sign"),
        (lambda frame, reference, reach: (my_best_shift(frame, reference, reach)[0], 0), "further right"),
        (smallest_sum, "means over the overlap"),
    ],
}
