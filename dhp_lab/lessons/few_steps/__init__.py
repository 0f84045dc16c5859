"""Lesson: Flow matching, EDM, few steps."""
