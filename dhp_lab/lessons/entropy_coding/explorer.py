"""The explorer of the lesson on entropy coding."""

from __future__ import annotations

from dhp_lab.lessons.entropy_coding import figures
from dhp_lab.notebook.sliders import Explorer, Slider


def explore() -> Explorer:
    """A source, a model of another scale, and the precision of its table: entropy, cross-entropy, bytes."""
    low, high = figures.SCALE_LOW, figures.SCALE_HIGH
    return Explorer(
        figures.Mismatch().render,
        [
            Slider("true_scale", "source", low, high, 0.05, 1.0, unit="its scale", log=True),
            Slider("model_scale", "model", low, high, 0.05, 2.0, unit="its scale", log=True),
            Slider("precision", "precision", 7, 16, 1, 16, unit="bits of the table's whole numbers"),
        ],
        size=figures.SIZE,
    )
