"""Which is the photo? A detail of a photo and of what our file gives back, side by side in random order.

A two-alternative forced choice: whoever cannot see a difference is right half of the time. A codec whose
pictures cannot be told from photos has a score of one half, whatever its PSNR.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

import numpy as np
from torch import Tensor

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS
from dhp_lab.notebook.html import Rendered, picture_bytes
from dhp_lab.notebook.photo_codec import PhotoCodec
from dhp_lab.notebook.photo_figures import photos_figure
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, lambda_slider

DETAIL = 160  # pixels: the side of a detail
ZOOM = 2
NOT_YET, LEFT, RIGHT = "?", "left", "right"
CLASS = "dhp-quiz"  # of the page's element: a lesson has one explorer, and this one beside it


@dataclass(frozen=True)
class Trial:
    """One question.

    Attributes:
        photo: a name of ``PHOTOS``.
        down, across: where the detail lies, as parts of what is left of the picture's sides, 0 .. 1.
        answer: the side of the photo, LEFT or RIGHT.
    """

    photo: str
    down: float
    across: float
    answer: str


def trial(number: int) -> Trial:
    """The question of this number; the same number gives the same question."""
    draw = random.Random(number)  # noqa: S311  (what a reader is asked needs no secrecy)
    return Trial(draw.choice(PHOTOS), draw.random(), draw.random(), draw.choice((LEFT, RIGHT)))


def chance_of_guessing(right: int, asked: int) -> float:
    """The probability that someone who guesses has at least ``right`` of ``asked`` answers right.

    The upper tail of the binomial distribution with p = 1/2.

    Raises:
        ValueError: not 0 <= right <= asked.
    """
    if not 0 <= right <= asked:
        raise ValueError(f"right must lie in 0 .. {asked}, got {right}")
    return sum(comb(asked, count) for count in range(right, asked + 1)) / 2**asked


def score_text(answers: Mapping[tuple, bool]) -> str:
    """The score as a sentence, from whether each answer was right, by question."""
    asked, right = len(answers), sum(answers.values())
    if not asked:
        return "No answer yet."
    return (
        f"{right} of {asked} right; who guesses has as many or more with a probability of "
        f"{chance_of_guessing(right, asked):.0%}."
    )


class BlindTest(Explorer):
    """Two details, one of them the photo; the first answer to each question counts.

    Args:
        model: on any device.
        side: of the photos in pixels.
    """

    def __init__(self, model: DiffusionHyperprior, *, side: int = 512) -> None:
        self.codec = PhotoCodec(model, side)
        self.answers: dict[tuple, bool] = {}
        self.question: tuple = ()  # what is shown: number, lambda, K
        super().__init__(
            self._render,
            [
                Dropdown("answer", "the photo is", [NOT_YET, LEFT, RIGHT]),
                Slider("number", "question", 1, 40, 1, 1),
                lambda_slider(3e-3),
                Slider("steps", "steps K", 0, 8, 1, 1, unit="0: no diffusion, 1: best PSNR, more: texture"),
            ],
            size=(2 * ZOOM * DETAIL + 20, ZOOM * DETAIL + 40),
        )
        self.remove_class("dhp-explorer")
        self.add_class(CLASS)
        for name in ("number", "lambda_rate", "steps"):
            self.controls[name].observe(self._ask_anew, "value")

    def _ask_anew(self, change: object) -> None:
        """A new question has no answer yet."""
        self.controls["answer"].value = NOT_YET

    def draw(self) -> None:
        """Show the question, or after an answer what was what, and the score under it."""
        position = self.position()
        answer, question = position.pop("answer"), tuple(position.values())
        if answer != NOT_YET and question == self.question:
            self.answers.setdefault(question, answer == trial(position["number"]).answer)
        self.question = question
        super().draw()
        self.text.value += f"<p>{score_text(self.answers)}</p>"

    def _render(self, *, answer: str, number: int, lambda_rate: float, steps: int) -> Rendered:
        asked = trial(number)
        x, _ = self.codec.photo(asked.photo)
        data, _ = self.codec.encode(asked.photo, lambda_rate)
        decoded, _ = self.codec.decode(asked.photo, lambda_rate, steps)
        titles = {"the photo": x, f"ours, K = {steps}": decoded}
        if asked.answer == RIGHT:
            titles = dict(reversed(titles.items()))
        if answer == NOT_YET:
            titles = dict(zip((LEFT, RIGHT), titles.values(), strict=True))
            text = f"Question {number}: which is the photo?"
        else:
            verdict = "Right" if answer == asked.answer else "Wrong"
            rate = 8 * len(data) / (x.shape[-2] * x.shape[-1])
            text = (
                f"{verdict}: the photo is on the {asked.answer}. Beside it {asked.photo} from a file of "
                f"{len(data)} bytes, {rate:.3f} bits per pixel."
            )
        details = {title: detail(picture, asked) for title, picture in titles.items()}
        alt = f"Question {number}, λ = {lambda_rate:g}, K = {steps}: a detail twice, {' and '.join(details)}"
        figure = photos_figure(details, zoom=ZOOM)
        shown = f"<p>{text}</p><p>λ = {lambda_rate:g}, K = {steps}</p>"
        return Rendered(picture_bytes(figure, compress_level=1), alt, shown)


def detail(picture: Tensor, asked: Trial) -> np.ndarray:
    """The trial's detail of a picture (1, 3, H, W) in [0, 1]: (h, w, 3) uint8, h and w <= ``DETAIL``."""
    pixels = to_pixels(picture)
    height, width = (min(DETAIL, side) for side in pixels.shape[:2])
    top = round(asked.down * (pixels.shape[0] - height))
    left = round(asked.across * (pixels.shape[1] - width))
    return pixels[top : top + height, left : left + width]
