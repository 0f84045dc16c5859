"""Lesson: Evaluation."""
