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
def start_time() -> Iterator[Case]:
    """Return t* of a quantisation step: start_time(delta, latent_scale, log_alpha_bars), the last an array of
    log alpha_bar at t = 0, 1, ..., T.
    """
    halving = -math.log(2) * np.arange(6)  # sigma(t)^2 = 2^t - 1, so that t = log2(1 + sigma^2)
    spread = "a uniform error over one step has the variance Delta^2 / 12; here sigma is 1"
    yield Case({"delta": math.sqrt(12), "latent_scale": 1.0, "log_alpha_bars": halving}, 1.0, hint=spread)
    unit = "the schedule counts noise beside a signal of size 1: divide by the latents' scale"
    yield Case(
        {"delta": 4 * math.sqrt(12 * 3), "latent_scale": 4.0, "log_alpha_bars": halving}, 2.0, hint=unit
    )
    between = "between two integer times log alpha_bar is linear, not sigma: here 1 + sigma^2 is 2^1.5"
    delta = math.sqrt(12 * (2**1.5 - 1))
    yield Case({"delta": delta, "latent_scale": 1.0, "log_alpha_bars": halving}, 1.5, hint=between)
    other = "another schedule: read the times from the table that is given"
    uneven = -np.log(np.array([1.0, 2.0, 5.0, 17.0, 50.0]))  # sigma = 0, 1, 2, 4, 7
    yield Case({"delta": 4 * math.sqrt(12), "latent_scale": 1.0, "log_alpha_bars": uneven}, 3.0, hint=other)


class _PhotoSizes:
    """Bytes of a photo's file by lambda, a power law with a header; no more than ``calls`` of them."""

    def __init__(self, power: float, calls: int) -> None:
        self.power, self.calls = power, calls

    def __repr__(self) -> str:
        return f"a photo whose bytes fall as lambda^-{self.power:g}"

    def __call__(self, lambda_rate: float) -> int:
        if not 1e-5 <= lambda_rate <= 3e-2:
            raise ValueError(f"lambda must lie in 1e-5 .. 3e-2, got {lambda_rate:g}")
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("more than twelve files were encoded")
        return round(60 + 900 * (lambda_rate / 1e-3) ** -self.power)

    def lambda_of(self, size: float) -> float:
        """The closed form of the inverse."""
        return 1e-3 * ((size - 60) / 900) ** (-1 / self.power)


@exercise
def lambda_for() -> Iterator[Case]:
    """Return a lambda whose file has 98 % to 100 % of the target's bytes, by twelve encodings at most:
    lambda_for(size_of, target).
    """
    hints = {
        (0.6, 10_000): "halve an interval of log(lambda), where the curve is nearly straight",
        (0.6, 2_000): "files shrink as lambda grows: where the file is too large, lambda must rise",
        (0.45, 5_000): "the file must fit: take the end of the interval whose file is not too large",
        (0.9, 400): "another photo, another curve: encode and look",
    }
    for (power, target), hint in hints.items():
        sizes = _PhotoSizes(power, calls=12)
        least, most = sizes.lambda_of(target + 0.5), sizes.lambda_of(0.98 * target - 0.5)  # whole bytes
        middle, half = (least + most) / 2, (most - least) / 2
        yield Case({"size_of": sizes, "target": target}, middle, hint=hint, tolerance=half / middle)
