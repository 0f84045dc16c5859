"""The exercises of the lesson on evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def mean_psnr() -> Iterator[Case]:
    """Return the mean of the PSNRs of several pictures, from their mean squared errors: mean_psnr(mses,
    peak).
    """
    one = "PSNR = 10 log10(peak^2 / MSE); the peak is squared, for MSE is a square"
    yield Case({"mses": np.array([1.0]), "peak": 255}, 20 * math.log10(255), hint=one)
    peak = "pixels from 0 to 1 have the peak 1: take the one that you are given, not always 255"
    yield Case({"mses": np.array([0.01, 0.01]), "peak": 1.0}, 20.0, hint=peak)
    order = (
        "first the PSNR of each picture, then the mean: 20 dB and 40 dB make 30 dB, as in published curves"
    )
    yield Case({"mses": np.array([1e-2, 1e-4]), "peak": 1.0}, 30.0, hint=order)
    yield Case({"mses": np.array([1.0, 10.0, 100.0]), "peak": 1000.0}, 50.0, hint=order)


@exercise
def ms_ssim_in_db() -> Iterator[Case]:
    """Return an MS-SSIM on the scale of decibels, -10 log10(1 - MS-SSIM), infinite at 1:
    ms_ssim_in_db(value).
    """
    ten = "0.9 is 0.1 away from 1, and that is 10 dB: ten decibels for each decimal place"
    yield Case({"value": 0.9}, 10.0, hint=ten)
    yield Case({"value": 0.999}, 30.0, hint="the distance from 1 counts, not the value itself")
    yield Case({"value": 0.5}, 10 * math.log10(2), hint="decibels go with the logarithm to base 10")
    yield Case({"value": 0.0}, 0.0, hint="nothing alike: 0 dB")
    yield Case({"value": 1.0}, math.inf, hint="equal pictures are infinitely good: return math.inf")


@exercise
def bd_rate_of_lines() -> Iterator[Case]:
    """Return the BD-rate in % of two lines log10(bpp) = a + b dB over low .. high dB:
    bd_rate_of_lines(anchor, test, low, high).
    """
    half = "the test line lies log10(2) below: half the bits at each quality, and that is -50 %"
    shifted = {"anchor": (-3.0, 0.1), "test": (-3.0 - math.log10(2), 0.1), "low": 25.0, "high": 35.0}
    yield Case(shifted, -50.0, hint=half)
    double = "the anchor is what the test is compared with: twice its bits are +100 %"
    yield Case(shifted | {"anchor": shifted["test"], "test": shifted["anchor"]}, 100.0, hint=double)
    mean = (
        "average the logarithms first, then turn them into %; the mean of "
        "a straight line is its value in the middle"
    )
    crossing = {"anchor": (-3.0, 0.1), "test": (-2.7, 0.09), "low": 20.0, "high": 40.0}
    yield Case(crossing, 0.0, hint="the lines cross in the middle: what is lost below is won above; " + mean)
    yield Case(crossing | {"low": 30.0}, 100 * (10**-0.05 - 1), hint=mean)


@exercise
def blended_mse() -> Iterator[Case]:
    """Return the error of a blend of the mean (weight gamma) and a sample: blended_mse(mse_mean, mse_sample,
    gamma).
    """
    yield Case({"mse_mean": 2.0, "mse_sample": 6.0, "gamma": 1.0}, 2.0, hint="gamma = 1 is the mean itself")
    yield Case({"mse_mean": 2.0, "mse_sample": 6.0, "gamma": 0.0}, 6.0, hint="gamma = 0 is the sample itself")
    square = "the sample's own part of the error is scaled by 1 - gamma, so its square by (1 - gamma)^2"
    yield Case({"mse_mean": 2.0, "mse_sample": 6.0, "gamma": 0.5}, 3.0, hint=square)
    x, mean, sample = np.random.default_rng(0).standard_normal((3, 200_000)) * np.array([[1.0], [0.0], [1.0]])
    errors = [float(((guess - x) ** 2).mean()) for guess in (mean, sample, 0.75 * mean + 0.25 * sample)]
    measured = "measured on 200 000 numbers: x and its sample are standard normal, and the mean is 0"
    yield Case(
        {"mse_mean": errors[0], "mse_sample": errors[1], "gamma": 0.75},
        errors[2],
        hint=measured,
        tolerance=5e-3,
    )
