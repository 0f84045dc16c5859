"""The lessons' explorers: which sliders each has, and the pure picture that follows them.

`CodecExplorer` is the one of lesson 00; `photo_codec.PhotoCodec`, which knows no widgets, does its work. The others are functions
named after their lessons. `sliders` has the parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data import PHOTOS, ImageError
from dhp_lab.diffusion.guidance import LabelDenoiser
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.digits import CLASSES
from dhp_lab.lessons import (
    coded_scenes as lesson_09, conditional as lesson_04, ddim as lesson_02, ddpm as lesson_01, diffusion_hyperprior as lesson_07,
    latent_diffusion as lesson_05, measured_photo as lesson_08, scale_hyperprior as lesson_06, score_and_sde as lesson_03,
    where_next as lesson_10,
)  # fmt: skip
from dhp_lab.photo_codec import DETAIL, WHOLE, PhotoCodec
from dhp_lab.sliders import Choice, Explorer, Slider, Upload, Words

if TYPE_CHECKING:
    from dhp_lab.latent_diffusion import LatentDiffusion


class CodecExplorer(Explorer):
    """Lambda and K on photos of up to side x side pixels, or the reader's own; JPEG at as many bytes beside ours."""

    def __init__(self, model: DiffusionHyperprior, *, photo: str = "astronaut", side: int = 512) -> None:
        self.codec = PhotoCodec(model, side)
        self.upload = Upload("your own picture", self._take_in)
        super().__init__(self.codec.render, [
            Choice("photo", "photo", PHOTOS, photo), Choice("view", "show", [WHOLE, DETAIL]),
            Slider("lambda_rate", "λ", 1e-5, 3e-2, 0.1, 3e-3, unit="error for a bit per pixel; larger: smaller file", log=True),
            Slider("steps", "steps K", 0, 8, 1, 1, unit="0: no diffusion, 1: best PSNR, more: texture"),
        ], size=(1058, 544), beside=[self.upload])  # fmt: skip

    def _take_in(self, name: str, data: bytes) -> None:
        menu = self.controls["photo"]
        try:
            menu.options = [self.codec.add(name, data), *menu.options]       # a menu with new options takes the first
        except ImageError as error:
            self.say(str(error))


