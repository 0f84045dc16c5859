"""The program `dhp` itself: how its commands answer errors, and the options that several of them share.

An expected error (a damaged file, a full disk, a bad option) ends in one line on stderr and exit code 1.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Annotated

import typer
from typer.core import TyperGroup

from dhp_lab.core.memory import OutOfMemory, is_out_of_memory, keep_freed_memory

MEMORY_REMEDIES = {  # by the option that a command needs to have
    "--image_size": "smaller crops (--image_size)",
    "--batch_size": "fewer pictures at a time (--batch_size)",
    "--effort": "a lower --effort",
    "--bk_sdm_path": "a codec without borrowed networks",
    "--low_memory": "--low_memory",
    "--device": "another --device",
}


class _Commands(TyperGroup):
    """The commands, with expected errors turned into one line and exit code 1."""

    def invoke(self, ctx):
        keep_freed_memory()
        _print_any_name()
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `dhp info x.dhp | head -1`: typer ends quietly
            raise
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            message = _expected(error, self._options(ctx))
            if message is None:
                raise
            typer.echo(f"dhp: {' '.join(message.split())}", err=True)
            raise typer.Exit(1) from None

    def _options(self, ctx) -> set[str]:
        """The options of the command that was called."""
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        return {option for parameter in command.params for option in parameter.opts} if command else set()


def _print_any_name() -> None:
    r"""Let the terminal show every file name: a byte that it cannot show becomes \udce9 or the like.

    By default Python refuses to print such a name, and a command would fail after its work is done.
    """
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _expected(error: Exception, options: Collection[str]) -> str | None:
    """The message for a user of a command with these options; None for what only a traceback explains."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, OutOfMemory):
        return str(error)
    if is_out_of_memory(error):
        remedies = [words for option, words in MEMORY_REMEDIES.items() if option in options]
        advice = f"; try {', '.join(remedies)}" if remedies else ""
        return f"not enough memory{advice}: {str(error) or type(error).__name__}"
    return None if isinstance(error, RuntimeError) else str(error)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compress photos with a hyperprior and a latent diffusion model.",
)

MODEL_PATH = typer.Option(
    "--model_path", metavar="DIR", help="A checkpoint's folder; the shipped one if not given."
)
DEVICE = typer.Option("--device", help="cpu, cuda, cuda:1; the fastest one if not given.")
LOW_MEMORY = typer.Option(
    "--low_memory",
    "--spare_memory",  # its name in earlier versions
    help="Borrowed networks in half precision, attention in slices, small tiles.",
)

ModelPath = Annotated[str | None, MODEL_PATH]
Device = Annotated[str | None, DEVICE]
LowMemory = Annotated[bool, LOW_MEMORY]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the output file.")]
