"""Lesson 00: right answers to its exercises, and wrong ones."""

import math

import numpy as np


def float_psnr(a, b):
    mse = np.mean((a.astype(np.float64) - b) ** 2)
    return 10 * np.log10(255**2 / mse) if mse else math.inf


RIGHT = {
    "bits_per_pixel": lambda num_bytes, height, width: 8 * num_bytes / (height * width),
    "psnr": float_psnr,
    "quantisation_step": lambda sigma: sigma * math.sqrt(12),
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
    "quantisation_step": [
        (lambda sigma: sigma / math.sqrt(12), "variance"),
        (lambda sigma: math.sqrt(12 * sigma), "variance"),
        (lambda sigma: 1.0, "twice the step"),
        (lambda sigma: 0.2 if sigma < 0.1 else sigma * math.sqrt(12), "measured"),
    ],
}
