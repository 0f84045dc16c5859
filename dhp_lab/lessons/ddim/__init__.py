"""Lesson: DDIM."""
