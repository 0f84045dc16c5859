"""Automatic checks for the lessons' exercises: `checks.<name>(my_function)` says whether the function is right."""

from dhp_lab.checks.lesson_00 import bits_per_pixel, psnr, quantisation_step
from dhp_lab.checks.machinery import CORRECT, NOT_ATTEMPTED, REGISTRY, WRONG, Case, Check, exercise

__all__ = [
    "CORRECT", "NOT_ATTEMPTED", "REGISTRY", "WRONG", "Case", "Check", "exercise",
    "bits_per_pixel", "psnr", "quantisation_step",
]  # fmt: skip
