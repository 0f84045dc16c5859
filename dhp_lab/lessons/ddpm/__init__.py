"""Lesson: DDPM."""
