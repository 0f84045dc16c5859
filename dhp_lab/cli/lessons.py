"""``dhp lessons``: the reader's own copies of the lessons."""

from __future__ import annotations

import typer

from dhp_lab.cli.app import app


@app.command()
def lessons() -> None:
    """Copy the lessons to my-lessons/, or refresh the copies there; what you changed is never overwritten."""
    from dhp_lab.core.paths import LESSON_COPIES, LESSONS
    from dhp_lab.notebook.copies import refresh_copies

    for line in [
        f"your copies of the lessons are in {LESSON_COPIES}",
        *refresh_copies(LESSONS, LESSON_COPIES),
    ]:
        typer.echo(line)
