"""Controls reach render, positions are cached, errors are loud."""

import io

import ipywidgets as widgets
import pytest
from PIL import Image

from dhp_lab.notebook.html import Rendered
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


DOT = png(Image.new("RGB", (8, 8), "red"))


def slider_of(control):
    return control.row.children[0]


class Recorder:
    """A render function that remembers the positions it drew."""

    def __init__(self):
        self.positions = []

    def __call__(self, **position):
        self.positions.append(position)
        return Rendered(DOT, f"a dot at {position}", f"text for {sorted(position.items())}")


# Controls


def test_slider_and_box_follow_each_other():
    control = Slider("amount", "amount", 0.0, 1.0, 0.1, 0.5, unit="%")
    slider, box, unit = control.row.children
    slider.value = 0.7
    assert box.value == 0.7
    box.value = 0.25
    assert slider.value == 0.25
    assert (slider.description, unit.value) == ("amount", "%")
    assert not slider.continuous_update and not slider.readout


def test_whole_numbers_stay_whole():
    control = Slider("steps", "steps", 0, 8, 1, 1)
    slider_of(control).value = 3
    assert (control.holder.value, type(control.holder.value)) == (3, int)
    assert isinstance(slider_of(control), widgets.IntSlider)


def test_logarithmic_positions_are_rounded_to_three_digits():
    control = Slider("rate", "rate", 1e-5, 1e-2, 0.1, 1e-3, log=True)
    slider_of(control).value = 10**-2.9
    assert control.holder.value == slider_of(control).value == 0.00126
    for end in (1e-5, 1e-2):
        control.holder.value = end
        assert slider_of(control).value == pytest.approx(end, rel=1e-12) and control.holder.value == end


def test_a_number_beyond_the_ends_is_moved_to_the_end():
    control = Slider("rate", "rate", 1e-5, 1e-2, 0.1, 1e-3, log=True)
    control.holder.value = 5.0
    assert control.holder.value == 1e-2


# Explorer


def test_controls_reach_render_once_for_each_move():
    render, rate = Recorder(), Slider("rate", "rate", 1e-5, 1e-2, 0.1, 1e-3, log=True)
    steps, photo = Slider("steps", "steps", 0, 8, 1, 1), Dropdown("photo", "photo", ["cat", "cup"])
    explorer = Explorer(render, [rate, steps, photo], size=(100, 100))
    slider_of(rate).value = 10**-2.5
    slider_of(steps).value = 4
    photo.holder.value = "cup"
    rate.holder.value = 0.001
    assert render.positions == [
        {"rate": 0.001, "steps": 1, "photo": "cat"},
        {"rate": 0.00316, "steps": 1, "photo": "cat"},
        {"rate": 0.00316, "steps": 4, "photo": "cat"},
        {"rate": 0.00316, "steps": 4, "photo": "cup"},
        {"rate": 0.001, "steps": 4, "photo": "cup"},
    ]
    assert explorer.position() == render.positions[-1]


def test_positions_seen_before_come_from_the_cache():
    render, steps = Recorder(), Slider("steps", "steps", 0, 8, 1, 1)
    explorer = Explorer(render, [steps], size=(100, 100))
    first = explorer.render(steps=1)
    for value in (2, 1, 2, 1):
        slider_of(steps).value = value
    assert len(render.positions) == 2
    assert explorer.render(steps=1) is first


def test_what_a_page_and_the_browser_test_look_for():
    control = Slider("steps", "steps", 0, 8, 1, 1)
    explorer = Explorer(Recorder(), [control, Dropdown("photo", "photo", ["cat"])], size=(321, 123))
    assert "dhp-explorer" in explorer._dom_classes and "dhp-text" in explorer.text._dom_classes
    assert "dhp-slider" in slider_of(control)._dom_classes
    assert '<img class="dhp-picture" alt="a dot at {' in explorer.picture.value
    assert "max-width: 321px; aspect-ratio: 321/123" in explorer.picture.value
    assert explorer.text.value == "text for [('photo', 'cat'), ('steps', 1)]"


def test_the_still_is_the_first_position():
    control = Slider("steps", "steps", 0, 8, 1, 1)
    explorer = Explorer(Recorder(), [control], size=(100, 100))
    slider_of(control).value = 5
    text = explorer.still().text
    assert "text for [('steps', 1)]" in text and 'alt="a dot at {' in text and "image/webp" in text


def test_an_error_is_shown_and_raised():
    def render(*, steps):
        if steps == 3:
            raise RuntimeError("no <third> step")
        return Rendered(DOT, "a dot", "fine")

    control = Slider("steps", "steps", 0, 8, 1, 1)
    explorer = Explorer(render, [control], size=(100, 100))
    with pytest.raises(RuntimeError, match="no <third> step"):
        slider_of(control).value = 3
    assert explorer.text.value == "<b>RuntimeError: no &lt;third&gt; step</b>"
    slider_of(control).value = 4
    assert explorer.text.value == "fine"


def test_an_error_at_the_first_position_is_raised():
    with pytest.raises(ZeroDivisionError):
        Explorer(lambda *, steps: 1 // 0, [Slider("steps", "steps", 0, 8, 1, 1)], size=(100, 100))
