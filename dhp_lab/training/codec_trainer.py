"""Training the codec: one loop on Accelerate, three stages (codec, denoiser, joint), exact resume.

    codec     transforms, hyperprior; straight-through rounding for g_s, uniform noise for rate
    denoiser  the codec is frozen; D learns K = 1 through the frozen g_s, and lower noise levels in latents
    joint     everything, with D left out in a share of the pictures so that K = 0 stays an honest decode

The gain curve follows from measuring (``calibration``) at the end of the first and last stage, or more often.
A batch is a function of (seed, step) alone and the random states are saved, so a resumed run repeats an
unbroken one.

    accelerate launch -m dhp_lab.cli train --data_path photos ...       # several GPUs or machines
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
from accelerate import Accelerator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dhp_lab.codec.checkpoint import save_model
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.settings import choose_device
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.crops import PhotoCrops, prefetching
from dhp_lab.data.images import save_image
from dhp_lab.training.calibration import calibrate_both
from dhp_lab.training.codec_config import TrainingConfig, TrainingError
from dhp_lab.training.codec_objective import STAGES, CodecObjective
from dhp_lab.training.codec_photos import training_pictures
from dhp_lab.training.codec_start import initial_model
from dhp_lab.training.codec_state import TrainingState, random_states, restore_random_states
from dhp_lab.training.optimisation import EMA, lr_factor
from dhp_lab.training.run_folder import (
    BEST,
    BOARD,
    FINAL,
    LOG,
    SAMPLES,
    STATE,
    clear_folder,
    log_to_file,
    prepare_folder,
)
from dhp_lab.training.stop_signals import StopRequest, stop_requests

log = logging.getLogger(__name__)

REPORT_EVERY = 50  # steps between TensorBoard scalars
LOG_EVERY = 4  # reports between lines in training.log
UPDATE_EVERY = 500  # steps between updates of z's medians, which follow its moving prior
WARMUP = 200  # steps, at the start of each stage
LR_FLOOR = 0.01  # of the peak, at the end of each stage
BETAS = 0.9, 0.99  # of Adam: with 0.999 a rare drawing could move what photos hardly move by 3 lr at once
MOST_LEFT_OUT = 10  # updates in a row that may be left out
RANK_STRIDE = 7919  # between the seeds of processes
SHOWN = 4  # pictures of a sample sheet


def train(config: TrainingConfig) -> Path:
    """Run all stages and return the folder of the best checkpoint.

    Raises:
        ImageError: no usable photo. OverwriteError: the folder holds a training already.
        TrainingError: the loss is not finite, a checkpoint cannot be written, or a signal stopped the run.
    """
    return Trainer(config).run()


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
        self.accelerator = Accelerator(cpu=choose_device(config.device).type == "cpu")
        if self.accelerator.is_main_process:
            prepare_folder(self.out, resume=config.resume, overwrite=config.overwrite)
            log_to_file(self.out / LOG)
        self.crops, self.val = training_pictures(config)
        if crops is not None:
            self.crops = crops
        self.lengths = list(lengths or self._stage_lengths())
        self.total = sum(self.lengths)
        seed = config.seed + RANK_STRIDE * self.accelerator.process_index
        torch.manual_seed(seed)
        model = initial_model(config) if model is None else model
        model = model.to(self.accelerator.device, memory_format=torch.channels_last)
        self.model: DiffusionHyperprior = model.train()
        self.objective = objective(self.model, config.lambda_rate, seed=seed)
        self.ema = EMA(self.model, config.ema_decay)
        self.step, self.best, self.stage, self.optimizer = 0, math.inf, "", None
        self.left_out = 0  # updates in a row, because their gradient was not finite
        if config.resume:
            self._resume()

    def run(self) -> Path:
        """Go on from the current step to the end; returns the folder of the best checkpoint."""
        if self.config.overwrite and not self.config.resume and self.accelerator.is_main_process:
            clear_folder(self.out)
        board = SummaryWriter(self.out / BOARD) if self.accelerator.is_main_process else None
        lengths = dict(zip(STAGES, self.lengths, strict=True))
        log.info("%d steps: %s; %s", self.total, lengths, json.dumps(asdict(self.config)))
        try:
            self._run(board)
        except OSError as error:
            reason = f"{error.filename or self.out}: {error.strerror or error}"
            raise TrainingError(f"cannot write to {reason}; {self._last_state('Make room, then')}") from None
        finally:
            if board:
                board.close()
        return self.out / BEST

    def _run(self, board: SummaryWriter | None) -> None:
        """All steps and the final checkpoint; where a signal or Ctrl-C stops them, the state is saved."""
        try:
            with stop_requests() as stop:
                self._loop(board, stop)
        except KeyboardInterrupt:
            self._save()
            raise TrainingError(f"stopped at step {self.step}; go on with --resume") from None
        if self.accelerator.is_main_process:
            save_model(self.out / FINAL, self.model.config, self._averaged())

    def _last_state(self, remedy: str) -> str:
        """Where a run that ended early can go on, for a message; ``remedy``: what to do before."""
        if (self.out / STATE).is_file():
            return f"the last good state is {self.out / STATE}. {remedy} go on with --resume"
        return f"no state was saved yet. {remedy} start again with --overwrite"

    def _loop(self, board: SummaryWriter | None, stop: StopRequest) -> None:
        saved = time.monotonic()
        with prefetching() as reader, tqdm(total=self.total, initial=self.step, disable=board is None) as bar:
            ahead = reader.submit(self._batch, self.step)
            while self.step < self.total:
                x, ahead = ahead.result(), reader.submit(self._batch, self.step + 1)
                report = self._train_step(x)
                self.step += 1
                bar.update()
                if self.step % REPORT_EVERY == 0 and board:
                    self._report(board, bar, report)
                if self._is_calibration_due():
                    calibrate_both(self.model, self._averaged(), self.val, self.config.lambda_rate)
                if self.step % self.config.validate_every == 0 or self.step == self.total:
                    self._validate(board)
                minutes = (time.monotonic() - saved) / 60
                if minutes > self.config.minutes_between_saves or self.step == self.total:
                    self._save()
                    saved = time.monotonic()
                if stop and self.step < self.total:
                    log.info("%s at step %d", stop.name, self.step)
                    raise KeyboardInterrupt

    # one step

    def _train_step(self, x: Tensor) -> dict[str, Tensor]:
        self.enter_stage(self._stage_of_step())
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self._lr_factor()
        if self.step % UPDATE_EVERY == 0 and self.stage != "denoiser":
            self.model.update(force=True, update_quantiles=True)
        losses = self.wrapped(x.to(self.accelerator.device), self.stage)
        self._check_finite(losses["objective"])
        self.optimizer.zero_grad()
        self.accelerator.backward(losses["objective"])
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.clip)
        if self._is_usable(norm):
            self.optimizer.step()
            self.ema.update(self.model)
        return {"gradient norm": norm.detach(), **{name: value.detach() for name, value in losses.items()}}

    def _is_usable(self, norm: Tensor) -> bool:
        """Whether the gradient is finite; one that is not costs an update, a row of them the run."""
        if bool(torch.isfinite(norm)):
            self.left_out = 0
            return True
        self.left_out += 1
        log.warning("step %d: the gradient is not finite, its update is left out", self.step)
        if self.left_out >= MOST_LEFT_OUT:
            remedy = f"With a smaller --lr (now {self.config.lr:g})"
            raise TrainingError(
                f"the gradient was not finite in the {MOST_LEFT_OUT} steps up to {self.step}; "
                f"{self._last_state(remedy)}"
            )
        return False

    def _check_finite(self, objective: Tensor) -> None:
        if not bool(torch.isfinite(objective)):
            remedy = f"With a smaller --lr (now {self.config.lr:g}) or a smaller --lambda_rate"
            raise TrainingError(
                f"the loss is {objective.item()} at step {self.step}; {self._last_state(remedy)}"
            )

    def enter_stage(self, stage: str) -> None:
        """Make the optimiser of a stage, if it is another than the current one."""
        if stage == self.stage:
            return
        self.stage = stage
        self.objective.zero_grad(set_to_none=True)  # gradients of parts that are frozen now
        groups = self.objective.optimizer_groups(stage, self.config.lr)
        optimizer = torch.optim.Adam(groups, betas=BETAS, fused=True)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.objective, optimizer)
        log.info("stage '%s' from step %d", stage, self.step)

    def _stage_of_step(self) -> str:
        return next(stage for i, stage in enumerate(STAGES) if self.step < sum(self.lengths[: i + 1]))

    def _lr_factor(self) -> float:
        index = STAGES.index(self.stage)
        length, start = self.lengths[index], sum(self.lengths[:index])
        return lr_factor(self.step - start + 1, length, warmup=min(WARMUP, length), floor=LR_FLOOR)

    def _batch(self, step: int) -> Tensor:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        x = self.crops.batch(step * world + rank, self.config.batch_size)
        return x.contiguous(memory_format=torch.channels_last)

    def _is_calibration_due(self) -> bool:
        """Whether the codec, which the denoiser's stage leaves alone, is to be measured after this step."""
        if self.stage == "denoiser":
            return False
        every = self.config.calibrate_every
        return self.step in (self.lengths[0], self.total) or (every > 0 and self.step % every == 0)

    # what the run leaves behind

    def _report(self, board: SummaryWriter, bar: tqdm, report: dict[str, Tensor]) -> None:
        values = {name: float(value) for name, value in report.items()}
        for name, value in values.items():
            board.add_scalar(f"train/{name}", value, self.step)
        board.add_scalar("train/learning rate", self.optimizer.param_groups[0]["lr"], self.step)
        bar.set_postfix(stage=self.stage, **{name: f"{value:.4g}" for name, value in values.items()})
        if self.step % (LOG_EVERY * REPORT_EVERY) == 0:
            log.info(
                "step %d %s", self.step, " ".join(f"{name} {value:.5g}" for name, value in values.items())
            )

    @torch.no_grad()
    def _validate(self, board: SummaryWriter | None) -> None:
        model = self._averaged()
        objective = CodecObjective(model, self.config.lambda_rate)
        rows = objective.validate(self.val, denoise=self.stage != "codec")
        score = sum(row["objective"] for row in rows) / len(rows)
        if board is None:
            return
        for row in rows:
            for name in ("bpp", "psnr"):
                board.add_scalar(f"validation/{name} at lambda {row['lambda_rate']:g}", row[name], self.step)
        board.add_scalar("validation/objective", score, self.step)
        points = [f"lambda {r['lambda_rate']:g}: {r['bpp']:.3f} bpp {r['psnr']:.2f} dB" for r in rows]
        log.info("validation at step %d: objective %.4f; %s", self.step, score, "; ".join(points))
        self._save_sheet(board, rows[len(rows) // 3]["x_hat"])
        if score < self.best:
            self.best = score
            save_model(self.out / BEST, model.config, model)

    def _save_sheet(self, board: SummaryWriter, x_hat: Tensor) -> None:
        """Some validation photos, originals above what was decoded."""
        columns = torch.cat([self.val[:SHOWN], x_hat[:SHOWN].cpu()], 2)  # (B, 3, 2 H, W)
        sheet = torch.cat(list(columns), 2).clamp(0, 1)
        board.add_image("validation/original above, decoded below", sheet, self.step)
        save_image(sheet, self.out / SAMPLES / f"step_{self.step:07d}.png")

    def _averaged(self) -> DiffusionHyperprior:
        """The model with averaged weights and probability tables made for them, in eval mode."""
        self.ema.average.update(force=True, update_quantiles=True)
        return self.ema.average

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            TrainingState(
                step=self.step,
                best=self.best,
                stage=self.stage,
                lengths=self.lengths,
                average_steps=self.ema.steps,
                model=self.model.state_dict(),
                average=self.ema.average.state_dict(),
                optimizer=self.optimizer.state_dict()["state"],
                random=random_states(self.objective.generator),
            ).save(self.out / STATE)

    # start

    def _stage_lengths(self) -> list[int]:
        per_epoch = math.ceil(len(self.crops) / (self.config.batch_size * self.accelerator.num_processes))
        epochs = self.config.epochs, self.config.denoiser_epochs, self.config.joint_epochs
        return [per_epoch * count for count in epochs]

    def _resume(self) -> None:
        path = self.out / STATE
        if not path.is_file():
            raise TrainingError(f"--resume: there is no {path}; start without --resume")
        state = TrainingState.load(path)
        if state.lengths != self.lengths:
            state.check_lengths(self.lengths, path)
            log.info(
                "the run was planned with stages of %s steps and goes on with %s: "
                "the learning rate follows the new plan from step %d on",
                state.lengths,
                self.lengths,
                state.step,
            )
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
        restore_random_states(state.random, self.objective.generator)
        log.info("resumed at step %d", self.step)
