"""The drawing of the U-Net holds what its configuration says."""

import pytest
from matplotlib.patches import FancyBboxPatch

from dhp_lab.diffusion.networks import UNetConfig
from dhp_lab.notebook.html import picture_bytes
from dhp_lab.notebook.unet_figure import unet_figure


def drawn(config: UNetConfig, side: int) -> tuple[list[str], int]:
    """All texts of the drawing, and how many boxes it has."""
    axes = unet_figure(config, side).get_axes()[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    return [text.get_text() for text in axes.texts if text.get_text()], len(boxes)


def test_each_level_has_its_width_and_resolution_twice():
    config = UNetConfig(channels=(16, 24, 32), blocks=2, attention_levels=(2,))
    texts, boxes = drawn(config, 32)
    assert boxes == 2 * 3 + 1 + 2
    assert texts.count("2 blocks\n16 × 32 × 32") == 2 and texts.count("2 blocks\n24 × 16 × 16") == 2
    assert texts.count("2 blocks, attention\n32 × 8 × 8") == 2
    assert texts.count("block, attention\n32 × 8 × 8") == 1  # in the middle
    assert (texts.count("skip"), texts.count("halve"), texts.count("double")) == (3, 2, 2)
    assert any("embedding of 64 numbers" in text for text in texts)
    assert not any("label" in text or "context" in text for text in texts)


def test_labels_and_context_are_named_where_there_are_some():
    config = UNetConfig(in_channels=3, classes=10, context_dim=12)
    texts, _ = drawn(config, 8)
    assert any("class label" in text for text in texts) and any("12 numbers" in text for text in texts)
    assert "state $x_t$\n3 × 8 × 8" in texts


def test_it_can_be_shown():
    assert picture_bytes(unet_figure(UNetConfig(channels=(8,), attention_levels=()), 5))


@pytest.mark.parametrize("side", [0, 10])
def test_a_side_that_cannot_be_halved_is_refused(side):
    with pytest.raises(ValueError, match=f"multiple of 4 for 3 levels, got {side}"):
        unet_figure(UNetConfig(channels=(8, 8, 8)), side)
