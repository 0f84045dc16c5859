"""The exercises of the first lesson."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def bits_per_pixel() -> Iterator[Case]:
    """Return the bits of a file for each pixel of its picture: bits_per_pixel(num_bytes, height, width)."""
    yield Case(
        {"num_bytes": 32, "height": 16, "width": 16},
        1.0,
        hint="a byte has 8 bits, and there are 16 x 16 pixels",
    )
    yield Case(
        {"num_bytes": 24_576, "height": 512, "width": 768}, 0.5, hint="a picture has height x width pixels"
    )
    yield Case(
        {"num_bytes": 3, "height": 7, "width": 5}, 24 / 35, hint="divide with /, // drops the fraction"
    )
    colour = "three colours do not make three pixels: 24-bit colour is 24 bits per pixel"
    yield Case({"num_bytes": 3 * 480 * 640, "height": 480, "width": 640}, 24.0, hint=colour)


@exercise
def psnr() -> Iterator[Case]:
    """Return the PSNR of two 8-bit pictures in dB, 10 log10(255^2 / MSE): psnr(a, b), infinite for equal
    ones.
    """
    grey = np.full((4, 6, 3), 100, np.uint8)
    yield Case(
        {"a": grey, "b": grey + np.uint8(1)}, 20 * math.log10(255), hint="the peak is 255, the MSE here is 1"
    )
    wraps = "uint8 wraps around: 100 - 200 gives 156; turn the pictures into floats before you subtract"
    yield Case({"a": grey, "b": grey + np.uint8(100)}, 20 * math.log10(2.55), hint=wraps)
    half = np.array([[0, 0], [255, 0]], np.uint8)
    mean = "average the squared differences over all values, then take the logarithm"
    yield Case({"a": np.zeros((2, 2), np.uint8), "b": half}, 10 * math.log10(4), hint=mean)
    yield Case({"a": grey, "b": grey}, math.inf, hint="equal pictures have no error: return math.inf")


@exercise
def quantisation_step() -> Iterator[Case]:
    """Return the step Delta whose rounding error has standard deviation sigma: quantisation_step(sigma)."""
    spread = "an error spread evenly over one step has the variance Delta^2 / 12"
    yield Case({"sigma": 1 / math.sqrt(12)}, 1.0, hint=spread)
    yield Case({"sigma": 3.0}, 10.392305, hint="twice the error needs twice the step")
    values = np.random.default_rng(0).normal(0.0, 5.0, 100_000)
    error = np.round(values / 0.25) * 0.25 - values
    measured = "sigma was measured here: 100 000 values rounded to multiples of Delta"
    yield Case({"sigma": float(error.std())}, 0.25, hint=measured, tolerance=0.01)
