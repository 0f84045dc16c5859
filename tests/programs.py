"""The program dhp, called as from a shell, and a checkpoint for it."""

import torch
from typer.testing import CliRunner

from dhp_lab.cli import app
from dhp_lab.codec.create import create_diffusion_hyperprior_model


def dhp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments) -> str:
    """The one line on stderr of a command that must fail with exit code 1 and say nothing else."""
    result = dhp(*arguments)
    assert (result.exit_code, result.stdout) == (1, ""), (result.stdout, result.exception)
    assert result.stderr.startswith("dhp: ") and result.stderr.count("\n") == 1
    return result.stderr


def small_checkpoint(folder, seed, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_diffusion_hyperprior_model(N=16, M=32, diffusion_steps=10, **settings)
    model.update()
    model.save_pretrained(folder)
    return folder
