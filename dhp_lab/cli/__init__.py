"""The program ``dhp``. Only this package prints.

Everything heavy is imported inside the command that needs it, so that ``dhp --help`` and ``dhp info`` answer
at once.
"""

from dhp_lab.cli import files, training, evaluation, lessons  # noqa: F401, I001 (each adds its commands, in this order)
from dhp_lab.cli.app import app

__all__ = ["app"]
