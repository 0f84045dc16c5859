"""How a benchmark ends: figures as JSON, the table as Markdown beside it, and on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def save(found: dict, table: str, output: Path, *, default: Callable | None = None) -> None:
    """Write ``found`` to ``output`` and the table to the same name in .md, and print the table.

    Raises:
        OSError: the disk's own trouble; older files are intact.
    """
    from dhp_lab.core.files import write_atomic

    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, (json.dumps(found, indent=1, default=default) + "\n").encode())
    write_atomic(output.with_suffix(".md"), (table + "\n").encode())
    print(table)
