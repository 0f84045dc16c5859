"""Lesson: The scale hyperprior."""
