"""Training the codec: one loop on Accelerate, three stages (codec, denoiser, joint), exact resume.

    codec     transforms, hyperprior; straight-through rounding for g_s, uniform noise for rate
    denoiser  the codec is frozen; D learns K = 1 through the frozen g_s, and lower noise levels in latents
    joint     everything, with D left out in a share of the pictures so that K = 0 stays an honest decode

The gain curve follows from measuring (``calibration``) at the end of the first and last stage, or more often.
A crop and all that is drawn for it are functions of (seed, number of the crop), so a resumed run repeats an
unbroken one, and several processes (``processes``) repeat one with their batches put together.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from dhp_lab.codec.checkpoint import save_model
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.images import ImageError
from dhp_lab.data.reading_ahead import ReaderError, batches_ahead, next_batch
from dhp_lab.training.calibration import calibrate_both
from dhp_lab.training.codec_config import TrainingConfig, TrainingError
from dhp_lab.training.codec_objective import STAGES, CodecObjective
from dhp_lab.training.codec_photos import (
    find_photos,
    keep_photo_list,
    share_of,
    training_crops,
    validation_batch,
)
from dhp_lab.training.codec_plan import calibrates_after, stage_lengths, stage_lr_factor, stage_of
from dhp_lab.training.codec_start import initial_model
from dhp_lab.training.codec_state import (
    TrainingState,
    random_states,
    restore_random_states,
    shared_state,
)
from dhp_lab.training.optimisation import EMA
from dhp_lab.training.processes import LOSS, Processes, is_loss
from dhp_lab.training.run_board import RunBoard
from dhp_lab.training.run_folder import (
    BEST,
    FINAL,
    LOG,
    STATE,
    clear_folder,
    last_state,
    log_to_file,
    prepare_folder,
)
from dhp_lab.training.safeguards import Safeguards
from dhp_lab.training.stop_signals import StopRequest, stop_requests

log = logging.getLogger(__name__)

REPORT_EVERY = 50  # steps between TensorBoard scalars
LOG_EVERY = 4  # reports between lines in training.log
UPDATE_EVERY = 500  # steps between updates of z's medians, which follow its moving prior
BETAS = 0.9, 0.99  # of Adam: with 0.999 a rare drawing could move what photos hardly move by 3 lr at once


def train(config: TrainingConfig) -> Path:
    """Run all stages and return the folder of the best checkpoint.

    Raises:
        ImageError: no usable photo. OverwriteError: the folder holds a training already.
        TrainingError: the loss is not finite, photos cannot be read any more, a checkpoint cannot be written,
            another process of this training has ended, or a signal stopped the run.
    """
    trainer = Trainer(config)
    best = trainer.run()
    trainer.processes.leave()
    return best


class Trainer:
    """One run: photos, model, EMA, optimiser, step.

    Args:
        config: everything that `dhp train` offers. What follows is for experiments.
        model: the codec to train; None makes that of ``config``.
        objective: makes the loss of (model, lambda_rate, seed=...).
        crops: the stream of training crops; None makes that of ``config``.
        lengths: steps of the three stages; None counts epochs of the photos.
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        model: DiffusionHyperprior | None = None,
        objective: Callable[..., CodecObjective] = CodecObjective,
        crops: PhotoCrops | None = None,
        lengths: tuple[int, int, int] | None = None,
    ) -> None:
        self.config = config
        self.out = Path(config.output_dir)
        self.step, self.best, self.stage, self.optimizer = 0, math.inf, "", None
        lr = f"--lr (now {config.lr:g})"
        remedy = f"With a smaller {lr} or a smaller --lambda_rate"
        self.safeguards = Safeguards(self.out, remedy=remedy, lr_option=lr)
        self.is_whole = False  # whether all that belongs to ``step`` is done, and nothing of the next one
        try:
            self.processes = Processes(config.device)
            self._prepare(model, objective, crops, lengths)
        except RuntimeError as error:
            if not is_loss(error):
                raise
            raise TrainingError(f"{LOSS} before the first step; {last_state(self.out, 'You can')}") from None

    def _prepare(
        self,
        model: DiffusionHyperprior | None,
        objective: Callable[..., CodecObjective],
        crops: PhotoCrops | None,
        lengths: tuple[int, int, int] | None,
    ) -> None:
        """Everything before the first step. Arguments as for the class."""
        config = self.config
        self.accelerator = self.processes.accelerator
        if self.processes.is_main:
            prepare_folder(self.out, resume=config.resume, overwrite=config.overwrite)
            log_to_file(self.out / LOG)
        state = shared_state(self.out / STATE, self.processes) if config.resume else None
        self.photos = find_photos(config, self.processes)
        own_crops, held_out = training_crops(config, self.photos)
        self.crops = own_crops if crops is None else crops
        kept = state.pictures.get("validation") if state else None
        self.val = validation_batch(config, held_out, own_crops, self.processes, kept)
        self.lengths = list(lengths or stage_lengths(config, len(self.crops), self.processes.count))
        self.total = sum(self.lengths)
        torch.manual_seed(config.seed)
        model = initial_model(config) if model is None else model
        model = model.to(self.accelerator.device, memory_format=torch.channels_last)
        self.model: DiffusionHyperprior = model.train()
        self.objective = objective(self.model, config.lambda_rate, seed=config.seed)
        self.ema = EMA(self.model, config.ema_decay)
        if state:
            self._resume(state)
        self.is_whole = True

    def run(self) -> Path:
        """Go on from the current step to the end; returns the folder of the best checkpoint."""
        board = None
        lengths = dict(zip(STAGES, self.lengths, strict=True))
        log.info("%d steps: %s; %s", self.total, lengths, json.dumps(asdict(self.config)))
        try:
            if self.processes.is_main:
                if self.config.overwrite and not self.config.resume:
                    clear_folder(self.out)
                keep_photo_list(self.photos, self.out)
                board = RunBoard(self.out, self.step)
            self._run(board)
            if board:
                board.close(failed=False)
        except OSError as error:
            reason = f"{error.filename or self.out}: {error.strerror or error}"
            raise TrainingError(
                f"cannot write to {reason}; {last_state(self.out, 'Make room, then')}"
            ) from None
        finally:
            if board:
                board.close(failed=True)
        return self.out / BEST

    def _run(self, board: RunBoard | None) -> None:
        """All steps and the final checkpoint; where a signal or Ctrl-C stops them, the state is saved."""
        with stop_requests() as stop:  # around the saving too: a launcher stops all when one has ended
            try:
                self._loop(board, stop)
            except KeyboardInterrupt:
                self._save_and_raise("stopped", by_all=True)
            except (ImageError, ReaderError) as error:
                self._save_and_raise(f"photos cannot be read: {error}; stopped")
            except RuntimeError as error:
                if not is_loss(error):
                    raise
                stop.stays = True
                self._save_and_raise(f"{LOSS}; stopped")
        if self.processes.is_main:
            save_model(self.out / FINAL, self.model.config, self._averaged())

    def _save_and_raise(self, reason: str, *, by_all: bool = False) -> None:
        """End the run, and save the state of its last step unless the next one's update has begun."""
        if not (self.is_whole and self.optimizer and (by_all or self.processes.is_main)):
            raise TrainingError(f"{reason} at step {self.step}; {last_state(self.out, 'You can')}") from None
        self._save()
        raise TrainingError(f"{reason} at step {self.step}; go on with --resume") from None

    def _loop(self, board: RunBoard | None, stop: StopRequest) -> None:
        saved, numbers = time.monotonic(), range(self.step, self.total)
        read = share_of(self.crops, self.config.batch_size, self.processes)
        with (
            batches_ahead(read, numbers, self.config.workers) as batches,
            tqdm(total=self.total, initial=self.step, disable=board is None) as bar,
        ):
            while self.step < self.total:
                report = self._train_step(next_batch(batches))
                self.step += 1
                bar.update()
                if self.step % REPORT_EVERY == 0 and board:
                    self._report(board, bar, report)
                if calibrates_after(self.step, self.stage, self.lengths, self.config.calibrate_every):
                    calibrate_both(self.model, self._averaged(), self.val, self.config.lambda_rate)
                if self.step % self.config.validate_every == 0 or self.step == self.total:
                    self._validate(board)
                self.is_whole = True
                minutes = (time.monotonic() - saved) / 60
                if minutes > self.config.minutes_between_saves or self.step == self.total:
                    self._save()
                    saved = time.monotonic()
                if self.processes.any(bool(stop)) and self.step < self.total:
                    log.info("%s at step %d", stop.name or "another process was stopped", self.step)
                    raise KeyboardInterrupt

    # one step

    def _train_step(self, x: Tensor) -> dict[str, Tensor]:
        self.enter_stage(stage_of(self.step, self.lengths))
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * stage_lr_factor(self.step, self.lengths)
        if self.step % UPDATE_EVERY == 0 and self.stage != "denoiser":
            self.model.update(force=True, update_quantiles=True)
        first = (self.step * self.processes.count + self.processes.index) * len(x)
        losses = self.wrapped(x.to(self.accelerator.device), self.stage, first)
        report = self.processes.mean(losses)
        self.safeguards.check_loss(report["objective"], self.step)
        self.optimizer.zero_grad()
        self.accelerator.backward(losses["objective"])
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.clip)
        self.is_whole = False
        if self.safeguards.is_usable(norm, self.step):
            self.optimizer.step()
            self.ema.update(self.model)
        return {"gradient norm": norm.detach(), **{name: value.detach() for name, value in report.items()}}

    def enter_stage(self, stage: str) -> None:
        """Make the optimiser of a stage, if it is another than the current one."""
        if stage == self.stage:
            return
        self.is_whole, was_whole = False, self.is_whole
        self.stage = stage
        self.objective.zero_grad(set_to_none=True)  # gradients of parts that are frozen now
        groups = self.objective.optimizer_groups(stage, self.config.lr)
        optimizer = torch.optim.Adam(groups, betas=BETAS, fused=True)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.objective, optimizer)
        self.is_whole = was_whole
        log.info("stage '%s' from step %d", stage, self.step)

    # what the run leaves behind

    def _report(self, board: RunBoard, bar: tqdm, report: dict[str, Tensor]) -> None:
        values = {name: float(value) for name, value in report.items()}
        board.report(self.step, values, self.optimizer.param_groups[0]["lr"])
        bar.set_postfix(stage=self.stage, **{name: f"{value:.4g}" for name, value in values.items()})
        if self.step % (LOG_EVERY * REPORT_EVERY) == 0:
            log.info("step %d %s", self.step, " ".join(f"{name} {v:.5g}" for name, v in values.items()))

    @torch.no_grad()
    def _validate(self, board: RunBoard | None) -> None:
        model = self._averaged()
        objective = CodecObjective(model, self.config.lambda_rate)
        rows = objective.validate(self.val, denoise=self.stage != "codec")
        score = sum(row["objective"] for row in rows) / len(rows)
        if board is None:
            return
        board.validation(self.step, rows, score, self.val)
        if score < self.best:
            self.best = score
            save_model(self.out / BEST, model.config, model)

    def _averaged(self) -> DiffusionHyperprior:
        """The model with averaged weights and probability tables made for them, in eval mode."""
        self.ema.average.update(force=True, update_quantiles=True)
        return self.ema.average

    def _save(self) -> None:
        if self.processes.is_main:
            TrainingState(
                step=self.step,
                best=self.best,
                stage=self.stage,
                lengths=self.lengths,
                average_steps=self.ema.steps,
                model=self.model.state_dict(),
                average=self.ema.average.state_dict(),
                optimizer=self.optimizer.state_dict()["state"],
                random=random_states(),
                pictures={"validation": self.val},
            ).save(self.out / STATE)

    # start

    def _resume(self, state: TrainingState) -> None:
        path = self.out / STATE
        state.check_lengths(self.lengths, path)
        try:
            self.model.load_state_dict(dict(state.model))
            self.ema.average.load_state_dict(dict(state.average))
        except RuntimeError as error:
            raise_if_of_the_machine(error)
            raise CheckpointError(f"{path} is of another model: {error}") from None
        self.step, self.best, self.ema.steps = state.step, state.best, state.average_steps
        if self.step < self.total:
            self.enter_stage(state.stage)
            moments = state.optimizer_like(self.optimizer)
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        restore_random_states(state.random)
        log.info("resumed at step %d", self.step)
