"""Codecs measured on pictures: ours, the classical ones, and the published curves."""