def ddpm(network: Denoiser, known: NoiseSchedule) -> Explorer:
    """Lesson 01: a digit at a time t of a schedule, and what the network (trained on ``known``, on the CPU) guesses it was."""
    return Explorer(lesson_01.NoisyDigit(network, known).render, [
        Choice("schedule", "schedule", ["linear", "cosine"]), Choice("digit", "digit", [str(i) for i in range(CLASSES)], "3"),
        Slider("t", "time t", 1, known.steps, 1, known.steps // 5, unit=f"of {known.steps}"),
        Slider("seed", "noise", 0, 20, 1, 0, unit="each number is other noise"),
    ], size=lesson_01.SIZE)  # fmt: skip


def ddim(denoiser: Denoiser, schedule: NoiseSchedule, *, device: torch.device | str = "cpu") -> Explorer:
    """Lesson 02: steps, eta and seed of DDIM on digits; each noise is drawn from twice."""
    return Explorer(lesson_02.DigitDraws(denoiser, schedule, device=device).render, [
        Slider("steps", "steps", 1, min(250, schedule.steps), 1, 20, unit="questions to the network"),
        Slider("eta", "η", 0.0, 1.0, 0.1, 0.0, unit="0: no chance on the way, 1: as much as DDPM"),
        Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise, at the start and on the way"),
    ], size=lesson_02.SIZE)  # fmt: skip


def score_and_sde() -> Explorer:
    """Lesson 03: samplers on three islands in the plane, with the exact denoiser."""
    return Explorer(lesson_03.sampler_picture, [
        Choice("sampler", "sampler", list(lesson_03.SAMPLERS), lesson_03.CORRECTED),
        Choice("schedule", "schedule", list(lesson_03.SCHEDULES), "VE, geometric"),
        Slider("steps", "steps", 2, 100, 1, 20),
        Slider("snr", "SNR", 0.02, 0.6, 0.02, 0.16, unit="of the corrector: larger takes longer steps"),
    ], size=lesson_03.SIZE)  # fmt: skip


def conditional(network: LabelDenoiser, schedule: NoiseSchedule, *, device: torch.device | str = "cpu") -> Explorer:
    """Lesson 04: the class asked for and the guidance scale, drawn freely or around known pixels of a test digit."""
    numbers = [str(i) for i in range(CLASSES)]
    return Explorer(lesson_04.GuidedDigits(network, schedule, device=device).render, [
        Choice("label", "asked for", [*numbers, lesson_04.ANY], "3"), Choice("known", "known", [lesson_04.NOTHING, *lesson_04.masks()]),
        Choice("digit", "of a", numbers, "8"),
        Slider("scale", "scale", 0.0, 15.0, 0.5, 3.0, unit="0: the class counts nothing, 1: as trained"),
        Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise"),
    ], size=lesson_04.SIZE)  # fmt: skip


def latent_diffusion(models: Mapping[str, LatentDiffusion]) -> Explorer:
    """Lesson 05: pictures for a caption in the grammar's words, typed or chosen, by the model of one f."""
    return Explorer(lesson_05.SceneDraws(models).render, [
        Words("caption", "caption", lesson_05.CAPTIONS), Choice("f", "f", list(models)),
        Slider("steps", "steps", 1, 50, 1, 20, unit="two questions to the U-Net each"),
        Slider("guidance", "guidance", 0.0, 12.0, 0.5, 4.0, unit="0: the caption counts nothing, 1: as trained"),
        Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise"),
    ], size=lesson_05.SIZE)  # fmt: skip


def scale_hyperprior(model: DiffusionHyperprior, *, side: int = 512) -> Explorer:
    """Lesson 06: a photo's symbols and their scales, a channel at a time, and where its bits go."""
    return Explorer(lesson_06.HyperpriorMaps(model, side).render, [
        Choice("photo", "photo", PHOTOS),
        Slider("lambda_rate", "λ", 1e-5, 3e-2, 0.1, 1e-3, unit="error for a bit per pixel; larger: smaller file", log=True),
        Slider("channel", "channel", 0, model.config.M - 1, 1, 1, unit="of y, from coarse to fine"),
    ], size=lesson_06.SIZE)  # fmt: skip


def diffusion_hyperprior(model: DiffusionHyperprior) -> Explorer:
    """Lesson 07: lambda sets the start time on a schedule, K and gamma what the decoder does from there."""
    return Explorer(lesson_07.DiffusionTimes(model).render, [
        Choice("photo", "photo", PHOTOS, "chelsea"), Choice("schedule", "schedule", ["linear", "cosine"]),
        Slider("lambda_rate", "λ", 1e-5, 3e-2, 0.1, 3e-3, unit="error for a bit per pixel; larger: smaller file", log=True),
        Slider("steps", "steps K", 0, 16, 1, 4, unit="questions to the denoiser; 0: none, 1: the average"),
        Slider("gamma", "γ", 0.0, 1.0, 0.1, 0.0, unit="0: the sample, 1: the average"),
    ], size=lesson_07.SIZE)  # fmt: skip


def evaluate(model: DiffusionHyperprior, *, side: int = 288) -> Explorer:
    """Lesson 08: a photo's middle, side x side pixels, by ours and by JPEG at as many bytes, with errors and curves."""
    return Explorer(lesson_08.MeasuredPhoto(model, side).render, [
        Choice("photo", "photo", PHOTOS, "coffee"),
        Slider("lambda_rate", "λ", 1e-5, 3e-2, 0.1, 5e-3, unit="error for a bit per pixel; larger: smaller file", log=True),
        Slider("steps", "steps K", 0, 16, 1, 4, unit="0: no diffusion, 1: best PSNR, more: texture"),
        Slider("gamma", "γ", 0.0, 1.0, 0.1, 0.0, unit="0: the sample, 1: the average"),
        Slider("seed", "seed", 0, 99, 1, 0, unit="of the noise"),
    ], size=lesson_08.picture_size(side))  # fmt: skip


def bk_sdm(model: DiffusionHyperprior) -> Explorer:
    """Lesson 09: a scene coded with the parts of a Stable Diffusion folder; the model has its VAE and its U-Net."""
    return Explorer(lesson_09.CodedScenes(model).render, [
        Slider("lambda_rate", "λ", 1e-4, 1e-1, 0.1, 1e-2, unit="error for a bit per pixel; larger: smaller file", log=True),
        Slider("steps", "steps K", 0, 8, 1, 1, unit="questions to the U-Net; 0: none, 1: the average"),
        Slider("scene", "scene", 0, 99, 1, 1, unit="each number is another picture"),
    ], size=lesson_09.SIZE)  # fmt: skip


def where_next(model: DiffusionHyperprior) -> Explorer:
    """Lesson 10: a lambda for each block of a photo, beside one lambda for all of it at as many bytes."""
    return Explorer(lesson_10.LambdaMaps(model).render, [
        Choice("photo", "photo", PHOTOS, "coffee"), Choice("area", "area", list(lesson_10.AREAS)),
        Slider("lambda_rate", "λ", 1e-4, 3e-2, 0.1, 3e-3, unit="error for a bit per pixel; larger: smaller file", log=True),
        Slider("strength", "strength", -lesson_10.MOST, lesson_10.MOST, 1, 2, unit="octaves of λ; above 0: the area gets more bits"),
    ], size=lesson_10.SIZE)  # fmt: skip
