"""Lesson 13: right answers to its exercises, and wrong ones."""

import numpy as np
from scipy.stats import gmean


def scores(z, times, mean, std, *, prior=1.0, arrivals=1.0):
    return arrivals * np.log(times) + ((z - mean) / std) ** 2 / 2 - prior * z**2 / 2


def my_chosen_candidate(z, times, mean, std):
    return int(np.argmin(scores(z, times, mean, std))) + 1


def in_floats(z, times, mean, std):
    ratio = np.exp(-(z**2) / 2) / np.exp(-(((z - mean) / std) ** 2) / 2)
    return int(np.argmin(times * ratio)) + 1


def my_block_motion(frame, reference, block, reach):
    rows, cols = frame.shape
    wide = np.pad(reference, reach, mode="edge")
    steps = range(-reach, reach + 1)
    motions = np.array([(down, right) for down in steps for right in steps])
    moved = np.stack([wide[reach + d :, reach + r :][:rows, :cols] for d, r in motions])
    blocks = ((frame - moved) ** 2).reshape(len(motions), rows // block, block, cols // block, block)
    return motions[blocks.sum((2, 4)).argmin(0)]


def one_motion(frame, reference, block, reach):
    best = my_block_motion(frame, reference, len(frame), reach)
    return np.tile(best, (len(frame) // block, len(frame) // block, 1))


RIGHT = {
    "block_lambdas": lambda lambda_rate, weights: lambda_rate * gmean(weights, axis=None) / weights,
    "chosen_candidate": my_chosen_candidate,
    "block_motion": my_block_motion,
}

MISTAKES = {
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
    "chosen_candidate": [
        (lambda *given: my_chosen_candidate(*given) - 1, "its number is 1"),
        (lambda z, times, mean, std: len(z), "the first arrival wins"),
        (lambda z, times, mean, std: int(np.argmin(times)) + 1, "far likelier under q"),
        (lambda *given: int(np.argmin(scores(*given, arrivals=0))) + 1, "the first arrival wins"),
        (
            lambda z, times, mean, std: 2 if mean == 2 else my_chosen_candidate(z, times, mean, std),
            "too late",
        ),
        (lambda *given: int(np.argmin(scores(*given, prior=0))) + 1, "q/p, and not q alone"),
        (in_floats, "logarithms"),
    ],
    "block_motion": [
        (lambda frame, reference, block, reach: (0, 0), "try all motions"),
        (one_motion, "for each block"),
        (lambda *given: -my_block_motion(*given), "reference[y + down, x + right]"),
        (lambda *given: my_block_motion(*given)[..., ::-1].copy(), "reference[y + down, x + right]"),
    ],
}
