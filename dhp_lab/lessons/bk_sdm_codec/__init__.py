"""Lesson: A codec around BK-SDM."""
