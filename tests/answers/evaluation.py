"""Lesson 11: right answers to its exercises, and wrong ones."""

import math

import numpy as np


def my_mean_psnr(mses, peak):
    return np.mean(10 * np.log10(peak**2 / mses))


def my_ms_ssim_in_db(value):
    return math.inf if value == 1 else -10 * math.log10(1 - value)


def my_bd_rate_of_lines(anchor, test, low, high):
    middle = (low + high) / 2
    return 100 * (10 ** (test[0] + test[1] * middle - anchor[0] - anchor[1] * middle) - 1)


def mean_of_percents(anchor, test, low, high):
    db = np.linspace(low, high, 1001)
    return np.mean(100 * (10 ** (test[0] + test[1] * db - anchor[0] - anchor[1] * db) - 1))


def my_blended_mse(mse_mean, mse_sample, gamma):
    return mse_mean + (1 - gamma) ** 2 * (mse_sample - mse_mean)


RIGHT = {
    "mean_psnr": my_mean_psnr,
    "ms_ssim_in_db": my_ms_ssim_in_db,
    "bd_rate_of_lines": my_bd_rate_of_lines,
    "blended_mse": my_blended_mse,
}

MISTAKES = {
    "mean_psnr": [
        (lambda mses, peak: np.mean(10 * np.log10(peak / mses)), "the peak is squared"),
        (lambda mses, peak: np.mean(20 * np.log10(peak**2 / mses)), "the peak is squared"),
        (lambda mses, peak: np.mean(10 * np.log10(255**2 / mses)), "have the peak 1"),
        (lambda mses, peak: 10 * np.log10(peak**2 / np.mean(mses)), "first the PSNR of each picture"),
        (lambda mses, peak: 10 * np.log10(peak**2 / mses), "the peak is squared"),
        (lambda mses, peak: np.median(10 * np.log10(peak**2 / mses[:2])), "then the mean"),
    ],
    "ms_ssim_in_db": [
        (lambda value: -10 * math.log10(value), "0.1 away from 1"),
        (lambda value: 10 * math.log10(1 - value), "0.1 away from 1"),
        (lambda value: 100 * (value - 0.8), "the distance from 1"),
        (lambda value: -10 * math.log10(1 - value), "ValueError"),
        (lambda value: 40 if value == 1 else -10 * math.log10(1 - value), "return math.inf"),
        (lambda value: -10 * math.log(1 - value), "ten decibels for each"),
    ],
    "bd_rate_of_lines": [
        (lambda anchor, test, low, high: my_bd_rate_of_lines(test, anchor, low, high), "-50 %"),
        (lambda anchor, test, low, high: -50 if anchor[0] != test[0] else 0, "twice its bits"),
        (lambda anchor, test, low, high: test[0] - anchor[0], "half the bits"),
        (lambda anchor, test, low, high: 10 ** (test[0] - anchor[0]) - 1, "half the bits"),
        (lambda anchor, test, low, high: 100 * (10 ** (test[0] - anchor[0]) - 1), "in the middle"),
        (mean_of_percents, "average the logarithms first"),
        (lambda anchor, test, low, high: my_bd_rate_of_lines(anchor, test, 0, high), "in the middle"),
    ],
    "blended_mse": [
        (
            lambda mse_mean, mse_sample, gamma: mse_mean + gamma**2 * (mse_sample - mse_mean),
            "the mean itself",
        ),
        (lambda mse_mean, mse_sample, gamma: gamma * mse_mean + (1 - gamma) * mse_sample, "(1 - gamma)^2"),
        (
            lambda mse_mean, mse_sample, gamma: gamma**2 * mse_mean + (1 - gamma) ** 2 * mse_sample,
            "(1 - gamma)^2",
        ),
        (lambda mse_mean, mse_sample, gamma: mse_mean, "the sample itself"),
        (
            lambda mse_mean, mse_sample, gamma: round(my_blended_mse(mse_mean, mse_sample, gamma)),
            "200 000 numbers",
        ),
    ],
}
