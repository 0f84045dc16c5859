"""Lesson: Measuring pictures."""
