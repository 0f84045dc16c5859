"""Lesson: The diffusion hyperprior."""
