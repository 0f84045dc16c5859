"""Lesson: Scores and SDEs."""
