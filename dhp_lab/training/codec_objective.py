"""What training the codec minimises: MSE + lambda * bpp, over pictures that each have a lambda of their own.

The sum over very different lambdas is balanced by a weight lambda^-1/2 for each picture: at the optimum MSE
falls about linearly with lambda, so without it the largest lambda would own the gradient, and with lambda^-1
the smallest.

The denoiser's loss is the squared error of the picture that g_s makes of K = 1, divided by that of K = 0, so
that every picture and rate counts alike: 1 at the start, and -10 log10 of it is the gain in dB. The lower
noise levels, which K > 1 visits, are learnt in the latents: the squared error divided by that of the
single-latent posterior, and for D's log_variance_head the Gaussian log-likelihood of D's own error.

| loss                  | trains                         | where                                    |
|-----------------------|--------------------------------|------------------------------------------|
| ``rate_distortion``   | codec, and D in the last stage | real symbols, straight-through gradient  |
| ``unsent_scale_loss`` | scales of latents not coded    | y is sent                                |
| ``unsent_rate_loss``  | mean and scale of all latents  | z alone is sent                          |
| ``picture_gain``      | D at t*, K = 1                 | the picture, codec frozen                |
| ``latent_losses``     | D below t*, and from z alone   | the latents                              |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.bits.scales import is_coded
from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState
from dhp_lab.codec.denoising.sampling import bridge_sample
from dhp_lab.codec.latents import Latents
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.training.picture_draws import Noise, PictureDraws, normal_noise, uniform_noise

STAGES = ("codec", "denoiser", "joint")
LAMBDA_OFTEN = 2e-4  # seven draws in ten lie above: files under about 1.3 bpp
OFTEN_SHARE = 0.7
REFERENCE = 1e-3
MOST_BALANCED = 5.0  # of a picture's balanced loss: photos have 1 .. 5, drawings of fine bars have hundreds
VALIDATION_LAMBDAS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 2e-5)
COARSE_LAMBDAS = (3e-2, 1e-2, 3e-3)  # likewise for a model that is not trained below 1e-3
LAPPED_SHARE = 0.02  # of the learning rate, for the lapped transforms' small weights
CONTEXT_SHARE = 1.0  # likewise for the context model: at 3.0 one of 14 passes diverged at a rate of 5e-4
LATE_SHARE = 3.0  # likewise for the denoiser, which starts when the rest is trained
UNKNOWN_SHARE = 0.3  # pictures of which the loss in the latents shows z alone
PLAIN_SHARE, CLEAN_SHARE = 0.15, 0.05  # joint stage: pictures decoded with K = 0, and from y itself
ALONE_SHARE = 0.3  # codec stage, z alone: pictures decoded from y itself, which no bits tie to the picture
SCALE_WEIGHT = 0.05  # of the losses on latents that are not coded
LEAST_LOG2_SCALE = -6  # the least scale, in steps, that is learnt of latents that are not coded
FAR = 8.0  # scales beyond which such a latent counts linearly
LEAST_SIGMA = 0.05  # steps: the lowest noise level of latents of which z alone is decoded
LATENT_WEIGHT = 0.05  # of the denoiser's loss in the latents


class CodecObjective(nn.Module):
    """The codec with its loss, as one module that Accelerate can wrap.

    Args:
        model: the codec, on its device.
        lambda_rate: one trade-off to train for; None draws from ``CodecConfig.lambda_range``.
        seed: of ``PictureDraws``, which everything random here is drawn from.
        chain_noise: of the states below t*, standard normal unless an experiment says otherwise.
        denoiser_symbols: what D sees in the place of the symbols, from the latents and the draws; None: the
            symbols.
    """

    def __init__(
        self,
        model: DiffusionHyperprior,
        lambda_rate: float | None,
        *,
        seed: int = 0,
        chain_noise: Noise = normal_noise,
        denoiser_symbols: Callable[[Latents, PictureDraws], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.lambda_rate = model, lambda_rate
        self.chain_noise, self.denoiser_symbols = chain_noise, denoiser_symbols
        self.draws = PictureDraws(seed, model.log2_spread.device)

    def draw(self, count: int) -> Tensor:
        """(count, 1, 1, 1) uniform numbers in [0, 1)."""
        return self.draws.rand((count, 1, 1, 1))

    def draw_lambdas(self, count: int) -> Tensor:
        """(count,) trade-offs: the one that was chosen, or log-uniform draws over the range."""
        if self.lambda_rate is not None:
            return torch.full((count,), self.lambda_rate, device=self.draws.device)
        least, most = self.model.config.lambda_range
        often, place = self.draw(count).view(-1), self.draw(count).view(-1)
        low = torch.where(often < OFTEN_SHARE, math.log(max(LAMBDA_OFTEN, least)), math.log(least))
        return torch.exp(low + (math.log(most) - low) * place)

    def forward(self, x: Tensor, stage: str, first: int | None = None) -> dict[str, Tensor]:
        """One batch's losses.

        Args:
            x: (B, 3, H, W) in [0, 1], sides multiples of 64.
            stage: one of ``STAGES``.
            first: the number in the whole run of the first picture; None goes on after the last batch.

        Returns:
            scalars by name; "objective" is the one to minimise.
        """
        self.draws.begin(first)
        lambda_rate = self.draw_lambdas(len(x))
        z_noise = partial(uniform_noise, draws=self.draws)
        if stage == "denoiser":
            with torch.no_grad():
                latents = self.model.training_latents(x, lambda_rate, z_noise)
            return self.denoiser_losses(x, latents)
        latents = self.model.training_latents(x, lambda_rate, z_noise)
        state = self._with_denoiser_symbols(latents).detach().with_moments() if stage == "joint" else None
        x_hat = self.model.synthesise(self._decoded(latents, state), latents.log2_delta, x.shape[-2:])
        noise = uniform_noise(latents.y, self.draws)
        losses = rate_distortion(x_hat, x, self.model.likelihoods(latents, noise), lambda_rate)
        unsent = self.unsent_scale_loss(latents) if self.model.sends_y else self.unsent_rate_loss(latents)
        losses["objective"] = losses["objective"] + SCALE_WEIGHT * unsent
        if state is not None:
            error, surprise = self.latent_losses(latents, state)
            losses["objective"] = losses["objective"] + LATENT_WEIGHT * (error + surprise)
        return losses

    def _decoded(self, latents: Latents, state: DecoderState | None) -> Tensor:
        """The latents that g_s is trained on: dequantised ones, in the joint stage mostly those of K = 1."""
        y_hat = self.model.sampler.sample(self.model.decoder_state(latents), steps=0)
        if state is not None:
            return self._mixed(latents.y, state, y_hat)
        if not self.model.sends_y:
            return torch.where(self.draw(len(y_hat)) < ALONE_SHARE, latents.y, y_hat)
        return y_hat

    def _mixed(self, y: Tensor, state: DecoderState, y_hat: Tensor) -> Tensor:
        """K = 1 for most pictures, K = 0 or y itself for some.

        D sees detached inputs; the encoder's gradient passes straight through, by way of y_hat, so that
        Delta's gradient still contains the rounding error.
        """
        one_step = self.model.sampler.sample(state, steps=1) + (y_hat - y_hat.detach())
        draw = self.draw(len(y_hat))
        mixed = torch.where(draw < PLAIN_SHARE, y_hat, one_step)
        return torch.where(draw > 1 - CLEAN_SHARE, y, mixed)

    def _with_denoiser_symbols(self, latents: Latents) -> DecoderState:
        """What D sees of the latents: the decoder's state, or one with an experiment's symbols."""
        state = self.model.decoder_state(latents)
        if self.denoiser_symbols is None or not self.model.sends_y:
            return state
        return replace(state, symbols=self.denoiser_symbols(latents, self.draws))

    # the denoiser

    def denoiser_losses(self, x: Tensor, latents: Latents) -> dict[str, Tensor]:
        """The denoiser's stage: K = 1 against K = 0 in the picture where y is sent, and the lower levels in
        the latents.
        """
        state = self._with_denoiser_symbols(latents).detach().with_moments()
        error, surprise = self.latent_losses(latents, state)
        report = {"loss in latents": error.detach(), "surprise": surprise.detach()}
        if self.model.sends_y:
            gain = self.picture_gain(x, latents, state)
            objective = gain + LATENT_WEIGHT * (error + surprise)
        else:
            gain, objective = error, error + surprise
        return {
            "objective": objective,
            "loss": gain.detach(),
            "gain in dB": -10 * gain.detach().log10(),
            **report,
        }

    def picture_gain(self, x: Tensor, latents: Latents, state: DecoderState) -> Tensor:
        """The squared error of the picture at K = 1, divided by that at K = 0, mean over the batch."""

        def error(steps: int) -> Tensor:
            y_hat = self.model.sampler.sample(state, steps=steps)
            x_hat = self.model.synthesise(y_hat, latents.log2_delta, x.shape[-2:])
            return (x_hat - x).square().mean((1, 2, 3))  # (B,)

        with torch.no_grad():
            plain = error(0).clamp(min=1e-8)
        return (error(1) / plain).mean()

    def latent_losses(self, latents: Latents, state: DecoderState) -> tuple[Tensor, Tensor]:
        """D at noise levels drawn for each picture.

        Returns:
            its squared error divided by that of the single-latent posterior; and how much worse that error is
            predicted, in nats for a latent, than if the posterior's variance were the truth.
        """
        hidden = (self.draw(len(latents.y)) < UNKNOWN_SHARE) | (state.decoded[:, :, :1, :1] == 0)
        state, residual = self._partly_hidden(latents, state, hidden)
        sigma = self._noise_levels(hidden, state).expand_as(state.decoded)
        u = bridge_sample(residual, sigma, state, self.chain_noise(residual, self.draws))
        with torch.no_grad():
            base, variance = self.model.denoiser.single_latent_posterior(u, sigma, state)
        clean, predicted_variance = self.model.denoiser(u, sigma, state)
        error, base_error = (clean - residual).square(), (base - residual).square()
        relative = error.mean((1, 2, 3)) / base_error.mean((1, 2, 3)).clamp(min=1e-8)
        predicted_variance, variance = predicted_variance.clamp(min=1e-8), variance.clamp(min=1e-8)
        surprise = 0.5 * (error.detach() / predicted_variance - 1 + (predicted_variance / variance).log())
        return relative.mean(), surprise.mean()

    def _partly_hidden(
        self, latents: Latents, state: DecoderState, hidden: Tensor
    ) -> tuple[DecoderState, Tensor]:
        """The state with z alone for the pictures that are ``hidden`` (B, 1, 1, 1), and the residual to its
        mean.
        """
        z_alone = self.model.decoder_state(latents, decoded=False).detach()
        fields = {
            name: torch.where(hidden, getattr(z_alone, name), getattr(state, name))
            for name in ("symbols", "decoded", "mean", "scale")
        }
        residual = latents.residual.detach() + state.mean - fields["mean"]
        return replace(state, **fields), residual

    def _noise_levels(self, hidden: Tensor, state: DecoderState) -> Tensor:
        """(B, 1, 1, 1) steps: below 1/sqrt(12) where bins are decoded, up to the schedule's last where they
        are not.
        """
        draw, schedule = self.draw(len(hidden)), self.model.noise_schedule
        top = schedule.sigma(self.model.config.diffusion_steps).item() * self.model.latent_scale / state.delta
        log_uniform = torch.exp(math.log(LEAST_SIGMA) + draw * (top / LEAST_SIGMA).log())
        return torch.where(hidden, log_uniform, SIGMA_Q * draw)

    # latents that are not coded

    def unsent_rate_loss(self, latents: Latents) -> Tensor:
        """Bits for each latent where z alone is sent: no file contains them, but h_s learns mean and scale
        from them.
        """
        residual = latents.steps.detach() - latents.mean + uniform_noise(latents.residual, self.draws)
        likelihood = self.model.gaussian_conditional._likelihood(residual, latents.scale)
        return -self.model.gaussian_conditional.likelihood_lower_bound(likelihood).log2().mean()

    def unsent_scale_loss(self, latents: Latents) -> Tensor:
        """The log-likelihood of latents that the coder leaves out: the file's bits teach nothing of them.

        Gaussian up to FAR scales, and of a Laplacian's tails beyond (Huber 1964): in drawn pictures some
        latents lie hundreds of scales away, and their squares would outweigh all else.
        """
        residual = self.model.normalised_residual(latents.residual, latents.log2_scale).detach()
        log2_scale = latents.log2_scale.clamp(min=LEAST_LOG2_SCALE)
        distance = residual / log2_scale.exp2()
        nats = F.huber_loss(distance, torch.zeros_like(distance), reduction="none", delta=FAR)
        nats = nats + math.log(2) * log2_scale
        return (nats * ~is_coded(latents.log2_scale)).mean()

    # what the trainer needs

    @torch.no_grad()
    def validate(self, x: Tensor, denoise: bool) -> list[dict]:
        """A row for each validation lambda: real rounding, estimated bits, K = 1 if ``denoise`` else 0."""
        x = x.to(self.model.log2_spread.device)
        lambdas = COARSE_LAMBDAS if self.model.config.lambda_range[0] >= 1e-3 else VALIDATION_LAMBDAS
        rows = []
        for value in lambdas if self.lambda_rate is None else (self.lambda_rate,):
            out = self.model(x, value, steps=int(denoise))
            lambda_rate = torch.full((len(x),), value, device=x.device)
            losses = rate_distortion(out["x_hat"], x, out["likelihoods"], lambda_rate)
            row = {name: float(loss) for name, loss in losses.items()}
            rows.append(row | {"lambda_rate": value, "x_hat": out["x_hat"]})
        return rows

    def optimizer_groups(self, stage: str, lr: float) -> list[dict]:
        """Adam's parameter groups for a stage, with their learning rates; all else is frozen."""
        shares = {
            "transforms": 1.0,
            "lapped": LAPPED_SHARE,
            "context": CONTEXT_SHARE,
            "denoiser": LATE_SHARE,
        }
        trained = {"codec": set(shares) - {"denoiser"}, "denoiser": {"denoiser"}, "joint": set(shares)}[stage]
        self.model.requires_grad_(False)
        groups = []
        for name, parameters in self.model.parameter_groups().items():
            if name in trained and parameters:
                rate = shares[name] * lr
                groups.append(
                    {"params": [p.requires_grad_() for p in parameters], "lr": rate, "base_lr": rate}
                )
        return groups


def rate_distortion(
    x_hat: Tensor, x: Tensor, likelihoods: dict[str, Tensor], lambda_rate: Tensor
) -> dict[str, Tensor]:
    """The loss and its parts as scalars, for pictures (B, 3, H, W) in [0, 1] with trade-offs (B,).

    "objective" is the balanced loss; a picture of more than MOST_BALANCED weighs as one that has it.
    """
    mse = (x_hat - x).float().square().mean((1, 2, 3))  # (B,)
    pixels = x.shape[-2] * x.shape[-1]
    bpp = {name: -p.log2().sum((1, 2, 3)) / pixels for name, p in likelihoods.items()}
    total = sum(bpp.values())
    loss = mse + lambda_rate * total
    balanced = loss * (REFERENCE / lambda_rate).sqrt() / REFERENCE
    share = (MOST_BALANCED / balanced.detach()).clamp(max=1)
    return {
        "objective": (share * balanced).mean(),
        "loss": loss.mean().detach(),
        "bpp": total.mean().detach(),
        "bpp of z": bpp["z"].mean().detach(),
        "psnr": (-10 * mse.detach().log10()).mean(),
    }
