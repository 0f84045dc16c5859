"""Lesson 00: right answers to its exercises, and wrong ones."""

import math

import numpy as np


def float_psnr(a, b):
    mse = np.mean((a.astype(np.float64) - b) ** 2)
    return 10 * np.log10(255**2 / mse) if mse else math.inf


def start_time(delta, latent_scale, log_alpha_bars):
    sigma = delta / math.sqrt(12) / latent_scale
    return np.interp(math.log1p(sigma**2), -log_alpha_bars, np.arange(len(log_alpha_bars)))


def lambda_for(size_of, target, log=math.log, exp=math.exp, calls=11, enough=0.98):
    low, high = log(1e-5), log(3e-2)
    for _ in range(calls):
        middle = (low + high) / 2
        size = size_of(exp(middle))
        if size > target:
            low = middle
        else:
            high = middle
        if enough * target <= size <= target:
            return exp(middle)
    return exp(high)


def wrong_way(size_of, target):
    return lambda_for(lambda rate: 2 * target - size_of(rate), target)


def too_large(size_of, target):
    return lambda_for(size_of, 1.02 * target)


def of_one_photo(size_of, target):
    return lambda_for(size_of, target) if size_of.power < 0.8 else 1e-3


RIGHT = {
    "bits_per_pixel": lambda num_bytes, height, width: 8 * num_bytes / (height * width),
    "psnr": float_psnr,
    "start_time": start_time,
    "lambda_for": lambda_for,
}

MISTAKES = {
    "bits_per_pixel": [
        (lambda n, h, w: n / (h * w), "8 bits"),
        (lambda n, h, w: 8 * n, "16 x 16 pixels"),
        (lambda n, h, w: 8 * n // (h * w), "expected: 0.5"),
        (lambda n, h, w: round(8 * n / (h * w), 1), "drops the fraction"),
        (lambda n, h, w: 8 * n / (h * h), "num_bytes=24576, height=512, width=768"),
        (lambda n, h, w: min(8.0, 8 * n / (h * w)), "three colours"),
        (lambda n, h: 8 * n / h, "TypeError"),
    ],
    "psnr": [
        (lambda a, b: 10 * np.log10(1 / np.mean((a.astype(float) - b) ** 2)), "peak is 255"),
        (lambda a, b: 10 * np.log10(255**2 / np.mean((a - b) ** 2)), "wraps around"),
        (lambda a, b: 20 * np.log10(255 / np.mean(np.abs(a.astype(float) - b))), "squared differences"),
        (
            lambda a, b: 10 * math.log10(255**2 / float(np.mean((a.astype(float) - b) ** 2))),
            "ZeroDivisionError",
        ),
        (lambda a, b: min(float_psnr(a, b), 100.0), "math.inf"),
    ],
    "start_time": [
        (lambda d, s, table: start_time(d * math.sqrt(12), s, table), "variance Delta^2 / 12"),
        (lambda d, s, table: start_time(d, 1.0, table), "signal of size 1"),
        (lambda d, s, table: float(round(start_time(d, s, table))), "linear, not sigma"),
        (
            lambda d, s, table: np.interp(
                d / math.sqrt(12) / s, np.sqrt(np.expm1(-table)), np.arange(len(table))
            ),
            "linear, not sigma",
        ),
        (lambda d, s, table: math.log2(1 + d**2 / 12 / s**2), "another schedule"),
        (lambda d, s: 1.0, "TypeError"),
    ],
    "lambda_for": [
        (lambda size_of, target: lambda_for(size_of, target, log=float, exp=float), "halve an interval"),
        (wrong_way, "expected: "),
        (too_large, "expected: "),
        (lambda size_of, target: lambda_for(size_of, target, calls=60, enough=2.0), "more than twelve"),
        (of_one_photo, "another curve"),
    ],
}
