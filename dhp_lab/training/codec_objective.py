"""What training minimises: MSE + lambda * bpp, over pictures that each have a lambda of their own.

The sum over very different lambdas is balanced by a weight lambda^-1/2 for each picture: at the optimum MSE
falls about linearly with lambda, so without it the largest lambda would own the gradient, and with lambda^-1
the smallest.

The denoiser's loss is the squared error in the picture that g_s makes of K = 1, divided by that of K = 0, so
that every picture and rate counts alike: 1 at the start, and -10 log10 of it is the gain in dB. The lower
noise levels, which K > 1 visits, are learnt in the latents: the squared error divided by that of the closed
form, and for D's second head, which foretells that error, the Gaussian log-likelihood of it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from dhp_lab.codec.bits.scales import is_coded
from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState
from dhp_lab.codec.denoising.sampling import bridge_sample
from dhp_lab.codec.hyperprior import Latents
from dhp_lab.codec.model import DiffusionHyperprior

LAMBDA_OFTEN = 2e-4  # seven draws in ten lie above: files under about 1.3 bpp
REFERENCE = 1e-3
VALIDATION_LAMBDAS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 2e-5)
COARSE_LAMBDAS = (3e-2, 1e-2, 3e-3)  # likewise for a model that is not trained below 1e-3
SHORTCUT_SHARE = 0.02  # of the learning rate, for the lapped transforms' small weights
LATE_SHARE = 3.0  # likewise for the denoiser and later passes, which start when the rest is trained
UNKNOWN_SHARE = 0.3  # pictures of which D's loss in the latents shows z alone
PLAIN_SHARE, CLEAN_SHARE = 0.15, 0.05  # joint stage: pictures decoded with K = 0, and from y itself
ALONE_SHARE = 0.3  # codec stage, z alone: pictures decoded from y itself, which no bits tie to the picture
SCALE_WEIGHT = 0.05  # of what is not sent, but teaches h_s the scales that sampling needs
SILENT_LEAST = -6  # log2 of the least scale, in steps, that is learnt of silent latents
LATENT_WEIGHT = 0.05  # of the denoiser's loss in the latents


class Objective(nn.Module):
    """The codec with its loss, as one module that Accelerate can wrap."""

    def __init__(self, model: DiffusionHyperprior, lambda_rate: float | None) -> None:
        super().__init__()
        self.model, self.lambda_rate = model, lambda_rate

    def draw_lambdas(self, count: int, device: torch.device) -> Tensor:
        """(count,) trade-offs: the one asked for, or log-uniform draws over the range."""
        if self.lambda_rate is not None:
            return torch.full((count,), self.lambda_rate, device=device)
        least, most = self.model.config.lambda_range
        low = torch.where(torch.rand(count) < 0.7, math.log(max(LAMBDA_OFTEN, least)), math.log(least))
        return torch.exp(low + (math.log(most) - low) * torch.rand(count)).to(device)

    def forward(self, x: Tensor, stage: str) -> dict[str, Tensor]:
        """x: (B, 3, H, W) in [0, 1], sides multiples of 64. Returns scalars; "objective" is the one to
        minimise.
        """
        lambda_rate = self.draw_lambdas(len(x), x.device)
        with torch.set_grad_enabled(stage != "denoiser" and torch.is_grad_enabled()):
            latents = self.model.latents(x, lambda_rate)
        decoder_state = self.model.decoder_state(latents)
        fixed = decoder_state.detach().with_moments() if stage != "codec" else None
        if stage == "denoiser":
            return self._gain(x, latents, fixed)
        y_hat = self.model.denoise(decoder_state, steps=0)
        if stage == "joint":
            y_hat = self._mixed(latents.y, fixed, y_hat)
        elif not self.model.sends_y:
            y_hat = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < ALONE_SHARE, latents.y, y_hat)
        x_hat = self.model.synthesise(y_hat, latents.log2_delta, x.shape[-2:])
        losses = rate_distortion(x_hat, x, self.model.likelihoods(latents), lambda_rate)
        untold = self.unsent_scale_loss(latents) if self.model.sends_y else self.unsent_rate_loss(latents)
        losses["objective"] = losses["objective"] + SCALE_WEIGHT * untold
        if stage == "joint":
            losses["objective"] = losses["objective"] + LATENT_WEIGHT * sum(
                self.latent_losses(latents, fixed)
            )
        return losses

    def _gain(self, x: Tensor, latents: Latents, fixed: DecoderState) -> dict[str, Tensor]:
        """The denoiser's loss: K = 1 against K = 0 in the picture where y is sent, and the lower levels in
        the latents.
        """
        in_latents, surprise = self.latent_losses(latents, fixed)
        seen = {"loss in latents": in_latents.detach(), "surprise": surprise.detach()}
        if not self.model.sends_y:
            return {
                "objective": in_latents + surprise,
                "loss": in_latents.detach(),
                "gain in dB": -10 * in_latents.detach().log10(),
                **seen,
            }
        errors = []
        for steps in (0, 1):
            with torch.set_grad_enabled(steps == 1 and torch.is_grad_enabled()):
                x_hat = self.model.synthesise(
                    self.model.denoise(fixed, steps=steps), latents.log2_delta, x.shape[-2:]
                )
                errors.append((x_hat - x).square().mean((1, 2, 3)))  # (B,)
        relative = (errors[1] / errors[0].clamp(min=1e-8)).mean()
        return {
            "objective": relative + LATENT_WEIGHT * (in_latents + surprise),
            "loss": relative.detach(),
            "gain in dB": -10 * relative.detach().log10(),
            **seen,
        }

    def unsent_rate_loss(self, latents: Latents) -> Tensor:
        """Bits for each latent that is not sent: nobody pays them, but they teach h_s the mean and scale that
        sampling needs.
        """
        steps = (latents.y / latents.log2_delta.exp2().view(-1, 1, 1, 1)).detach()
        residual = steps - latents.mean + torch.rand_like(latents.residual) - 0.5
        likelihood = self.model.gaussian_conditional._likelihood(residual, latents.scale)
        return -self.model.gaussian_conditional.likelihood_lower_bound(likelihood).log2().mean()

    def unsent_scale_loss(self, latents: Latents) -> Tensor:
        """The same where y is sent, for the latents that the coder passes over: of them the file's bits teach
        nothing.
        """
        residual = self.model.normalised_residual(latents.residual, latents.log2_scale).detach()
        log2_scale = latents.log2_scale.clamp(min=SILENT_LEAST)
        nats = 0.5 * (residual / log2_scale.exp2()).square() + math.log(2) * log2_scale
        return (nats * ~is_coded(latents.log2_scale)).mean()

    def _mixed(self, y: Tensor, fixed: DecoderState, y_hat: Tensor) -> Tensor:
        """K = 1 for most pictures, K = 0 or y itself for some. D sees detached inputs; the encoder's gradient
        passes straight through, by way of y_hat, so that Delta still feels the rounding error.
        """
        one_step = self.model.denoise(fixed, steps=1) + (y_hat - y_hat.detach())
        draw = torch.rand(len(y_hat), 1, 1, 1, device=y_hat.device)
        mixed = torch.where(draw < PLAIN_SHARE, y_hat, one_step)
        return torch.where(draw > 1 - CLEAN_SHARE, y, mixed)

    def latent_losses(self, latents: Latents, fixed: DecoderState) -> tuple[Tensor, Tensor]:
        """D at noise levels drawn for each picture: its squared error divided by that of the closed form, and
        how much worse that error is foretold, in nats for a latent, than if the closed form's variance were
        the truth.
        """
        draw = torch.rand(len(latents.y), 1, 1, 1, device=latents.y.device)
        unknown, blank = (
            (draw < UNKNOWN_SHARE) | (fixed.decoded[:, :, :1, :1] == 0),
            self.model.decoder_state(latents, decoded=False).detach(),
        )
        shown = {
            name: torch.where(unknown, getattr(blank, name), getattr(fixed, name))
            for name in ("symbols", "decoded", "mean", "scale")
        }
        decoder_state, residual = (
            replace(fixed, **shown),
            latents.residual.detach() + fixed.mean - shown["mean"],
        )
        sigma = self._noise_levels(unknown, decoder_state).expand_as(decoder_state.decoded)
        u = bridge_sample(residual, sigma, decoder_state, torch.randn_like(residual))
        base, believed = (t.detach() for t in self.model.denoiser.closed_form(u, sigma, decoder_state))
        clean, predicted_variance = self.model.denoiser(u, sigma, decoder_state)
        ours, plain = (clean - residual).square(), (base - residual).square()
        predicted_variance, believed = predicted_variance.clamp(min=1e-8), believed.clamp(min=1e-8)
        surprise = 0.5 * (ours.detach() / predicted_variance - 1 + (predicted_variance / believed).log())
        return (ours.mean((1, 2, 3)) / plain.mean((1, 2, 3)).clamp(min=1e-8)).mean(), surprise.mean()

    def _noise_levels(self, unknown: Tensor, decoder_state: DecoderState) -> Tensor:
        """(B, 1, 1, 1) steps: below 1/sqrt(12) where the bin is known, up to the schedule's last where it is
        not.
        """
        draw = torch.rand(unknown.shape, device=unknown.device)
        top = (
            self.model.noise_schedule.sigma(self.model.config.diffusion_steps).item()
            * self.model.latent_scale
        )
        top = (top / decoder_state.log2_delta.exp2()).view(-1, 1, 1, 1)
        return torch.where(unknown, torch.exp(math.log(0.05) + draw * (top / 0.05).log()), SIGMA_Q * draw)

    @torch.no_grad()
    def validate(self, x: Tensor, denoise: bool) -> list[dict]:
        """One row for each validation lambda: real rounding, estimated bits, K = 1 if ``denoise`` else K = 0."""
        x = x.to(next(self.model.parameters()).device)
        rows = []
        several = COARSE_LAMBDAS if self.model.config.lambda_range[0] >= 1e-3 else VALIDATION_LAMBDAS
        for value in several if self.lambda_rate is None else (self.lambda_rate,):
            lambda_rate = torch.full((len(x),), value, device=x.device)
            out = self.model(x, value, steps=int(denoise))
            losses = rate_distortion(out["x_hat"], x, out["likelihoods"], lambda_rate)
            rows.append(
                {k: float(v) for k, v in losses.items()} | {"lambda_rate": value, "x_hat": out["x_hat"]}
            )
        return rows

    def parameter_groups(self, stage: str, lr: float) -> list[dict]:
        """Adam's groups for a stage; the quantiles of z are found by bisection and never trained."""
        groups: dict[float, list] = {}
        for name, parameter in self.model.named_parameters():
            of_denoiser = name.startswith("denoiser.")
            wanted = {"codec": not of_denoiser, "denoiser": of_denoiser, "joint": True}[stage]
            parameter.requires_grad_(wanted and not name.endswith("quantiles"))
            if parameter.requires_grad:
                share = (
                    SHORTCUT_SHARE
                    if name.endswith("lapped")
                    else LATE_SHARE
                    if of_denoiser or name.startswith("passes.")
                    else 1.0
                )
                groups.setdefault(share, []).append(parameter)
        return [
            {"params": p, "lr": share * lr, "base_lr": share * lr}
            for share, p in sorted(groups.items(), reverse=True)
        ]


def rate_distortion(
    x_hat: Tensor, x: Tensor, likelihoods: dict[str, Tensor], lambda_rate: Tensor
) -> dict[str, Tensor]:
    """The loss and its parts as scalars, for pictures (B, 3, H, W) in [0, 1] with trade-offs (B,)."""
    mse = (x_hat - x).float().square().mean((1, 2, 3))  # (B,)
    pixels = x.shape[-2] * x.shape[-1]
    bpp = {name: -p.log2().sum((1, 2, 3)) / pixels for name, p in likelihoods.items()}
    total = sum(bpp.values())
    loss = mse + lambda_rate * total
    return {
        "objective": (loss * (REFERENCE / lambda_rate).sqrt()).mean() / REFERENCE,
        "loss": loss.mean().detach(),
        "bpp": total.mean().detach(),
        "bpp of z": bpp["z"].mean().detach(),
        "psnr": (-10 * mse.detach().log10()).mean(),
    }
