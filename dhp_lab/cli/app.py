"""The program ``dhp`` itself: how its commands answer errors, and the options that several of them share.

An expected error (a damaged file, a full disk, a bad option) ends in one line on stderr and exit code 1.
"""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup


class _Commands(TyperGroup):
    """The commands, with expected errors turned into one line and exit code 1."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `dhp info x.dhp | head -1`: typer ends quietly
            raise
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            if (message := _expected(error)) is None:
                raise
            typer.echo(f"dhp: {' '.join(message.split())}", err=True)
            raise typer.Exit(1) from None


def _expected(error: Exception) -> str | None:
    """The message for a user; None for what only a traceback explains."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return (
            "not enough memory: take smaller pictures (--image_size), fewer at a time (--batch_size), --spare_memory, "
            f"a codec without borrowed networks, or another --device: {error or type(error).__name__}"
        )
    return None if isinstance(error, RuntimeError) else str(error)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compress photos with a hyperprior and a latent diffusion model.",
)

ModelPath = Annotated[
    str | None,
    typer.Option("--model_path", metavar="DIR", help="A checkpoint's folder; the shipped one if not given."),
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1; the fastest one if not given.")
]
LowMemory = Annotated[
    bool,
    typer.Option(
        "--spare_memory", help="Borrowed networks in half precision, attention in slices, small tiles."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the output file.")]
