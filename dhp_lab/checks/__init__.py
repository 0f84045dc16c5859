"""Automatic checks for the lessons' exercises: `checks.<name>(my_function)` says whether the function is right."""

from dhp_lab.checks.lesson_00 import bits_per_pixel, psnr, quantisation_step
from dhp_lab.checks.lesson_01 import cosine_share, gaussian_kl, guess_x0
from dhp_lab.checks.lesson_02 import noise_kept, slerp, step_up
from dhp_lab.checks.lesson_03 import implicit_score_matching, noisy_score, reverse_step
from dhp_lab.checks.lesson_04 import drop_labels, implied_gradient, sharpened
from dhp_lab.checks.lesson_05 import cross_attention, inception_score, nearest_code
from dhp_lab.checks.lesson_06 import cross_entropy, latent_bits, pop
from dhp_lab.checks.lesson_07 import bin_mean, one_step_guess, time_of_step
from dhp_lab.checks.lesson_08 import bd_rate_of_lines, blended_mse, mean_psnr, ms_ssim_in_db
from dhp_lab.checks.lesson_09 import averaged, clean_from_v, latent_step
from dhp_lab.checks.lesson_10 import best_shift, block_lambdas, noise_left
from dhp_lab.checks.machinery import CORRECT, NOT_ATTEMPTED, REGISTRY, WRONG, Case, Check, exercise

__all__ = [
    "CORRECT", "NOT_ATTEMPTED", "REGISTRY", "WRONG", "Case", "Check", "exercise",
    "bits_per_pixel", "psnr", "quantisation_step",
    "cosine_share", "gaussian_kl", "guess_x0",
    "noise_kept", "slerp", "step_up",
    "implicit_score_matching", "noisy_score", "reverse_step",
    "drop_labels", "implied_gradient", "sharpened",
    "cross_attention", "inception_score", "nearest_code",
    "cross_entropy", "latent_bits", "pop",
    "bin_mean", "one_step_guess", "time_of_step",
    "bd_rate_of_lines", "blended_mse", "mean_psnr", "ms_ssim_in_db",
    "averaged", "clean_from_v", "latent_step",
    "best_shift", "block_lambdas", "noise_left",
]  # fmt: skip
