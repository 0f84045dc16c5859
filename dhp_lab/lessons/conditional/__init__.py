"""Lesson: Conditional diffusion."""
