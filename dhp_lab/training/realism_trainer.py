"""Training the realism denoiser on a frozen codec: two stages, one process, exact resume.

    denoising   EDM's loss alone, at random noise levels
    drawn       from the average of the first stage on: the losses of pictures drawn in 2 or 4 unrolled steps

Crops are functions of (seed, number of the crop); trade-offs, noise levels, noise and windows come from a
generator whose state is saved with the step, so that a resumed run repeats an unbroken one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dhp_lab.codec.denoising.residual_sampling import ResidualSampler, residual_schedule
from dhp_lab.codec.denoising.residual_unet import ResidualUNet
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.stable_diffusion.config import StableDiffusionConfig
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.drawings import WithDrawings
from dhp_lab.data.images import ImageError
from dhp_lab.data.reading_ahead import ReaderError, batches_ahead, next_batch
from dhp_lab.metrics.perceptual import lpips_network
from dhp_lab.training.codec_config import TrainingError
from dhp_lab.training.codec_photos import find_photos, keep_photo_list, training_crops, validation_batch
from dhp_lab.training.codec_plan import stage_lr_factor, stage_of
from dhp_lab.training.codec_state import (
    TrainingState,
    random_states,
    restore_random_states,
    shared_state,
)
from dhp_lab.training.optimisation import EMA, MAX_GRADIENT_NORM
from dhp_lab.training.processes import Processes
from dhp_lab.training.realism_config import WIDTHS, RealismConfig
from dhp_lab.training.realism_objective import Judges, RealismObjective
from dhp_lab.training.realism_part import REALISM_CONFIG, REALISM_WEIGHTS, load_part, save_part
from dhp_lab.training.realism_validation import Validation, report, validation_judges
from dhp_lab.training.run_board import RunBoard
from dhp_lab.training.run_folder import LOG, STATE, clear_folder, last_state, log_to_file, prepare_folder
from dhp_lab.training.safeguards import Safeguards
from dhp_lab.training.stop_signals import StopRequest, stop_requests

log = logging.getLogger(__name__)

STAGES = "denoising", "drawn"
REPORT_EVERY = 50  # steps between TensorBoard scalars
LOG_EVERY = 4  # reports between lines in training.log
BETAS = 0.9, 0.99  # of Adam
MADE = STATE, REALISM_WEIGHTS, REALISM_CONFIG
GENERATOR = "realism"  # name of the objective's generator in the state


def train_realism(config: RealismConfig) -> Path:
    """Run both stages and return the folder with realism.json and realism.safetensors.

    Raises:
        CheckpointError: no codec, or no part to start from. ImageError: no usable photo.
        MissingNetwork: the second stage's networks are not here. OverwriteError: the folder holds a training.
        TrainingError: the loss is not finite, photos cannot be read any more, a file cannot be written, or a
            signal stopped the run.
    """
    return RealismTrainer(config).run()


class RealismTrainer:
    """One run: photos, frozen codec, network, EMA, optimiser, step.

    Args:
        config: everything that `dhp train-realism` offers.
        model: the codec, for experiments; None loads that of ``config``.
    """

    def __init__(self, config: RealismConfig, *, model: DiffusionHyperprior | None = None) -> None:
        self.config, self.out = config, Path(config.output_dir)
        self.lengths = [config.denoising_steps, config.drawn_steps]
        self.step, self.total, self.stage, self.optimizer = 0, sum(self.lengths), "", None
        self.is_whole = False  # whether all that belongs to ``step`` is done, and nothing of the next one
        option = "--lr" if not config.drawn_steps else "--lr or --drawn_lr"
        now = f"{option} (now {config.lr:g}, {config.drawn_lr:g})"
        self.safeguards = Safeguards(self.out, remedy=f"With a smaller {now}", lr_option=now)
        self.processes = Processes(config.device)
        self.device = self.processes.accelerator.device
        if self.processes.count > 1:
            raise TrainingError(f"train-realism runs in one process, not in {self.processes.count}")
        self._prepare(model)

    def _prepare(self, model: DiffusionHyperprior | None) -> None:
        """Everything before the first step; what may be missing comes first."""
        config = self.config
        prepare_folder(self.out, resume=config.resume, overwrite=config.overwrite, made=MADE)
        judges = self._loss_judges() if config.drawn_steps else None
        log_to_file(self.out / LOG)
        state = shared_state(self.out / STATE, self.processes) if config.resume else None
        self.photos = find_photos(config, self.processes)
        halved = replace(config, cache_gb=config.cache_gb / len(STAGES))  # a cache for each stage
        first, held_out = training_crops(halved, self.photos)
        second, _ = training_crops(replace(halved, image_size=config.drawn_image_size), self.photos)
        self.crops = dict(zip(STAGES, (first, second), strict=True))
        kept = state.pictures.get("validation") if state else None
        self.val = validation_batch(config, held_out, first, self.processes, kept).to(self.device)
        torch.manual_seed(config.seed)
        self.model = self._frozen(model)
        network = initial_network(config)
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        self.ema = EMA(self.network, config.ema_decay)
        sampler = ResidualSampler(self.network, residual_schedule(network.start, network.first))
        self.loss_judges = judges
        self.validation = Validation(self.model, self.val, validation_judges(self.device))
        self.objective = RealismObjective(self.model, sampler, None, config.weights, seed=config.seed)
        if state:
            self._resume(state)
        self._end_step()

    def _frozen(self, model: DiffusionHyperprior | None) -> DiffusionHyperprior:
        """The codec; None: that of the configuration."""
        folder = self.config.model_path or default_checkpoint()
        model = model or DiffusionHyperprior.from_pretrained(folder)
        if isinstance(model.config, StableDiffusionConfig):
            raise TrainingError(
                f"{folder} has the parts of Stable Diffusion, whose latents say nothing of their "
                "pixels' errors: name a codec of our own networks (--model_path)"
            )
        model = model.to(self.device, memory_format=torch.channels_last)
        return model.eval().requires_grad_(False)

    def _loss_judges(self) -> Judges:
        return Judges(*(lpips_network(trunk).to(self.device) for trunk in ("alexnet", "vgg16")))

    def run(self) -> Path:
        """Go on from the current step to the end; returns the folder of the run."""
        board = None
        log.info("%d steps: %s; %s", self.total, self.lengths, json.dumps(asdict(self.config)))
        try:
            if self.config.overwrite:
                clear_folder(self.out, MADE)
            keep_photo_list(self.photos, self.out)
            board = RunBoard(self.out, self.step)
            self._run(board)
            board.close(failed=False)
        except OSError as error:
            reason = f"{error.filename or self.out}: {error.strerror or error}"
            left = last_state(self.out, "Make room, then")
            raise TrainingError(f"cannot write to {reason}; {left}") from None
        finally:
            if board:
                board.close(failed=True)
        return self.out

    def _run(self, board: RunBoard) -> None:
        """All steps; where a signal or Ctrl-C stops them, the state is saved."""
        with stop_requests() as stop:
            try:
                self._loop(board, stop)
            except KeyboardInterrupt:
                self._save_and_raise("stopped")
            except (ImageError, ReaderError) as error:
                self._save_and_raise(f"photos cannot be read: {error}; stopped")

    def _save_and_raise(self, reason: str) -> None:
        """End the run, and save the state of its last step unless the next one's update has begun."""
        if not (self.is_whole and self.optimizer):
            raise TrainingError(f"{reason} at step {self.step}; {last_state(self.out, 'You can')}") from None
        self._save()
        raise TrainingError(f"{reason} at step {self.step}; go on with --resume") from None

    def _loop(self, board: RunBoard, stop: StopRequest) -> None:
        saved, numbers = time.monotonic(), range(self.step, self.total)
        read = partial(_read, self.crops, self.lengths, self.config.batch_size)
        with (
            batches_ahead(read, numbers, self.config.workers) as batches,
            tqdm(total=self.total, initial=self.step) as bar,
        ):
            while self.step < self.total:
                losses = self._train_step(next_batch(batches))
                self.step += 1
                bar.update()
                if self.step % REPORT_EVERY == 0:
                    self._report(board, bar, losses)
                if self.step % self.config.validate_every == 0 or self.step == self.total:
                    self._validate(board)
                self._end_step()
                minutes = (time.monotonic() - saved) / 60
                if minutes > self.config.minutes_between_saves or self.step == self.total:
                    self._save()
                    saved = time.monotonic()
                if stop and self.step < self.total:
                    log.info("%s at step %d", stop.name, self.step)
                    raise KeyboardInterrupt

    # one step

    def _train_step(self, x: Tensor) -> dict[str, Tensor]:
        """The losses of a batch, and the update that follows from them."""
        self._go_to(stage_of(self.step, self.lengths, STAGES))
        peak = self.config.drawn_lr if self.stage == "drawn" else self.config.lr
        for group in self.optimizer.param_groups:
            group["lr"] = peak * stage_lr_factor(self.step, self.lengths, STAGES)
        losses = self.objective(x.to(self.device))
        self.safeguards.check_loss(losses["objective"], self.step)
        self.optimizer.zero_grad()
        losses["objective"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
        self.is_whole = False
        if self.safeguards.is_usable(norm, self.step):
            self.optimizer.step()
            self.ema.update(self.network)
        return {"gradient norm": norm.detach(), **{name: value.detach() for name, value in losses.items()}}

    def _end_step(self) -> None:
        """Keep what of the random state belongs to this step: a step that is broken off draws too."""
        self.random = random_states() | {GENERATOR: self.objective.generator.get_state()}
        self.is_whole = True

    def _go_to(self, stage: str) -> None:
        """Begin a stage, if it is another than the current one; it starts from the average of that one."""
        if stage == self.stage:
            return
        self.is_whole = False
        if self.stage:
            self.network.load_state_dict(self.ema.average.state_dict())
        self._enter(stage)

    def _enter(self, stage: str) -> None:
        """Make the optimiser of a stage, and choose its losses."""
        self.stage = stage
        self.optimizer = torch.optim.Adam(self.network.parameters(), betas=BETAS, fused=True)
        self.objective.judges = self.loss_judges if stage == "drawn" else None
        log.info("stage '%s' from step %d", stage, self.step)

    # what the run leaves behind

    def _report(self, board: RunBoard, bar: tqdm, losses: Mapping[str, Tensor]) -> None:
        values = {name: float(value) for name, value in losses.items()}
        board.report(self.step, values, self.optimizer.param_groups[0]["lr"])
        bar.set_postfix(stage=self.stage, loss=f"{values['objective']:.4g}")
        if self.step % (LOG_EVERY * REPORT_EVERY) == 0:
            log.info("step %d %s", self.step, " ".join(f"{name} {v:.5g}" for name, v in values.items()))

    def _validate(self, board: RunBoard) -> None:
        sampler = ResidualSampler(self.ema.average, self.objective.sampler.schedule)
        report(board, self.step, self.validation.draw(sampler), self.val)

    def _save(self) -> None:
        """Write the state, then the averaged network."""
        TrainingState(
            step=self.step,
            best=0.0,
            stage=self.stage,
            lengths=self.lengths,
            average_steps=self.ema.steps,
            model=self.network.state_dict(),
            average=self.ema.average.state_dict(),
            optimizer=self.optimizer.state_dict()["state"],
            random=self.random,
            pictures={"validation": self.val},
        ).save(self.out / STATE)
        save_part(self.out, self.ema.average, self.model.model_id)

    # start

    def _resume(self, state: TrainingState) -> None:
        path = self.out / STATE
        if state.stage not in STAGES or GENERATOR not in state.random:
            raise CheckpointError(f"{path} is not of a training of the realism denoiser")
        if not state.goes_on_with(self.lengths, STAGES):
            raise CheckpointError(
                f"{path} is of a run with stages of {state.lengths} steps, at step {state.step} in the stage "
                f"'{state.stage}'; this one has {self.lengths}: more steps of that stage or of a later one "
                f"go on; for others start from {self.out} (--init_from) with another --output_dir"
            )
        try:
            self.network.load_state_dict(dict(state.model))
            self.ema.average.load_state_dict(dict(state.average))
        except RuntimeError as error:
            raise_if_of_the_machine(error)
            raise CheckpointError(f"{path} is of a network of other --widths: {error}") from None
        self.step, self.ema.steps = state.step, state.average_steps
        self._enter(state.stage)
        moments = state.optimizer_like(self.optimizer)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        restore_random_states(state.random)
        self.objective.generator.set_state(state.random[GENERATOR])
        log.info("resumed at step %d", self.step)


def initial_network(config: RealismConfig) -> ResidualUNet:
    """The network that a run starts with: a new one, or that of ``init_from``.

    Raises:
        CheckpointError: there is no part to start from. ValueError: it has other widths than were chosen.
    """
    if not config.init_from:
        a, b, c = config.widths
        return ResidualUNet((a, b, c))
    network = load_part(config.init_from)
    if config.widths not in (WIDTHS, network.widths):
        given = ",".join(map(str, config.widths))
        raise ValueError(f"widths is {given}, {config.init_from} has {network.widths}: leave widths out")
    return network


def _read(
    crops: Mapping[str, PhotoCrops | WithDrawings], lengths: Sequence[int], batch_size: int, step: int
) -> Tensor:
    """The batch of a step, of its stage's crops; one beyond the last step is read ahead in vain."""
    stage = stage_of(min(step, sum(lengths) - 1), lengths, STAGES)
    return crops[stage].batch(step, batch_size)
