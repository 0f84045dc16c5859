"""Lesson: Latent diffusion."""
