"""Lesson: Where next."""
