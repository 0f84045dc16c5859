"""``python -m dhp_lab.cli ...`` is ``dhp ...``, for ``accelerate launch -m dhp_lab.cli train ...``."""

from dhp_lab.cli import app

app()
