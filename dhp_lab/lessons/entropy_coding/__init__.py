"""Lesson: Entropy coding."""
